"""Passes over the kept columns of a sketched decomposition, a chunk of rows or a few columns at a time.

Matrices of inner products are sums of chunks in float64; within a chunk float32 suffices, as products are no better,
except where small singular values are wanted (`row_factor`, `combinations`).
"""

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from hessketch.linalg.measurement_store import StoredMatrix
from hessketch.linalg.measurements import Measurements
from hessketch.linalg.sketch_recovery import Recovered, row_factor
from hessketch.linalg.vectors import Operator, summed

# Columns that an adjoint is applied to at a time.
COLUMNS_TOGETHER = 16
# Eigenvectors of values this much smaller than the first are made orthonormal once more.
_SPREAD = 1e4
# Up to this ratio of values float32 products suffice (see the tests: orthonormal to 1e-5).
_SINGLE_SPREAD = 300


def chunk_rows(columns: int) -> int:
    """Rows turned into float64 at a time: 32 MiB, or enough for the QR of a chunk.

    A function of the sizes alone: sums round alike in a run that was killed and resumed.
    """
    return max(4 * columns, 2**22 // columns)


def _chunks(matrices: Sequence[StoredMatrix], device: torch.device, rows: int) -> Iterator[Tensor]:
    """Row chunks of all matrices on the device, transposed as they are stored: (columns of all, rows)."""
    p = matrices[0].shape[0]
    for first in range(0, p, rows):
        last = min(first + rows, p)
        yield torch.cat([matrix.rows(first, last).T.to(device) for matrix in matrices])


def measured(omega: Measurements, matrix: StoredMatrix, device: torch.device) -> Tensor:
    """Omega^T times all columns of a matrix, (m, columns) float64."""
    firsts = range(0, matrix.shape[1], COLUMNS_TOGETHER)
    blocks = [matrix.columns(a, min(a + COLUMNS_TOGETHER, matrix.shape[1])).to(device) for a in firsts]
    return torch.cat([omega.adjoint(block).double() for block in blocks], dim=1)


def new_directions(
    products: StoredMatrix,
    known: Sequence[StoredMatrix],
    most: int,
    operator: Operator,
    make: Callable[[int], StoredMatrix],
) -> StoredMatrix | None:
    """An orthonormal basis (p, at most `most`) of what the products hold outside the known directions, or None.

    The leading singular vectors; those that the products' rounding hides are left out.
    """
    count, device = products.shape[1], operator.device
    rows = chunk_rows(count + sum(matrix.shape[1] for matrix in known))

    def outside() -> Iterator[tuple[Tensor, Tensor]]:
        for chunk in _chunks([products, *known], device, rows):
            left, x = chunk[:count], chunk[count:]
            yield (left if inside is None else left.addmm_(inside.T.to(left), x, alpha=-1)), x

    inside: Tensor | None = None
    for _ in range(2 if known else 0):  # twice, as what is left may be as small as the rounding of what was taken
        more = summed((x @ left.T).double() for left, x in outside())
        inside = more if inside is None else inside + more
    factor = row_factor((left.T for left, _ in outside()), operator.dtype)
    values, right = torch.linalg.svd(factor)[1:]
    norm = max(float(values[0]), 0.0 if inside is None else float(torch.linalg.matrix_norm(inside, 2)))
    kept = min(most, int((values > 4 * math.sqrt(count) * torch.finfo(operator.dtype).eps * norm).sum()))
    if kept == 0:
        return None
    weights, made = right[:kept].T / values[:kept], make(kept)
    for number, (left, _) in enumerate(outside()):
        made.write_rows(number * rows, (weights.T @ left.double()).to(operator.dtype).T)
    return made


def triangle(products: Sequence[StoredMatrix], operator: Operator) -> Tensor:
    """R (m, m) float64 with R^T R = W^T W, the QR of no more than a chunk of rows of W at a time."""
    rows = chunk_rows(sum(matrix.shape[1] for matrix in products))
    return row_factor((w.T for w in _chunks(products, operator.device, rows)), operator.dtype)


def small_matrices(
    omega: Measurements, directions: Sequence[StoredMatrix], products: Sequence[StoredMatrix], operator: Operator
) -> tuple[Tensor, Tensor, Tensor | None]:
    """X^T W, R with R^T R = W^T W, and X^T X (None for Omega alone), for X = (Omega, directions) and W = H X."""
    device, count = operator.device, sum(matrix.shape[1] for matrix in products)
    core = torch.cat([measured(omega, matrix, device) for matrix in products], dim=1)
    if not directions:
        return core, triangle(products, operator), None
    rows = chunk_rows(count + sum(matrix.shape[1] for matrix in directions))
    below: list[Tensor] = []
    square: list[Tensor] = []

    def chunks() -> Iterator[Tensor]:
        for w, x in zip(_chunks(products, device, rows), _chunks(directions, device, rows), strict=True):
            below[:] = [(x @ w.T).double() + (below[0] if below else 0)]
            square[:] = [(x @ x.T).double() + (square[0] if square else 0)]
            yield w.T

    factor = row_factor(chunks(), operator.dtype)
    across = torch.cat([measured(omega, matrix, device) for matrix in directions], dim=1)
    inner = torch.cat([torch.cat([_gram(omega), across], 1), torch.cat([across.T, square[0]], 1)])
    return torch.cat([core, below[0]]), factor, inner


def _gram(omega: Measurements) -> Tensor:
    m = omega.shape[1]
    firsts = range(0, m, COLUMNS_TOGETHER)
    return torch.cat([omega.adjoint(omega.columns(a, min(a + COLUMNS_TOGETHER, m))).double() for a in firsts], dim=1)


def combinations(
    matrices: Sequence[StoredMatrix], recovered: Recovered, operator: Operator, make: Callable[[int], StoredMatrix]
) -> Tensor:
    """The orthonormal vectors (p, k) that are these combinations of columns, where `make(k)` keeps them."""
    p, k = matrices[0].shape[0], recovered.weights.shape[1]
    dtype, device = operator.dtype, torch.device(operator.device)
    if k == 0:
        return torch.empty(p, 0, dtype=dtype, device=device)
    spread = float(recovered.values[0].abs() / recovered.values[-1].abs())
    made, rows = make(k), chunk_rows(recovered.weights.shape[0])
    # A small value's vector is what is left of large columns, whose rounding 1 / value magnifies.
    weights = recovered.weights.T.to(dtype if spread < _SINGLE_SPREAD else torch.float64)
    for number, chunk in enumerate(_chunks(matrices, device, rows)):
        made.write_rows(number * rows, (weights @ chunk.to(weights)).to(dtype).T)
    if dtype == torch.float64 or spread > _SPREAD:
        _orthonormalise(made, device, rows)
    return made.whole()


def _orthonormalise(vectors: StoredMatrix, device: torch.device, rows: int) -> None:
    """Makes nearly orthonormal columns (p, k) orthonormal in place, moved as little as possible (Loewdin)."""
    gram = summed(chunk @ chunk.T for chunk in (part.double() for part in _chunks([vectors], device, rows)))
    values, basis = torch.linalg.eigh(gram)
    root = (basis / values.sqrt()) @ basis.T
    for number, chunk in enumerate(_chunks([vectors], device, rows)):
        vectors.write_rows(number * rows, (root @ chunk.double()).to(chunk).T)
