"""Orthonormal vectors of a Krylov space, kept in a chosen precision and place."""

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from hessketch.linalg.arrays import Floats

_ROWS = 16  # vectors allocated at a time


class Basis:
    """Rows v_1 ... v_m of length p that grow in number; memory m p numbers of `dtype` on `place`.

    On the host (`place` 'cpu') a GPU's memory stays free, at the price of moving each new vector there and doing the
    projections on the processor.
    """

    def __init__(self, size: int, dtype: torch.dtype, place: torch.device | str, most: int | None = None):
        """Takes no memory for more than `most` vectors (default: p)."""
        self.size, self.dtype, self.place = size, dtype, torch.device(place)
        self._most = size if most is None else most
        self._blocks: list[Tensor] = []
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def append(self, vector: Tensor) -> None:
        """Keeps a unit vector (p,), rounded to the basis's precision."""
        row = self._count % _ROWS
        if row == 0:
            rows = min(_ROWS, self._most - self._count)
            self._blocks.append(torch.empty(rows, self.size, dtype=self.dtype, device=self.place))
        self._blocks[-1][row] = vector
        self._count += 1

    def rows(self, first: int = 0) -> Iterable[Tensor]:
        """The vectors from number `first` on, in blocks (k, p)."""
        for number, block in enumerate(self._blocks):
            begin, end = number * _ROWS, min((number + 1) * _ROWS, self._count)
            if end > first:
                yield block[max(first - begin, 0) : end - begin]

    def project_out(self, vector: Tensor) -> tuple[Tensor, Floats]:
        """The vector less its components in the basis, and these components (m,), float64.

        Done twice: one pass in rounded arithmetic can leave a component of the size that it removed (Parlett, The
        Symmetric Eigenvalue Problem, section 6.9).
        """
        moved = vector.to(device=self.place, dtype=self.dtype, copy=True)
        removed = np.zeros(self._count)
        for _ in range(2):
            begin = 0
            for block in self.rows():
                components = block @ moved
                moved.addmv_(block.T, components, alpha=-1)
                removed[begin : begin + len(block)] += components.double().cpu().numpy()
                begin += len(block)
        return moved.to(vector), removed

    def combine(self, weights: Floats) -> Tensor:
        """Linear combinations V^T weights as columns (p, k), in the basis's precision and place."""
        total = torch.zeros(self.size, weights.shape[1], dtype=self.dtype, device=self.place)
        begin = 0
        for block in self.rows():
            part = torch.from_numpy(weights[begin : begin + len(block)]).to(block)
            total.addmm_(block.T, part)
            begin += len(block)
        return total
