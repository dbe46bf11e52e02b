"""How much memory and disk a sketched eigendecomposition takes, and where it finds them, before the first product.

1000 pairs from 2010 measurements and 30 probes in float32, for p = 11,170,000 parameters (bytes in 10^9):

    passes         columns   vectors   work
    1, or paper       91.1      44.7    3.5
    2                136.1      44.7    4.0
    4                158.5      44.7    4.3

Only the work must be on the operator's device. Columns are in memory or in the store, eigenvectors in memory or, where
no memory holds them, in the store as well: a GPU of 80 GB does it beside a host with 512 GB, with 200 GB of disk and a
host whose half holds the eigenvectors, and up to two passes with that disk alone.
"""

from dataclasses import dataclass, replace

import torch

from hessketch.errors import InputError
from hessketch.linalg.measurement_store import LimitedPlace
from hessketch.linalg.memory import free_memory
from hessketch.linalg.sketch_settings import SketchSettings
from hessketch.linalg.sketch_sizes import default_pairs
from hessketch.linalg.sketch_sweeps import COLUMNS_TOGETHER, chunk_rows

# Of the memory that is free, so much may be taken where no budget is given.
_SHARE = 0.5
_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")


@dataclass(frozen=True)
class Room:
    """Bytes that a decomposition takes at its peak, beside what the operator's own products need."""

    columns: int  # measurements and directions: in memory, or in the store given
    vectors: int  # the eigenvectors that are returned: in memory, or in the store given
    work: int  # what is computed with at a time, on the operator's device


@dataclass(frozen=True)
class Budget:
    """Bytes that may be taken in each place."""

    device: int  # the operator's
    host: int | None  # None where that is the operator's device
    store: int | None  # None without one

    @classmethod
    def of(cls, device: torch.device, memory: int | None, store: LimitedPlace | None) -> "Budget":
        """`memory` on the operator's device (None: half of what is free), and half of what is free on the host."""

        def half(place: torch.device) -> int:
            return int(free_memory(place) * _SHARE)

        return cls(
            half(device) if memory is None else memory,
            None if device.type == "cpu" else half(torch.device("cpu")),
            None if store is None else store.free_bytes(),
        )


@dataclass(frozen=True)
class Places:
    """Where columns and eigenvectors are kept: 'device', 'host' or 'store'."""

    columns: str
    vectors: str


def room_needed(p: int, settings: SketchSettings, dtype: torch.dtype) -> Room:
    """The room of a decomposition of an operator of dimension p."""
    count, sizes, each = settings.count, settings.pass_sizes(), p * dtype.itemsize
    columns = count + sum(sizes[1:])
    at_once = 4 * max(min(settings.block, max(count, settings.probes)), min(COLUMNS_TOGETHER, count))
    chunks = 3 * 8 * columns * min(p, chunk_rows(columns)) + 8 * 8 * count**2
    return Room((columns + settings.probes) * each, settings.pairs * each, at_once * each + chunks)


def places(room: Room, budget: Budget) -> Places | None:
    """The first places, the fastest first, that hold a room within a budget; None where none do.

    Columns go into the store if there is one, so that they outlive a kill.
    """
    budgets = {"device": budget.device, "host": budget.host, "store": budget.store}
    allowed = {place: size for place, size in budgets.items() if size is not None}
    for columns in allowed if budget.store is None else ("store",):
        for vectors in allowed:
            used = dict.fromkeys(allowed, 0)
            for place, size in (("device", room.work), (columns, room.columns), (vectors, room.vectors)):
                used[place] += size
            if all(used[place] <= size for place, size in allowed.items()):
                return Places(columns, vectors)
    return None


def fitting(p: int, settings: SketchSettings, dtype: torch.dtype, budget: Budget) -> int:
    """The most measurements (with (measurements - 10) / 2 pairs) that a budget holds; 0 where it holds none."""

    def fits(count: int) -> bool:
        passes = min(settings.passes, count)
        some = replace(settings, measurements=count, pairs=default_pairs(count), passes=passes)
        return places(room_needed(p, some, dtype), budget) is not None

    low, high = 1, p  # none below 2: the paper's method needs as many
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low if low > 1 else 0


def require_possible(p: int, settings: SketchSettings) -> None:
    """Raises InputError for more pairs or measurements than an operator of dimension p has room for."""
    if settings.pairs > p:
        raise InputError(f"{settings.pairs} eigenpairs asked of an operator of dimension {p}; allowed: 1 to {p}")
    if settings.count > p:
        raise InputError(
            f"{settings.count} measurements of an operator of dimension {p}; allowed: at most {p}; an exact "
            "decomposition (torch.linalg.eigh of the dense matrix) costs no more products: take that"
        )


def require_places(p: int, settings: SketchSettings, dtype: torch.dtype, budget: Budget) -> Places:
    """`places` of a decomposition; raises InputError where nothing suffices, with what would."""
    room = room_needed(p, settings, dtype)
    found = places(room, budget)
    if found is None:
        raise InputError(_too_little(p, settings, dtype, room, budget))
    return found


def _too_little(p: int, settings: SketchSettings, dtype: torch.dtype, room: Room, budget: Budget) -> str:
    there = [
        f"{_readable(size)} {what}"
        for size, what in (
            (budget.device, "of memory" if budget.host is None else "of the device's memory"),
            (budget.host, "of the host's memory"),
            (budget.store, "of disk"),
        )
        if size is not None
    ]
    most = fitting(p, settings, dtype, budget)
    would = f"{most} measurements ({default_pairs(most)} pairs) would fit" if most else "not even a few would fit"
    on_disk = budget.store is None and places(room, replace(budget, store=room.columns)) is not None
    return (
        f"{settings.pairs} eigenpairs from {settings.count} measurements of {p} parameters need "
        f"{_readable(room.columns)} for measurements, {_readable(room.vectors)} for eigenvectors and "
        f"{_readable(room.work)} to work with; {', '.join(there)} may be taken; {would}"
        + ("; keep the measurements on disk, which suffices" if on_disk else "")
    )


def _readable(size: int) -> str:
    number, unit = float(size), 0
    while number >= 1024 and unit + 1 < len(_UNITS):
        number, unit = number / 1024, unit + 1
    return f"{size} bytes" + (f" ({number:.1f} {_UNITS[unit]})" if unit else "")
