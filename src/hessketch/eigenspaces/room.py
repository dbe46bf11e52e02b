"""Whether memory and disk hold what a run's measurements take, asked before the first product and again on the way."""

import math
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch

from hessketch.eigenspaces.eigenpairs import TOLERANCE, exact_memory, sketch_settings
from hessketch.eigenspaces.settings import EigenspaceSettings, ratio_size
from hessketch.errors import InputError
from hessketch.linalg.leading_eigenpairs import BASIS_SHARE
from hessketch.linalg.leading_eigenpairs import Room as BasisRoom
from hessketch.linalg.many_eigenpairs import KrylovWanted
from hessketch.linalg.memory import free_memory
from hessketch.linalg.sketch_room import Budget, places, require_places, require_possible, room_needed
from hessketch.linalg.sketch_settings import SketchSettings

# Up to so many parameters the eigenspaces of the stability are those of the whole matrix (870 and 500 examples: 0.5 s),
# beyond what `many_eigenpairs` picks.
FORMED = 1000
# Of the whole disk, left free for others.
_RESERVE = 0.05


@dataclass(frozen=True)
class Size:
    """What room depends on of an operator (p, p), before there is one."""

    parameters: int
    dtype: torch.dtype
    device: torch.device

    @property
    def shape(self) -> tuple[int, int]:
        return self.parameters, self.parameters


@dataclass(frozen=True)
class _Disk:
    """What a store of measurements is asked before it is made."""

    free: int

    def free_bytes(self) -> int:
        return self.free


@dataclass(frozen=True)
class Needs:
    """The room of one run's measurements.

    Of the disk 5 % stay free. Measurements of a sketch are deleted before those of the next point, eigenspaces of the
    stability before those of the next split, so that the largest of these needs is that of all of them; what a killed
    job left of them counts as room.
    """

    size: Size
    settings: EigenspaceSettings
    memory: int | None  # bytes; None: what is free
    folder: Path  # of the run's unfinished work; may not be there yet

    @property
    def half(self) -> int | None:
        """Half of the memory for vectors; the other for graphs that are kept between products."""
        return None if self.memory is None else self.memory // 2

    def sketch_on_disk(self) -> bool:
        """Whether memory does not hold the measurements of a point's sketch."""
        room = room_needed(self.size.parameters, self._sketch(), self.size.dtype)
        return places(room, Budget.of(self.size.device, self.half, None)) is None

    def require_points(self) -> None:
        """Raises InputError, with what would fit, where a method's eigenspace at one point finds no room."""
        pairs, methods = self._pairs(), self.settings.methods_of(self.size.parameters)
        if "exact" in methods:
            self._require_exact("set exact_up_to lower, or leave exact out of the methods")
        if "lanczos" in methods:
            self._require_krylov(pairs)
        if "sketched" in methods and self.sketch_on_disk():
            left = sum(path.stat().st_blocks * 512 for path in self.folder.glob("measurements/*/*.columns*"))
            self._require_sketch(self._sketch(), _Disk(free_disk(self.folder) + left))

    def require_stability(self, steps: int) -> None:
        """The same for the eigenspaces of so many steps that are compared two by two."""
        p = self.size.parameters
        ratios = self.settings.compared_ratios(p)
        if not ratios or not steps:
            return
        count = ratio_size(max(ratios), p)
        if p <= FORMED:
            self._require_exact("compare no steps")
        elif not self._basis_fits(count):
            sketch = SketchSettings(pairs=count)  # what `many_eigenpairs` falls back to
            try:
                require_possible(p, sketch)
                self._require_sketch(sketch, None)
            except InputError as error:
                raise InputError(f"of the stability, {error}; or give smaller stability ratios") from error
        each, free = 4 * p * count, free_disk(self.folder)
        there = len(list(self.folder.glob("stability/*/*.safetensors")))
        if (steps - there) * each > free:
            raise InputError(
                f"eigenspaces of {steps} steps, {count} vectors of {p} parameters each, need "
                f"{_gib(steps * each)} below {self.folder}, where {_gib(free + there * each)} may be taken: "
                f"{there + free // each} steps would fit; give fewer stability steps or smaller stability ratios"
            )

    def _pairs(self) -> int:
        return self.settings.pairs_of(self.size.parameters)

    def _sketch(self) -> SketchSettings:
        return sketch_settings(self.settings, self._pairs())

    def _require_exact(self, way: str) -> None:
        p, device = self.size.parameters, self.size.device
        free = free_memory(device) if self.memory is None else self.memory
        if exact_memory(p) > free:
            raise InputError(
                f"decomposing the Hessian of {p} parameters takes {_gib(exact_memory(p))}, {_gib(free)} may be taken "
                f"on {device}, enough for {math.isqrt(free // exact_memory(1))} parameters; {way}"
            )

    def _require_sketch(self, sketch: SketchSettings, disk: _Disk | None) -> None:
        budget = Budget.of(self.size.device, self.half, disk)
        require_places(self.size.parameters, sketch, self.size.dtype, budget)

    def _wanted(self, pairs: int) -> KrylovWanted:
        return KrylovWanted(pairs, TOLERANCE, 1, self.size.parameters)

    def _basis_fits(self, pairs: int) -> bool:
        return BasisRoom(self.size, self._wanted(pairs), self.half).place is not None

    def _require_krylov(self, pairs: int) -> None:
        if self._basis_fits(pairs):
            return
        p, each = self.size.parameters, self.size.parameters * self.size.dtype.itemsize
        found = [free_memory(device) * BASIS_SHARE for device in {self.size.device, torch.device("cpu")}]
        most = int(max(found)) if self.half is None else self.half
        steps = min(self._wanted(pairs).expected_steps, p)
        fits = [k for k in range(1, pairs) if self._wanted(k).expected_steps * each <= most]
        raise InputError(
            f"{pairs} eigenpairs of {p} parameters by lanczos keep some {steps} vectors, {_gib(steps * each)}; "
            f"{_gib(most)} may be taken, enough for {max(fits, default=0)} pairs; ask for fewer, give more memory, or "
            "take sketched in place of lanczos"
        )


def free_disk(folder: Path) -> int:
    """Bytes that may be taken below a folder, which may not be there yet: those free but for 5 % of the whole disk."""
    folder = folder.absolute()
    while not folder.exists():
        folder = folder.parent
    usage = shutil.disk_usage(folder)
    return max(0, usage.free - int(_RESERVE * usage.total))


def _gib(size: float) -> str:
    return f"{size / 2**30:.3g} GiB"
