"""Lanczos tridiagonalisation with and without reorthogonalisation, Ritz values and their copies."""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.linalg import eigh_tridiagonal
from torch import Tensor

from hessketch.errors import InputError, NotFiniteError
from hessketch.linalg.arrays import Floats
from hessketch.linalg.vectors import (
    Operator,
    ProgressCallback,
    dimension,
    dot,
    no_progress,
    norm,
    random_unit_vector,
    require_at_least,
)

# A residual below this many roundings of the tridiagonal's norm is rounding: the Krylov space is exhausted.
BREAKDOWN_ROUNDINGS = 10
# Converged values so close, relative to the largest, are copies: the square root of float32's rounding unit.
GHOST_TOLERANCE: float = float(np.finfo(np.float32).eps) ** 0.5


@dataclass(frozen=True)
class Tridiagonal:
    """The symmetric tridiagonal matrix of m Lanczos steps, float64."""

    diagonal: Floats  # (m,) alpha_1 ... alpha_m
    off_diagonal: Floats  # (m,) beta_1 ... beta_m; the last, outside the matrix, is the residual's norm


@dataclass(frozen=True)
class Ritz:
    """Eigenvalues of a Lanczos tridiagonal matrix, float64, ascending."""

    values: Floats  # (m,)
    weights: Floats  # (m,) squared first components of the eigenvectors; nonnegative, they sum to 1
    residuals: Floats  # (m,) |beta_m y[m]|: an eigenvalue of the operator is at most so far away


def _start_vector(operator: Operator, generator: torch.Generator, start: Tensor | None) -> Tensor:
    if start is None:
        return random_unit_vector(operator, generator)
    if tuple(start.shape) != (dimension(operator),):
        raise InputError(f"start has shape {tuple(start.shape)}; allowed: ({dimension(operator)},), as the operator")
    start = start.to(device=operator.device, dtype=operator.dtype)
    length = norm(start)
    if not 0 < length.item() < float("inf"):
        raise InputError("start is zero or not finite; give a nonzero vector of finite numbers")
    return start / length


class _Recurrence:
    """The scalars of a Lanczos run: collects them, stops at NaN, tells when the Krylov space is exhausted."""

    def __init__(self, algorithm: str, dtype: torch.dtype, steps: int):
        self.algorithm, self.steps = algorithm, steps
        self.tolerance = BREAKDOWN_ROUNDINGS * torch.finfo(dtype).eps
        self.scale = 0.0
        self.alphas: list[float] = []
        self.betas: list[float] = []

    def add(self, alpha: Tensor, beta: Tensor) -> float:
        """Keeps alpha_m and beta_m and returns beta_m (the one device synchronisation of a step)."""
        numbers: list[float] = torch.stack([alpha, beta]).tolist()
        a, b = numbers
        step = len(self.alphas) + 1
        if not np.isfinite(numbers).all():
            raise NotFiniteError(
                f"{self.algorithm}, step {step} of {self.steps}: the operator's product holds NaN, infinity "
                "or numbers too large to square"
            )
        self.scale = max(self.scale, abs(a) + b + (self.betas[-1] if self.betas else 0.0))
        self.alphas.append(a)
        self.betas.append(b)
        return b

    @property
    def exhausted(self) -> bool:
        return self.betas[-1] <= self.tolerance * self.scale

    def tridiagonal(self) -> Tridiagonal:
        return Tridiagonal(np.array(self.alphas), np.array(self.betas))


def fast_lanczos(
    operator: Operator,
    steps: int,
    generator: torch.Generator,
    start: Tensor | None = None,
    progress: ProgressCallback | None = None,
) -> Tridiagonal:
    """FASTLANCZOS (Papyan 2018, Algorithm 2): three vectors, no reorthogonalisation.

    Takes `steps` products and O(p) memory. Rounding costs the vectors their orthogonality, and converged
    eigenvalues then come back as copies (`merge_ghosts`). `steps` may exceed p: in exact arithmetic the recurrence
    ends after at most p steps, in rounded arithmetic it goes on and adds copies. Stops early, with a shorter
    and exact result, when the Krylov space is exhausted (beta_m within 10 roundings of the tridiagonal's norm).

    The start is a random direction from `generator`, or the direction of `start` (p,).
    Raises InputError for bad arguments, NotFiniteError naming the step where the operator gave NaN or infinity.
    """
    require_at_least(1, steps=steps)
    progress = progress or no_progress
    recurrence = _Recurrence("fast Lanczos", operator.dtype, steps)
    v = _start_vector(operator, generator, start)
    v_previous, beta = torch.zeros_like(v), 0.0
    for m in range(1, steps + 1):
        v_next = torch.sub(operator @ v, v_previous, alpha=beta)  # a new tensor: the operator may return v itself
        alpha = dot(v_next, v)
        v_next -= alpha * v
        beta = recurrence.add(alpha, norm(v_next))
        progress(m, steps)
        if recurrence.exhausted:
            break
        v_previous, v = v, v_next.div_(beta)
    return recurrence.tridiagonal()


def slow_lanczos(
    operator: Operator,
    steps: int,
    generator: torch.Generator,
    start: Tensor | None = None,
    progress: ProgressCallback | None = None,
) -> Tridiagonal:
    """SLOWLANCZOS (Papyan 2018, Algorithm 1) stopped after `steps` steps: full reorthogonalisation.

    As `fast_lanczos`, but every new vector is made orthogonal to all before it, which keeps a (steps, p) basis
    and costs O(steps^2 p) more. The projection is done twice, not once as printed: one pass in rounded arithmetic
    can leave a component of the size that it removed, a second one leaves rounding only (Parlett, The Symmetric
    Eigenvalue Problem, section 6.9). `steps` beyond p is clipped to p; p steps give every distinct eigenvalue
    (one value for each, whatever its multiplicity).
    """
    require_at_least(1, steps=steps)
    progress = progress or no_progress
    steps = min(steps, dimension(operator))
    recurrence = _Recurrence("slow Lanczos", operator.dtype, steps)
    v = _start_vector(operator, generator, start)
    basis = torch.empty(steps, len(v), dtype=v.dtype, device=v.device)
    v_previous, beta = torch.zeros_like(v), 0.0
    for m in range(1, steps + 1):
        basis[m - 1] = v
        w = torch.sub(operator @ v, v_previous, alpha=beta)
        alpha = dot(w, v)
        w -= alpha * v
        for _ in range(2):
            w -= basis[:m].T @ (basis[:m] @ w)
        beta = recurrence.add(alpha, norm(w))
        progress(m, steps)
        if recurrence.exhausted:
            break
        v_previous, v = v, w.div_(beta)
    return recurrence.tridiagonal()


def ritz(tridiagonal: Tridiagonal) -> Ritz:
    """Ritz values, the weights of the spectral measure of the start vector, and residual bounds."""
    values, vectors = eigenpairs_of_tridiagonal(tridiagonal.diagonal, tridiagonal.off_diagonal[:-1])
    return Ritz(values, vectors[0] ** 2, np.abs(tridiagonal.off_diagonal[-1] * vectors[-1]))


def eigenpairs_of_tridiagonal(diagonal: Floats, off_diagonal: Floats) -> tuple[Floats, Floats]:
    """Eigenvalues (m,), ascending, and eigenvectors as columns (m, m).

    By LAPACK's implicit QR (stev): the faster default (stemr) may fail on the tight clusters that copies of eigenvalues
    make, the "occasional failure" of Papyan 2018, section 2.5.
    """
    values, vectors = eigh_tridiagonal(diagonal, off_diagonal, lapack_driver="stev", check_finite=False)
    return np.asarray(values, np.float64), np.asarray(vectors, np.float64)


def merge_ghosts(pairs: Ritz, tolerance: float = GHOST_TOLERANCE) -> Ritz:
    """Merges the copies of converged eigenvalues that Lanczos without reorthogonalisation makes.

    With delta = tolerance * max |value|: a Ritz value is converged when its residual is at most delta. Taken by
    ascending residual, a converged value within delta of one taken before is its copy (of the nearest such), else
    a new eigenvalue. Weights of copies are added; value and residual are those of the smallest residual.
    Unconverged values stay as they are, among them copies still on their way: filter by `residuals` to count.

    The default tolerance, 3.5e-4, is the square root of float32's rounding unit: copies differ by their residual
    and the operator's rounding error (1e-7 to 1e-4 of its norm in float32), both below delta. Distinct
    eigenvalues closer than delta are merged too: lower the tolerance for a float64 operator.
    """
    delta = tolerance * np.abs(pairs.values).max(initial=0.0)
    weights = pairs.weights.copy()
    kept: list[int] = []
    converged: list[int] = []
    for i in np.argsort(pairs.residuals, kind="stable"):
        distance = np.abs(pairs.values[converged] - pairs.values[i])
        if pairs.residuals[i] <= delta and distance.min(initial=np.inf) <= delta:
            weights[converged[distance.argmin()]] += pairs.weights[i]
            continue
        kept.append(i)
        if pairs.residuals[i] <= delta:
            converged.append(i)
    kept.sort()
    return Ritz(pairs.values[kept], weights[kept], pairs.residuals[kept])
