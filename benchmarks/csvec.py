"""Count-Sketch the way of CSVec, the library of FetchSGD (Rothchild et al. 2020), written anew for the comparison.

A bucket and a sign of every coordinate and row are computed once and kept; a row is sketched by a weighted count, and
lifted by a gather into a matrix whose columns' medians are the estimates. CSVec's option numBlocks, which keeps less
and takes longer, is left out, and so are its copies of the tables at every call. Its hashes overflow int64 and then
share buckets unevenly; here their prime is small enough.
"""

import torch
from torch import Tensor

_PRIME = 2**31 - 1


class CSVec:
    """Sketches (rows, columns) of vectors (p,) float32: buckets of 2-wise and signs of 4-wise random polynomials."""

    def __init__(self, dimension: int, rows: int, columns: int, seed: int, device: torch.device | str = "cpu"):
        generator = torch.Generator().manual_seed(seed)
        coefficients = torch.randint(1, _PRIME, (rows, 6), generator=generator).tolist()
        coordinates = torch.arange(dimension, device=device)
        self.columns = columns
        self.buckets = torch.stack([_polynomial(c[:2], coordinates).remainder_(columns) for c in coefficients])
        self.signs = torch.stack([1.0 - 2.0 * _polynomial(c[2:], coordinates).remainder_(2) for c in coefficients])

    @property
    def stored_bytes(self) -> int:
        return self.buckets.nbytes + self.signs.nbytes

    def apply(self, x: Tensor) -> Tensor:
        """The table (rows, columns)."""
        rows = zip(self.buckets, self.signs, strict=True)
        return torch.stack([torch.bincount(b, weights=s * x, minlength=self.columns) for b, s in rows])

    def lift(self, table: Tensor) -> Tensor:
        """The estimate (p,): the median over rows."""
        values = torch.empty(self.signs.shape, device=table.device)
        for row, (buckets, signs) in enumerate(zip(self.buckets, self.signs, strict=True)):
            values[row] = table[row][buckets] * signs
        return values.median(dim=0).values


def _polynomial(coefficients: list[int], at: Tensor) -> Tensor:
    """A polynomial modulo the prime, by Horner's rule, int64 of the shape of `at`."""
    value = torch.full_like(at, coefficients[0])
    for coefficient in coefficients[1:]:
        value.mul_(at).add_(coefficient).remainder_(_PRIME)
    return value
