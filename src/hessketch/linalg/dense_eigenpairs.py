"""All eigenvalues of a symmetric matrix and its leading eigenvectors, by value or by magnitude."""

import numpy as np
import torch
from scipy.linalg import eigh_tridiagonal, eigvalsh_tridiagonal, lapack
from threadpoolctl import threadpool_limits
from torch import Tensor

from hessketch.errors import InputError, NotFiniteError
from hessketch.linalg.arrays import Floats
from hessketch.linalg.vectors import dimension, require_at_least

ORDERS = ("magnitude", "value")
# Up to this size all eigenvectors are computed: a few milliseconds.
_WHOLE_UP_TO = 256
# Columns that LAPACK reduces to tridiagonal form at once.
_BLOCK = 64
_EPS = torch.finfo(torch.float64).eps


def rounding_of(values: Floats | Tensor) -> float:
    """p eps max |value| of the p eigenvalues of a matrix: what is not larger is not told from zero in float64.

    A decomposition's backward error is of that size at most (Golub and Van Loan, Matrix Computations, section 8.3). Of
    either sign: an eigenvalue is negative below minus that.
    """
    magnitudes = values.abs() if isinstance(values, Tensor) else np.abs(values)
    return len(values) * _EPS * float(magnitudes.max())


def dense_eigenpairs(matrix: Tensor, count: int, by: str = "magnitude") -> tuple[Tensor, Tensor, Tensor]:
    """All eigenvalues (p,) ascending, and the `count` largest: their values (k,), descending, and vectors (p, k).

    `by` is one of ORDERS: largest by magnitude, or by value. `matrix` is a symmetric (p, p) float64 tensor and stays as
    it is, though on the CPU it is worked in: one reduction to a tridiagonal matrix gives all eigenvalues, only the
    wanted vectors are formed, and no second matrix is held (for p = 3,000 and 150 pairs on one core 2.8 s, where
    torch.linalg.eigh takes 7.9 s). On a GPU, and for more than a quarter of all vectors, by torch.linalg.eigh. An
    eigenvalue's error is some p eps of the largest magnitude. Raises InputError for another shape, dtype or order and
    for count beyond p; NotFiniteError for NaN or infinity.
    """
    p = dimension(matrix)
    require_at_least(1, count=count)
    if by not in ORDERS:
        raise InputError(f"by is {by!r}; allowed: {', '.join(ORDERS)}")
    if count > p or matrix.dtype != torch.float64:
        raise InputError(
            f"{count} eigenpairs of a {p} x {p} matrix of {matrix.dtype} asked for; allowed: 1 to {p}, float64"
        )
    if not torch.isfinite(torch.linalg.vector_norm(matrix)):
        raise NotFiniteError(f"a {p} x {p} matrix holds NaN or infinity: it has no eigenvalues")
    if matrix.device.type == "cpu" and p > _WHOLE_UP_TO and 4 * count <= p:
        # scipy's LAPACK would take every core, whatever number of threads this job was given.
        with threadpool_limits(torch.get_num_threads(), user_api="blas"):
            found = _by_tridiagonal_form(matrix.detach().contiguous().numpy(), count, by)
        if found is not None:
            every, wanted, columns = map(torch.from_numpy, found)
            return every, wanted, columns
    values, vectors = torch.linalg.eigh(matrix)
    order = (values if by == "value" else values.abs()).argsort(descending=True, stable=True)[:count]
    return values, values[order], vectors[:, order]


def _by_tridiagonal_form(matrix: Floats, count: int, by: str) -> tuple[Floats, Floats, Floats] | None:
    """`dense_eigenpairs` by LAPACK's reduction (Householder), bisection and inverse iteration, and the way back.

    None where zeros up to rounding are wanted from both ends of the spectrum: found apart, they might be the same ones.
    """
    size = len(matrix)
    diagonal_before = matrix.diagonal().copy()
    try:
        # The transpose of a symmetric matrix in rows is itself in columns, as LAPACK takes it: nothing is copied.
        reduced, diagonal, beside, scales, info = lapack.dsytrd(matrix.T, lower=1, lwork=_BLOCK * size, overwrite_a=1)
        if info:
            raise InputError(f"LAPACK's dsytrd refuses its argument {-info}; give a real symmetric matrix")
        values = np.asarray(eigvalsh_tridiagonal(diagonal, beside, lapack_driver="sterf"), np.float64)
        ends = _ends(values, count, by)
        if len(ends) == 2 and min(abs(values[end]).min() for end in ends) <= rounding_of(values):
            return None
        pieces = [
            eigh_tridiagonal(
                diagonal, beside, select="i", select_range=(end.start, end.stop - 1), lapack_driver="stebz"
            )
            for end in ends
        ]
        found = np.concatenate([piece[0] for piece in pieces], dtype=np.float64)
        vectors = _transformed_back(reduced, scales, np.hstack([piece[1] for piece in pieces]))
    finally:
        _restore(matrix, diagonal_before)
    if len(ends) == 2:  # found apart, they are orthogonal up to rounding over their distance
        vectors = np.linalg.qr(vectors).Q
    order = np.argsort(-(found if by == "value" else np.abs(found)), kind="stable")
    return values, found[order], vectors[:, order]


def _ends(values: Floats, count: int, by: str) -> list[slice]:
    """The wanted of ascending values: a piece of their lower end, one of their upper end, or both."""
    p, below = len(values), 0
    if by == "magnitude":
        largest = np.argsort(-np.abs(values), kind="stable")[:count]
        below = int((values[largest] < 0).sum())
    ends = [slice(0, below), slice(p - count + below, p)]
    return [end for end in ends if end.start < end.stop]


def _transformed_back(reduced: Floats, scales: Floats, vectors: Floats) -> Floats:
    """Eigenvectors (r, k) of the matrix from those of its tridiagonal form: Q v, with the reflectors below `reduced`.

    They lie in reduced[1:, :-1], which is not contiguous and would be copied. From its first number on, the same memory
    is a contiguous (r, r - 1) matrix that ends in one row more, of the upper triangle: made zero, it changes nothing.
    """
    size, first = len(reduced), reduced[0, 1:].copy()
    reduced[0, 1:] = 0
    reflectors = reduced.ravel(order="F")[1 : 1 + size * (size - 1)].reshape(size, size - 1, order="F")
    below = np.asfortranarray(np.vstack([vectors[1:], np.zeros((1, vectors.shape[1]))]))
    found, _, info = lapack.dormqr("L", "N", reflectors, scales, below, _BLOCK * vectors.shape[1] + _BLOCK**2)
    reduced[0, 1:] = first
    if info:
        raise InputError(f"LAPACK's dormqr refuses its argument {-info}")
    return np.vstack([vectors[:1], found[:-1]])


def _restore(matrix: Floats, diagonal: Floats, block: int = 1024) -> None:
    """Writes the upper triangle of a matrix that `dsytrd` has worked in from the lower one, which it leaves alone."""
    for i in range(0, len(matrix), block):
        for j in range(0, i, block):
            matrix[j : j + block, i : i + block] = matrix[i : i + block, j : j + block].T
        square = matrix[i : i + block, i : i + block]
        square[:] = np.tril(square, -1) + np.tril(square, -1).T
    np.fill_diagonal(matrix, diagonal)
