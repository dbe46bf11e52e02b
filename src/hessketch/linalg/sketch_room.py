"""How much memory and disk a sketched eigendecomposition takes, and where it finds them, before the first product."""

from dataclasses import dataclass, replace

import torch

from hessketch.errors import InputError
from hessketch.linalg.measurement_store import MeasurementStore
from hessketch.linalg.memory import free_memory
from hessketch.linalg.sketch_settings import SketchSettings
from hessketch.linalg.sketch_sweeps import COLUMNS_TOGETHER, chunk_rows
from hessketch.linalg.vectors import Operator, dimension

# Of the memory that is free, so much may be taken where no budget is given.
_SHARE = 0.5
_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")


@dataclass(frozen=True)
class Room:
    """Bytes that a decomposition takes at its peak, beside what the operator's own products need."""

    columns: int  # measurements and directions: in memory, or in the store given
    vectors: int  # the eigenvectors that are returned
    work: int  # what is computed with at a time, on the operator's device


def room_needed(p: int, settings: SketchSettings, dtype: torch.dtype) -> Room:
    """The room of a decomposition of an operator of dimension p."""
    count, sizes, each = settings.count, settings.pass_sizes(), p * dtype.itemsize
    columns = count + sum(sizes[1:])
    at_once = 4 * max(min(settings.block, max(count, settings.probes)), min(COLUMNS_TOGETHER, count))
    if settings.method == "paper":
        at_once += 3 * (count // 2)  # the outer products, their Q, and LAPACK's copy
    chunks = 3 * 8 * columns * min(p, chunk_rows(columns)) + 8 * 8 * count**2
    return Room((columns + settings.probes) * each, settings.pairs * each, at_once * each + chunks)


def fitting(p: int, settings: SketchSettings, dtype: torch.dtype, memory: int, disk: int | None = None) -> int:
    """The most measurements (with (measurements - 10) / 2 pairs) that memory, and the disk for their columns, hold.

    0 where none do.
    """

    def fits(count: int) -> bool:
        pairs = max(1, (count - 10) // 2)
        room = room_needed(
            p, replace(settings, measurements=count, pairs=pairs, passes=min(settings.passes, count)), dtype
        )
        if disk is None:
            return room.columns + room.vectors + room.work <= memory
        return room.columns <= disk and room.vectors + room.work <= memory

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


def places(
    operator: Operator, settings: SketchSettings, store: MeasurementStore | None, memory: int | None
) -> tuple[torch.device, torch.device]:
    """Where columns (if not in the store) and eigenvectors are kept; raises InputError where nothing suffices."""
    p, dtype, device = dimension(operator), operator.dtype, torch.device(operator.device)
    room, host = room_needed(p, settings, dtype), torch.device("cpu")
    allowed = {d: int(free_memory(d) * _SHARE) if memory is None else memory for d in dict.fromkeys([device, host])}
    columns = 0 if store is not None else room.columns
    disk = None if store is None else store.free_bytes()
    for place in allowed:
        for vectors_place in allowed:
            used = dict.fromkeys(allowed, 0)
            used[device] += room.work
            used[place] += columns
            used[vectors_place] += room.vectors
            if all(used[d] <= allowed[d] for d in allowed) and (disk is None or room.columns <= disk):
                return place, vectors_place
    raise InputError(_too_little(p, settings, dtype, room, max(allowed.values()), disk))


def _too_little(p: int, settings: SketchSettings, dtype: torch.dtype, room: Room, memory: int, disk: int | None) -> str:
    rest = room.vectors + room.work
    most = fitting(p, settings, dtype, memory, disk)
    if disk is None:
        needed = f"{_readable(room.columns + rest)} of memory, {_readable(memory)} are there"
        way = "; keep the measurements on disk, which takes " + _readable(rest) + " of memory" if rest <= memory else ""
    else:
        needed = f"{_readable(room.columns)} of disk and {_readable(rest)} of memory, {_readable(disk)} and "
        needed, way = needed + f"{_readable(memory)} are there", ""
    would = f"{most} measurements ({max(1, (most - 10) // 2)} pairs) would fit" if most else "not even a few would fit"
    return (
        f"{settings.pairs} eigenpairs from {settings.count} measurements of {p} parameters need {needed}; {would}{way}"
    )


def _readable(size: int) -> str:
    number, unit = float(size), 0
    while number >= 1024 and unit + 1 < len(_UNITS):
        number, unit = number / 1024, unit + 1
    return f"{size} bytes" + (f" ({number:.1f} {_UNITS[unit]})" if unit else "")
