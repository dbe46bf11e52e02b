"""Count-Sketch (Charikar, Chen, Farach-Colton 2002): a random linear map that a short seed describes."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from hessketch.errors import InputError, nearest
from hessketch.linalg.hashing import random_signs, random_words, uniform_integers
from hessketch.linalg.vectors import dot, require_at_least

PLACEMENTS = ("hash", "shift")
LIFTS = ("mean", "median")
# Coordinates that share one table of hashes: the table stays in a core's cache and small networks fit into one.
_BLOCK = 2**16
# Coordinates lifted by one row before the next row's table is touched, so that a table stays in the cache.
_TOGETHER = 2**20
# Blocks below this length are gathered all at once: a call for each would cost more than the work.
_SHORT = 1024


class _Row(NamedTuple):
    """One row's hashes. Coordinate i = block * length + low has bucket (buckets[low] + offsets[block]) mod columns and
    sign signs[low] * block_signs[block]."""

    buckets: Tensor  # (length,) int32
    signs: Tensor  # (length,) float32
    offsets: np.ndarray  # (blocks,) int32, never on a GPU: each is an argument of a call
    block_signs: np.ndarray  # (blocks,) float32

    def of_block(self, block: int) -> tuple[int, float]:
        """Offset and sign of a block."""
        return int(self.offsets[block]), float(self.block_signs[block])


class CountSketch:
    """S of shape (rows * columns, p): each row adds every coordinate, with a random sign, to one of its columns.

    `apply(x)` = T with T[j, k] = sum of s_j(i) x_i over h_j(i) = k; `lift` estimates x from T. By the mean over rows of
    s_j(i) T[j, h_j(i)], the estimate is linear in x and unbiased, with E|lift(apply(x)) - x|^2 as `expected_error`
    says, (p - 1) / (rows * columns) |x|^2 for placement hash: for the same numbers sent the rows do not matter. By the
    median it is neither linear nor unbiased, but right for heavy coordinates with high probability; an even number of
    rows has no median among its values (torch takes the lower, a gross bias) and is refused.

    h_j(i) and s_j(i) follow from (seed, draw, j), whatever the device: parties that know the three share S. `draw` is a
    number of the caller's, such as a round's. Hashes are tabulated (Zobrist 1970; Patrascu and Thorup 2012): i is cut
    into two characters, each with a table of random words, and the hash is their sum modulo the columns. Such hashes of
    any three coordinates are independent, which is all that the mean's unbiasedness and its error use; only the tables
    are kept, at most 2^16 words a row and one a block instead of one a coordinate.

    placement `hash`: random tables, blocks of 2^16. `shift`: blocks as long as a row, the first table is i itself, so
    that a whole block is shifted cyclically by a random offset: no scattered writes, bit for bit repeatable on a GPU,
    several times as fast, coordinates of a block never collide, so that the error is smaller by their share, and S is
    orthogonal at one row of p columns. Coordinates of two blocks collide all together or not at all.

    Raises InputError for sizes below 1, more than 2^30 columns and unknown placements.
    """

    def __init__(
        self,
        dimension: int,
        rows: int,
        columns: int,
        seed: int,
        draw: int = 0,
        *,
        placement: str = "hash",
        device: torch.device | str = "cpu",
    ):
        require_at_least(1, dimension=dimension, rows=rows, columns=columns)
        if placement not in PLACEMENTS:
            raise InputError(
                f"placement {placement!r} is unknown; allowed: {', '.join(PLACEMENTS)}{nearest(placement, PLACEMENTS)}"
            )
        if columns > 2**30:
            raise InputError(f"{columns} columns given; allowed: at most 2^30; take more rows")
        self.dimension, self.rows, self.columns = dimension, rows, columns
        self.placement = placement
        self.device = torch.device(device)
        self._length = min(dimension, _BLOCK if placement == "hash" else columns)
        self._rows = [self._draw_row(seed, draw, row) for row in range(rows)]

    def _draw_row(self, seed: int, draw: int, row: int) -> _Row:
        low = random_words(self._length, seed, draw, row, 0)
        high = random_words(-(-self.dimension // self._length), seed, draw, row, 1)
        if self.placement == "hash":
            buckets = torch.from_numpy(uniform_integers(low, self.columns))
        else:
            buckets = torch.arange(self._length, dtype=torch.int32)
        return _Row(
            buckets.to(self.device),
            torch.from_numpy(random_signs(low)).to(self.device),
            uniform_integers(high, self.columns),
            random_signs(high),
        )

    @property
    def stored_bytes(self) -> int:
        """Bytes of the tables that are kept, 4 a number."""
        return sum(table.nbytes for row in self._rows for table in row)

    def _blocks(self) -> Iterator[tuple[int, slice]]:
        for number, start in enumerate(range(0, self.dimension, self._length)):
            yield number, slice(start, min(start + self._length, self.dimension))

    def buckets_and_signs(self, row: int) -> tuple[Tensor, Tensor]:
        """The bucket (p,) int64 and the sign (p,) float32 of every coordinate, for inspection: not stored."""
        hashes = self._rows[row]
        blocks = torch.arange(self.dimension, device=self.device) // self._length
        low = torch.arange(self.dimension, device=self.device) % self._length
        offsets = torch.from_numpy(hashes.offsets).to(self.device)
        block_signs = torch.from_numpy(hashes.block_signs).to(self.device)
        return (hashes.buckets[low].long() + offsets[blocks]) % self.columns, hashes.signs[low] * block_signs[blocks]

    def apply(self, x: Tensor) -> Tensor:
        """The table (rows, columns) of a vector (p,), float64 for a float64 vector, else float32."""
        if x.shape != (self.dimension,) or not x.dtype.is_floating_point:
            raise InputError(f"{x.dtype} of shape {tuple(x.shape)} given; allowed: a float vector ({self.dimension},)")
        x = x if x.dtype in (torch.float32, torch.float64) else x.float()
        return torch.stack([self._apply_row(x, hashes) for hashes in self._rows])

    def _apply_row(self, x: Tensor, hashes: _Row) -> Tensor:
        if self.placement == "shift":
            return self._apply_shifts(x, hashes)
        doubled = x.new_zeros(2 * self.columns)  # bucket + offset needs no remainder there
        for block, part in self._blocks():
            size = part.stop - part.start
            offset, sign = hashes.of_block(block)
            doubled.index_add_(0, hashes.buckets[:size] + offset, x[part] * hashes.signs[:size], alpha=sign)
        return doubled[: self.columns] + doubled[self.columns :]

    def _apply_shifts(self, x: Tensor, hashes: _Row) -> Tensor:
        table = x.new_zeros(self.columns)
        gathered = 0  # blocks
        if self._length == self.columns < _SHORT:
            gathered = self.dimension // self._length
            blocks = x[: gathered * self._length].view(gathered, self._length) * hashes.signs
            blocks *= x.new_tensor(hashes.block_signs[:gathered])[:, None]
            table += blocks.gather(1, self._sources(hashes, gathered)).sum(0)
        signs = hashes.signs.to(x.dtype)
        for block in range(gathered, len(hashes.offsets)):
            part, (offset, sign) = x[block * self._length :][: self._length], hashes.of_block(block)
            unwrapped = min(len(part), self.columns - offset)
            table[offset : offset + unwrapped].addcmul_(part[:unwrapped], signs[:unwrapped], value=sign)
            wrapped = len(part) - unwrapped
            table[:wrapped].addcmul_(part[unwrapped:], signs[unwrapped : len(part)], value=sign)
        return table

    def _sources(self, hashes: _Row, blocks: int) -> Tensor:
        """(blocks, columns) int64: which coordinate of a block stands in each column."""
        offsets = torch.from_numpy(hashes.offsets[:blocks]).to(self.device)
        return (torch.arange(self.columns, device=self.device) - offsets[:, None]) % self.columns

    def lift(self, table: Tensor, by: str = "mean") -> Tensor:
        """The estimate (p,) of the vector whose table (rows, columns) is given, by the rows' mean or median."""
        if table.shape != (self.rows, self.columns) or not table.dtype.is_floating_point:
            raise InputError(
                f"{table.dtype} of shape {tuple(table.shape)} given; "
                f"allowed: a float table ({self.rows}, {self.columns})"
            )
        if by not in LIFTS:
            raise InputError(f"lift {by!r} is unknown; allowed: {', '.join(LIFTS)}{nearest(by, LIFTS)}")
        if by == "median" and self.rows % 2 == 0:
            raise InputError(f"the median of {self.rows} rows is biased; allowed: an odd number of rows, or the mean")
        doubled = torch.cat([table, table], dim=1)
        estimate = table.new_empty(self.dimension)
        blocks = list(self._blocks())
        together = max(1, _TOGETHER // self._length)
        for first in range(0, len(blocks), together):
            chosen = blocks[first : first + together]
            by_row = [
                [self._estimates(doubled[j], hashes, block, part) for block, part in chosen]
                for j, hashes in enumerate(self._rows)
            ]
            for (_, part), values in zip(chosen, zip(*by_row, strict=True), strict=True):
                estimate[part] = _median(values) if by == "median" else _mean(values)
        return estimate

    def _estimates(self, doubled: Tensor, hashes: _Row, block: int, part: slice) -> Tensor:
        size, (offset, sign) = part.stop - part.start, hashes.of_block(block)
        if self.placement == "shift":
            found = doubled[offset : offset + size]
        else:
            found = doubled.index_select(0, hashes.buckets[:size] + offset)
        signed = found * hashes.signs[:size]
        return signed if sign > 0 else signed.neg_()

    def expected_error(self, x: Tensor) -> float:
        """E|lift(apply(x)) - x|^2 / |x|^2 of the mean lift, the mean taken over the hashes; x must not depend on them.

        Exact: any two coordinates share a column with probability 1 / columns, but those of a block never do by shifts.
        """
        if self.placement == "hash":
            return (self.dimension - 1) / (self.rows * self.columns)
        parts = [(part.stop - part.start, float(dot(x[part], x[part]))) for _, part in self._blocks()]
        whole = sum(energy for _, energy in parts)
        if whole == 0:
            return 0.0
        return sum(size * (whole - energy) for size, energy in parts) / (whole * self.rows * self.columns)


def _mean(rows: list[Tensor]) -> Tensor:
    total = rows[0]
    for row in rows[1:]:
        total = total.add_(row)
    return total.div_(len(rows)) if len(rows) > 1 else total


def _median(rows: list[Tensor]) -> Tensor:
    """The middle value of each coordinate, by exchanges of neighbours: vectorised, where a sort is not.

    Values are pushed up and down until the middle one cannot change; NaN spreads.
    """
    rows = list(rows)
    for turn in range(len(rows)):
        for j in range(turn % 2, len(rows) - 1, 2):
            rows[j], rows[j + 1] = torch.minimum(rows[j], rows[j + 1]), torch.maximum(rows[j], rows[j + 1])
    return rows[len(rows) // 2]
