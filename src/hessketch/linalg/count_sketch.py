"""Count-Sketch (Charikar, Chen, Farach-Colton 2002): a random linear map that a short seed describes."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
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
    offsets: NDArray[np.int32]  # (blocks,), never on a GPU: each is an argument of a call
    block_signs: NDArray[np.float32]  # (blocks,)

    def of_block(self, block: int) -> tuple[int, int]:
        """Offset and sign of a block."""
        return int(self.offsets[block]), int(self.block_signs[block])


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
        buckets = hashes.buckets.long()  # scatter_add_ wants it, and takes half the time of index_add_
        signs = {1: hashes.signs, -1: -hashes.signs}
        for block, part in self._blocks():
            size, (offset, sign) = part.stop - part.start, hashes.of_block(block)
            doubled[offset:].scatter_add_(0, buckets[:size], x[part] * signs[sign][:size])
        return doubled[: self.columns] + doubled[self.columns :]

    def _apply_shifts(self, x: Tensor, hashes: _Row) -> Tensor:
        table = x.new_zeros(self.columns)
        gathered = self._gathered_blocks()
        if gathered:
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

    def _gathered_blocks(self) -> int:
        """How many of the first blocks are shifted all together: none of long ones."""
        short = self.placement == "shift" and self._length == self.columns < _SHORT
        return self.dimension // self._length if short else 0

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
        combine = _median if by == "median" else _mean
        for blocks in self._blocks_together():
            by_row = [self._estimates(doubled[j], hashes, blocks) for j, hashes in enumerate(self._rows)]
            start = blocks.start * self._length
            for values in zip(*by_row, strict=True):
                estimate[start : start + len(values[0])] = combine(values)
                start += len(values[0])
        return estimate

    def _blocks_together(self) -> Iterator[range]:
        """Ranges of blocks that one row lifts before the next does."""
        whole, count = self._gathered_blocks(), -(-self.dimension // self._length)
        together = max(1, _TOGETHER // self._length)
        for first, last in ((0, whole), (whole, count)):
            for start in range(first, last, together):
                yield range(start, min(start + together, last))

    def _estimates(self, doubled: Tensor, hashes: _Row, blocks: range) -> list[Tensor]:
        """One row's estimates of the coordinates of some blocks, in one or more pieces."""
        if blocks.stop <= self._gathered_blocks():
            chosen = slice(blocks.start, blocks.stop)
            offsets = torch.from_numpy(hashes.offsets[chosen]).to(self.device)
            found = doubled.unfold(0, self._length, 1).index_select(0, offsets)
            found *= hashes.signs
            found *= doubled.new_tensor(hashes.block_signs[chosen])[:, None]
            return [found.view(-1)]
        signs = {1: hashes.signs, -1: -hashes.signs}
        pieces = []
        for block in blocks:
            size = min(self._length, self.dimension - block * self._length)
            offset, sign = hashes.of_block(block)
            window = doubled[offset : offset + self.columns]
            found = window[:size] if self.placement == "shift" else window.index_select(0, hashes.buckets[:size])
            pieces.append(found * signs[sign][:size])
        return pieces

    def expected_error(self, x: Tensor) -> float:
        """E|lift(apply(x)) - x|^2 / |x|^2 of the mean lift, the mean taken over the hashes; x must not depend on them.

        Exact: any two coordinates share a column with probability 1 / columns, but those of a block never do by shifts.
        """
        if self.placement == "hash":
            return (self.dimension - 1) / (self.rows * self.columns)
        parts = [(len(x[part]), float(dot(x[part], x[part]))) for _, part in self._blocks()]
        whole = sum(energy for _, energy in parts)
        if whole == 0:
            return 0.0
        return sum(size * (whole - energy) for size, energy in parts) / (whole * self.rows * self.columns)


def _mean(rows: Sequence[Tensor]) -> Tensor:
    total = rows[0]
    for row in rows[1:]:
        total = total.add_(row)
    return total.div_(len(rows)) if len(rows) > 1 else total


def _median(rows: Sequence[Tensor]) -> Tensor:
    """The middle value of each coordinate, by minima and maxima: vectorised, where a sort is not. NaN spreads."""
    low, high = torch.minimum, torch.maximum
    if len(rows) == 3:
        a, b, c = rows
        return high(low(a, b), low(high(a, b), c))
    if len(rows) == 5:  # the larger of two minima and the smaller of two maxima stay candidates, beside the fifth
        a, b, c, d, e = rows
        f, g = high(low(a, b), low(c, d)), low(high(a, b), high(c, d))
        return high(low(f, g), low(high(f, g), e))
    rows = list(rows)
    for turn in range(len(rows)):  # exchanges of neighbours until the middle one cannot change
        for j in range(turn % 2, len(rows) - 1, 2):
            rows[j], rows[j + 1] = low(rows[j], rows[j + 1]), high(rows[j], rows[j + 1])
    return rows[len(rows) // 2]
