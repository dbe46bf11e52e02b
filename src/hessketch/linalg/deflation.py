"""Dominant eigenpairs by subspace iteration, and the operator without them."""

from dataclasses import dataclass

import torch
from torch import Tensor

from hessketch.errors import InputError, NotFiniteError
from hessketch.linalg.arrays import Floats
from hessketch.linalg.vectors import (
    Operator,
    ProgressCallback,
    column_dots,
    dimension,
    no_progress,
    norm,
    random_vectors,
    require_at_least,
    summed,
)

_ROWS = 2**16  # rows turned into float64 at a time


@dataclass(frozen=True)
class Eigenpairs:
    """Approximate eigenpairs of largest magnitude, by descending |value|; numbers in float64."""

    values: Floats  # (rank,) Rayleigh quotients, with their sign
    vectors: Tensor | None  # (p, rank) orthonormal columns; None where no basis was kept to make them from
    residuals: Floats  # (rank,) ||H q - value q||: an eigenvalue of H is at most so far from value
    paper_values: Floats  # (rank,) ||H q||, the paper's eigenvalues, which have lost their sign


def low_rank_deflation(
    operator: Operator,
    rank: int,
    iterations: int,
    generator: torch.Generator,
    progress: ProgressCallback | None = None,
    rayleigh_ritz: bool = False,
) -> Eigenpairs:
    """The eigenpairs of LOWRANKDEFLATION (Papyan 2018, Algorithm 5): block power iteration with QR.

    Takes rank * iterations products and two blocks (p, rank). Column norms of the last V = H Q are the paper's
    eigenvalues (`paper_values`); they make a negative eigenvalue positive, so `values` are the Rayleigh quotients
    q^T H q of the same Q. Vectors are that Q, so that every residual is exact without a further product.
    Columns converge by the ratio of neighbouring magnitudes; of two eigenvalues +a and -a the iteration finds
    the plane only, and the residuals say so.

    `rayleigh_ritz` ends with a rotation of Q to the eigenvectors of Q^T H Q (no further product): every column then
    converges by the ratio of its magnitude to the first one left out, and taking an unconverged block out of H
    leaves no false eigenvalues behind. The limit is the same. For few iterations.

    Raises InputError for bad arguments (rank beyond p included), NotFiniteError naming the iteration.
    """
    require_at_least(1, rank=rank, iterations=iterations)
    if rank > dimension(operator):
        raise InputError(f"rank {rank} exceeds the operator's dimension; allowed: 1 to {dimension(operator)}")
    progress = progress or no_progress
    v = random_vectors(operator, rank, generator)
    for t in range(1, iterations + 1):
        q = torch.linalg.qr(v, mode="reduced").Q
        v = operator @ q
        if not torch.isfinite(v).all():
            raise NotFiniteError(
                f"low-rank deflation, iteration {t} of {iterations}: the operator's product holds NaN or infinity"
            )
        progress(t * rank, iterations * rank)
    if rayleigh_ritz:
        _, rotation = torch.linalg.eigh(_projected(q, v))
        q, v = q @ rotation.to(q), v @ rotation.to(v)
    return _rayleigh(q, v)


def _projected(q: Tensor, v: Tensor) -> Tensor:
    """Symmetric part of q^T v (rank, rank), accumulated in float64."""
    pieces = zip(q.split(_ROWS), v.split(_ROWS), strict=True)
    inner = summed(a.double().T @ b.double() for a, b in pieces)
    return (inner + inner.T) / 2


def _rayleigh(q: Tensor, v: Tensor) -> Eigenpairs:
    """Eigenpairs from an orthonormal block q and v = H q."""
    values = column_dots(q, v)
    # A column at a time: with many classes a block is the largest thing in memory.
    residuals = torch.stack([norm(v[:, c] - values[c] * q[:, c]) for c in range(len(values))])
    paper_values = column_dots(v, v).sqrt()
    order = torch.argsort(values.abs(), descending=True)
    return Eigenpairs(
        values=values[order].cpu().numpy(),
        vectors=q[:, order],
        residuals=residuals[order].cpu().numpy(),
        paper_values=paper_values[order].cpu().numpy(),
    )


class DeflatedOperator:
    """H - sum_c lambda_c q_c q_c^T as an operator: found eigenvalues become zero, all others stay."""

    def __init__(self, operator: Operator, pairs: Eigenpairs):
        self.shape, self.dtype, self.device = operator.shape, operator.dtype, operator.device
        self._operator = operator
        if pairs.vectors is None:
            raise InputError("the eigenpairs have no vectors, as no basis was kept: nothing can be taken out with them")
        self._vectors = pairs.vectors
        self._values = torch.diag(torch.from_numpy(pairs.values)).to(pairs.vectors)

    def __matmul__(self, other: Tensor) -> Tensor:
        return self._operator @ other - self._vectors @ (self._values @ (self._vectors.T @ other))


def deflate(operator: Operator, pairs: Eigenpairs) -> DeflatedOperator:
    """The operator with the pairs removed, by their signed values (Papyan 2018, section 2.8)."""
    return DeflatedOperator(operator, pairs)
