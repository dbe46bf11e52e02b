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
from hessketch.linalg.vectors import Operator

# Columns that an adjoint is applied to at a time.
COLUMNS_TOGETHER = 16
# Eigenvectors of values this much smaller than the first are made orthonormal once more.
_SPREAD = 1e4


def chunk_rows(columns: int) -> int:
    """Rows turned into float64 at a time: 32 MiB, or enough for the QR of a chunk.

    A function of the sizes alone: sums round alike in a run that was killed and resumed.
    """
    return max(4 * columns, 2**22 // columns)


def _chunks(matrices: Sequence[StoredMatrix], device: torch.device, rows: int) -> Iterator[Tensor]:
    """Row chunks (rows, columns of all matrices) on the device."""
    p = matrices[0].shape[0]
    for first in range(0, p, rows):
        last = min(first + rows, p)
        yield torch.cat([matrix.rows(first, last).to(device) for matrix in matrices], dim=1)


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

    def outside() -> Iterator[Tensor]:
        for chunk in _chunks([products, *known], device, rows):
            yield chunk[:, :count] - chunk[:, count:] @ inside.to(chunk)

    inside = torch.zeros(sum(matrix.shape[1] for matrix in known), count, dtype=torch.float64, device=device)
    for _ in range(2 if known else 0):  # twice, as what is left may be as small as the rounding of what was taken
        pairs = zip(outside(), _chunks(known, device, rows), strict=True)
        inside = inside + sum((x.T @ left).double() for left, x in pairs)
    factor = row_factor(outside(), operator.dtype)
    values, right = torch.linalg.svd(factor)[1:]
    norm = max(float(values[0]), float(torch.linalg.matrix_norm(inside, 2)) if known else 0.0)
    kept = min(most, int((values > 4 * math.sqrt(count) * torch.finfo(operator.dtype).eps * norm).sum()))
    if kept == 0:
        return None
    weights, made = right[:kept].T / values[:kept], make(kept)
    for number, left in enumerate(outside()):
        made.write_rows(number * rows, (left.double() @ weights).to(operator.dtype))
    return made


def small_matrices(
    omega: Measurements, directions: Sequence[StoredMatrix], products: Sequence[StoredMatrix], operator: Operator
) -> tuple[Tensor, Tensor, Tensor | None]:
    """X^T W, R with R^T R = W^T W, and X^T X (None for Omega alone), for X = (Omega, directions) and W = H X."""
    device, count = operator.device, sum(matrix.shape[1] for matrix in products)
    core = torch.cat([measured(omega, matrix, device) for matrix in products], dim=1)
    if not directions:
        return core, row_factor(_chunks(products, device, chunk_rows(count)), operator.dtype), None
    rows = chunk_rows(count + sum(matrix.shape[1] for matrix in directions))
    below, square = [], []

    def chunks() -> Iterator[Tensor]:
        for w, x in zip(_chunks(products, device, rows), _chunks(directions, device, rows), strict=True):
            below[:] = [(x.T @ w).double() + (below[0] if below else 0)]
            square[:] = [(x.T @ x).double() + (square[0] if square else 0)]
            yield w

    factor = row_factor(chunks(), operator.dtype)
    across = torch.cat([measured(omega, matrix, device) for matrix in directions], dim=1)
    inner = torch.cat([torch.cat([_gram(omega), across], 1), torch.cat([across.T, square[0]], 1)])
    return torch.cat([core, below[0]]), factor, inner


def _gram(omega: Measurements) -> Tensor:
    m = omega.shape[1]
    firsts = range(0, m, COLUMNS_TOGETHER)
    return torch.cat([omega.adjoint(omega.columns(a, min(a + COLUMNS_TOGETHER, m))).double() for a in firsts], dim=1)


def combinations(
    matrices: Sequence[StoredMatrix], recovered: Recovered, operator: Operator, place: torch.device
) -> Tensor:
    """The orthonormal vectors (p, k) that are these combinations of columns, in the operator's dtype on a place."""
    p, k = matrices[0].shape[0], recovered.weights.shape[1]
    dtype, device = operator.dtype, torch.device(operator.device)
    vectors = torch.empty(k, p, dtype=dtype, device=place)
    rows, first = chunk_rows(recovered.weights.shape[0]), 0
    for chunk in _chunks(matrices, device, rows):
        vectors[:, first : first + len(chunk)] = (chunk.double() @ recovered.weights).T.to(dtype)
        first += len(chunk)
    spread = float(recovered.values[0].abs() / recovered.values[-1].abs()) if k else 1.0
    if k and (dtype == torch.float64 or spread > _SPREAD):
        _orthonormalise(vectors, device, rows)
    return vectors.T


def _orthonormalise(vectors: Tensor, device: torch.device, rows: int) -> None:
    """Makes nearly orthonormal rows (k, p) orthonormal in place, moved as little as possible (Loewdin)."""
    parts = [slice(first, min(first + rows, vectors.shape[1])) for first in range(0, vectors.shape[1], rows)]
    gram = 0
    for part in parts:
        chunk = vectors[:, part].to(device).double()
        gram = gram + chunk @ chunk.T
    values, basis = torch.linalg.eigh(gram)
    root = (basis / values.sqrt()) @ basis.T
    for part in parts:
        vectors[:, part] = (root @ vectors[:, part].to(device).double()).to(vectors)
