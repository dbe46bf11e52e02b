"""All eigenvalues and the leading eigenvectors of a symmetric matrix."""

import numpy as np
import torch
from scipy.linalg import eigh_tridiagonal, lapack
from torch import Tensor

from hessketch.errors import InputError
from hessketch.linalg.vectors import dimension, require_at_least


def dense_eigenpairs(matrix: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Eigenvalues (p,) ascending, and the `count` of largest magnitude: values (k,) descending by it, vectors (p, k).

    `matrix` is a symmetric (p, p) float64 tensor, of which the lower triangle is read; it stays as it is. On the CPU
    one reduction to a tridiagonal matrix gives all eigenvalues, and only the wanted vectors are formed: for p = 7,030
    and 355 pairs on one core 31 s, where torch.linalg.eigh takes 96 s. Where values to be found are zero up to
    rounding, and on a GPU, torch.linalg.eigh decomposes the matrix whole. Raises InputError for another shape or dtype
    and for count beyond p.
    """
    p = dimension(matrix)
    require_at_least(1, count=count)
    if count > p or matrix.dtype != torch.float64:
        raise InputError(
            f"{count} eigenpairs of a {p} x {p} matrix of {matrix.dtype} asked for; allowed: 1 to {p}, float64"
        )
    if matrix.device.type == "cpu" and 4 * count <= p:
        found = _by_tridiagonal(matrix, count)
        if found is not None:
            return found
    values, vectors = torch.linalg.eigh(matrix)
    order = values.abs().argsort(descending=True, stable=True)[:count]
    return values, values[order], vectors[:, order]


def _by_tridiagonal(matrix: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor] | None:
    """Householder reduction (LAPACK sytrd), relatively robust representations, and the way back."""
    p = len(matrix)
    work, _ = lapack.dsytrd_lwork(p, lower=1)
    copy = np.array(matrix.numpy().T, order="F")  # the reduction overwrites it
    reduced, diagonal, off, tau, _ = lapack.dsytrd(copy, lower=1, lwork=int(work), overwrite_a=1)
    values = eigh_tridiagonal(diagonal, off, eigvals_only=True)
    largest = np.sort(np.argsort(-np.abs(values), kind="stable")[:count])
    scale = np.abs(values).max()
    if np.abs(values[largest]).min() <= p * np.finfo(np.float64).eps * scale:
        return None  # some of many zeros: they are not told apart
    below = int((values[largest] < 0).sum())  # the wanted values are the lowest and the highest of all
    ends = [(0, below - 1)] * (below > 0) + [(p - count + below, p - 1)] * (below < count)
    pieces = [eigh_tridiagonal(diagonal, off, select="i", select_range=end) for end in ends]
    found = np.concatenate([piece[0] for piece in pieces])
    vectors = torch.from_numpy(np.concatenate([piece[1] for piece in pieces], axis=1))
    reflectors = torch.from_numpy(reduced)[1:, :-1].contiguous()
    vectors[1:] = torch.ormqr(reflectors, torch.from_numpy(tau), vectors[1:].contiguous())
    order = torch.from_numpy(np.argsort(-np.abs(found), kind="stable"))
    # The two ends were found apart, and are orthogonal up to rounding over their distance.
    return torch.from_numpy(values), torch.from_numpy(found)[order], torch.linalg.qr(vectors[:, order]).Q
