"""The state of a long Lanczos run on disk: basis vectors once each, scalars anew each time."""

import shutil
import time
from pathlib import Path

import torch
from torch import Tensor

from hessketch.errors import InputError
from hessketch.records import read_tensors, write_tensors


class LanczosStore:
    """A folder that a `krylov_run` leaves its state in, at most every so many seconds.

    Vectors that were saved are not written again, so that a run of m steps writes m p numbers in all. What another
    task left, or what is damaged, is set aside: starting anew is always right.
    """

    def __init__(self, folder: Path, task: str, every: float):
        self._folder, self._task, self._every = folder, task, every
        self._saved = time.monotonic()
        self._blocks = 0

    def _state(self) -> Path:
        return self._folder / "state.safetensors"

    def _vectors(self, number: int) -> Path:
        return self._folder / f"vectors{number:05d}.safetensors"

    def load(self) -> tuple[list[Tensor], dict[str, Tensor]] | None:
        """Blocks of basis vectors and the state of the last save, or None."""
        if not self._state().is_file():
            return None
        try:
            state, metadata = read_tensors(self._state())
            if metadata.get("task") == self._task:
                self._blocks = metadata["blocks"]
                return [read_tensors(self._vectors(i))[0]["vectors"] for i in range(self._blocks)], state
        except InputError:
            pass
        self._blocks = 0
        shutil.rmtree(self._folder)
        return None

    def due(self) -> bool:
        """Whether the last save is old enough."""
        return time.monotonic() - self._saved >= self._every

    def save(self, vectors: list[Tensor], state: dict[str, Tensor]) -> None:
        """Adds blocks of basis vectors and replaces the state, which alone says what counts."""
        if vectors:
            write_tensors({"vectors": torch.cat([v.cpu() for v in vectors])}, self._vectors(self._blocks))
            self._blocks += 1
        write_tensors(state, self._state(), {"task": self._task, "blocks": self._blocks})
        self._saved = time.monotonic()
