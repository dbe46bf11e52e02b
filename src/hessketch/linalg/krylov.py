r"""Lanczos with a kept basis: leading eigenpairs with bounds, and the spectral measure of the start vector, in one run.

After m steps A V = V (T + C) + beta v e_m^T: T tridiagonal; C holds what the products' rounding (or a lack of symmetry)
left outside T, measured while each new vector is made orthogonal to all before it. For a Ritz pair T y = theta y the
residual is therefore known without a further product,

    || A V y - theta V y ||^2 = (beta y_m)^2 + || C y ||^2,

and an eigenvalue of A lies within it of theta. Blocks of vectors are not used: for the ten leading eigenvalues of a
small trained network single vectors took 20 to 23 products, blocks of four 32 and of ten 50, more than a graph rebuilt
once a block saves.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from scipy.linalg import eigh_tridiagonal
from torch import Tensor

from hessketch.errors import InputError, NotFiniteError
from hessketch.linalg.basis import Basis
from hessketch.linalg.lanczos import GHOST_TOLERANCE, Ritz
from hessketch.linalg.vectors import Operator, ProgressCallback, dot, no_progress, norm, random_unit_vector

# A residual below so many roundings of the tridiagonal's norm is rounding: the Krylov space is exhausted.
_BREAKDOWN_ROUNDINGS = 10
# Without a basis, a copy on its way has p times its weight below this (1e-14 to 1e-7 seen), a simple eigenvalue, for
# which it is a squared normal number, once in 1,200.
_GHOST_WEIGHT = 1e-6
# Rounding of a product, of its norm, that a bound allows for beside what was measured.
_PRODUCT_ROUNDINGS = 4
_EIGENSOLVER_ROUNDING = float(np.finfo(np.float64).eps)  # of T's eigenvalues, of its norm, a step


class RunStore(Protocol):
    """Where a long run leaves its state from time to time; see `curvature.resume`."""

    def load(self) -> tuple[list[Tensor], dict[str, Tensor]] | None:
        """Blocks of basis vectors and the state that were saved last, or None."""

    def due(self) -> bool:
        """Whether it is time to save."""

    def save(self, vectors: list[Tensor], state: dict[str, Tensor]) -> None:
        """Adds blocks of basis vectors to those saved before and replaces the state."""


@dataclass
class KrylovRun:
    """A Lanczos run of m steps, float64."""

    alphas: list[float] = field(default_factory=list)  # diagonal of T
    betas: list[float] = field(default_factory=list)  # off-diagonal; the last is the norm of the next vector
    columns: list[np.ndarray] = field(default_factory=list)  # of C, each as long as the basis then was
    largest_column: float = 0.0  # norm; kept, since adding all of them up at each step takes a third of a long run
    leaks: list[float] = field(default_factory=list)  # norm of each product's part in the space projected out
    dtype: torch.dtype = torch.float32
    size: int = 0  # p, the operator's dimension
    basis: Basis | None = None
    dropped: float = 0.0  # largest remainder of a product that was taken for rounding
    norm: float = 0.0  # of the operator, where it is known to be larger than this run may see
    exhausted: bool = False  # no direction is left: the Ritz values are all eigenvalues

    @property
    def steps(self) -> int:
        return len(self.alphas)

    @property
    def eps(self) -> float:
        """The rounding unit: the operator's, or the basis's if that is coarser."""
        dtypes = [self.dtype] if self.basis is None else [self.dtype, self.basis.dtype]
        return max(torch.finfo(dtype).eps for dtype in dtypes)

    @property
    def scale(self) -> float:
        """A bound on the norm of T, or the operator's norm if that is larger."""
        b = np.abs([0.0, *self.betas])
        return float((np.abs(self.alphas) + b[:-1] + b[1:]).max(initial=self.norm))

    @property
    def asymmetry(self) -> float:
        """Largest part of a product that a symmetric operator without rounding would not have, relative to the norm."""
        return self.largest_column / self.scale if self.scale else 0.0

    def add_column(self, column: np.ndarray) -> None:
        """Appends one of C."""
        self.columns.append(column)
        self.largest_column = max(self.largest_column, float(np.linalg.norm(column)))

    @property
    def rounding(self) -> float:
        """What rounding may add to a bound: that of the products, as far as it is not measured, and that of T's values.

        Without a basis nothing of it is measured; it then grows as the square root of the steps.
        """
        products = _PRODUCT_ROUNDINGS * self.eps
        products += self.eps * self.steps**0.5 if self.basis is None else self.asymmetry
        return (products + self.steps * _EIGENSOLVER_ROUNDING) * self.scale + self.dropped

    def eigenpairs(self) -> tuple[Ritz, np.ndarray]:
        """Ritz values with weights and residual bounds, and the eigenvectors of T as columns (m, m)."""
        off = np.array(self.betas[:-1])
        values, y = eigh_tridiagonal(np.array(self.alphas), off, lapack_driver="stev", check_finite=False)
        squares = (self.betas[-1] * y[-1]) ** 2
        if self.basis is not None:
            m = len(values)
            c = np.zeros((m, m))
            for j, column in enumerate(self.columns):
                c[: len(column), j] = column
            squares = squares + ((c @ y) ** 2).sum(axis=0) + (np.array(self.leaks) @ np.abs(y)) ** 2
        return Ritz(values, y[0] ** 2, np.sqrt(squares) + self.rounding), y

    def ritz(self) -> Ritz:
        """Ritz values; without a kept basis, copies of converged ones merged and copies on their way left out.

        A value is a copy of a converged one when it is near to it and its bound does not tell them apart.
        """
        pairs, _ = self.eigenpairs()
        if self.basis is not None:
            return pairs
        weights, near = pairs.weights.copy(), _near(pairs)
        same = same_eigenvalue(pairs, pairs.values, pairs.residuals)
        kept: list[int] = []
        converged: list[int] = []
        for i in np.argsort(pairs.residuals, kind="stable"):
            if (copies := same[i, converged]).any():
                weights[converged[copies.argmax()]] += pairs.weights[i]
            elif pairs.residuals[i] <= near:
                converged.append(i)
            elif self.size * pairs.weights[i] >= _GHOST_WEIGHT:
                kept.append(i)
        kept = sorted(kept + converged)
        return Ritz(pairs.values[kept], weights[kept], pairs.residuals[kept])

    def measure(self) -> Ritz:
        """The start vector's spectral measure: Ritz values, without a kept basis with all copies that weigh anything.

        Copies share the weight of one eigenvalue, so that sums and densities are right; only to count eigenvalues
        they must be merged.
        """
        pairs, _ = self.eigenpairs()
        if self.basis is not None:
            return pairs
        some = self.size * pairs.weights >= _GHOST_WEIGHT
        return Ritz(pairs.values[some], pairs.weights[some] / pairs.weights[some].sum(), pairs.residuals[some])

    def state(self, *vectors: Tensor) -> dict[str, Tensor]:
        lengths = np.array([len(c) for c in self.columns])
        return {
            "dropped": torch.tensor([self.dropped], dtype=torch.float64),
            "scalars": torch.from_numpy(np.array([self.alphas, self.betas, self.leaks])),
            "columns": torch.from_numpy(np.concatenate([*self.columns, np.empty(0)])),
            "lengths": torch.from_numpy(lengths.astype(np.int64)),
            **{f"vector{i}": v for i, v in enumerate(vectors)},
        }

    def restore(self, state: dict[str, Tensor]) -> None:
        self.alphas, self.betas, self.leaks = (row.tolist() for row in state["scalars"])
        self.dropped = state["dropped"].item()
        ends = np.cumsum(state["lengths"].numpy())
        for column in np.split(state["columns"].numpy(), ends)[: len(ends)]:
            self.add_column(column)


def _near(pairs: Ritz) -> float:
    """Ritz values found without a basis may be copies when they are so near."""
    return GHOST_TOLERANCE * float(np.abs(pairs.values).max(initial=0.0))


def same_eigenvalue(pairs: Ritz, values: np.ndarray, residuals: np.ndarray) -> np.ndarray:
    """Which Ritz values (m,) found without a basis are copies of which eigenvalues (k,): (m, k) bool.

    Those that are near and that the bounds do not tell apart.
    """
    distance = np.abs(pairs.values[:, None] - values)
    return distance <= np.minimum(_near(pairs), pairs.residuals[:, None] + residuals)


def _require_symmetric(run: KrylovRun) -> None:
    allowed = 10 * run.eps**0.5
    if run.asymmetry > allowed:
        raise InputError(
            f"the operator is not symmetric, or gives another product each time: step {run.steps} differs from a "
            f"symmetric operator's by {run.asymmetry:.1e} of the norm (allowed: {allowed:.1e}); give a symmetric "
            "operator on fixed data"
        )


def _check_every(steps: int) -> int:
    """Ritz pairs cost steps^3: looked at after each of the first steps, then ever more seldom."""
    return max(1, steps // 24)


def krylov_run(
    operator: Operator,
    start: Tensor,
    max_steps: int,
    *,
    stop: Callable[[KrylovRun], bool],
    generator: torch.Generator,
    basis: Basis | None,
    locked: Tensor | None = None,
    norm_known: float = 0.0,
    store: RunStore | None = None,
    progress: ProgressCallback | None = None,
) -> KrylovRun:
    """Lanczos from `start` (p,) until `stop` of the run so far, or `max_steps`, or the whole space.

    With a `basis` every vector is kept and orthogonal to all others. When the Krylov space is exhausted before, the
    run goes on from a fresh random direction (decoupled: T has a zero there), so that further eigenvalues are found.
    Without a basis the three-term recurrence runs alone and `ritz` merges copies. `locked` (p, k) are orthonormal
    vectors to be projected out (eigenvectors found before): the run sees the operator on their complement, and tells
    rounding by the norm that the operator is known to have, `norm_known`.

    `store` makes a run resumable: continued in another process it gives the same numbers, bit for bit where the
    operator does. Raises NotFiniteError naming the step, InputError for an operator that is not symmetric.
    """
    progress = progress or no_progress
    run = KrylovRun(dtype=operator.dtype, size=operator.shape[0], basis=basis, norm=norm_known)
    max_steps = min(max_steps, operator.shape[0] - (0 if locked is None else locked.shape[1]))
    v, previous = _orthonormal(start, locked, None), torch.zeros_like(start)
    if store is not None and (saved := store.load()):
        vectors, state = saved
        run.restore(state)
        for block in vectors if basis is not None else []:
            for row in block:
                basis.append(row)
        # Copies: what a store gives may be aligned otherwise, and sums then round otherwise.
        v, previous = (state[name].to(start, copy=True) for name in ("vector0", "vector1"))
        generator.set_state(state["generator"].clone())
    saved_rows = len(basis) if basis is not None else 0
    while run.steps < max_steps and not (run.steps and _may_stop(run, stop)):
        previous, v = v, _step(operator, run, v, previous, locked, generator)
        progress(run.steps, max_steps)
        if v is None:
            run.exhausted = True
            break
        if store is not None and store.due():
            rows = list(basis.rows(saved_rows)) if basis is not None else []
            store.save(rows, run.state(v, previous) | {"generator": generator.get_state()})
            saved_rows = len(basis) if basis is not None else 0
    return run


def _may_stop(run: KrylovRun, stop: Callable[[KrylovRun], bool]) -> bool:
    return run.steps % _check_every(run.steps) == 0 and stop(run)


def _step(
    operator: Operator,
    run: KrylovRun,
    v: Tensor,
    previous: Tensor,
    locked: Tensor | None,
    generator: torch.Generator,
) -> Tensor | None:
    """One product; the next unit vector, or None when no direction is left."""
    basis, beta = run.basis, run.betas[-1] if run.betas else 0.0
    if basis is not None:
        basis.append(v)
    w = torch.sub(operator @ v, previous, alpha=beta)  # a new tensor: the operator may return v itself
    alpha = dot(w, v)
    w -= alpha * v
    leak = 0.0
    if locked is not None:
        inside = locked.T @ w
        w, leak = w - locked @ inside, norm(inside).item()
        w = w - locked @ (locked.T @ w)  # twice, as in the basis
    if basis is not None and torch.isfinite(alpha):
        w, column = basis.project_out(w)
        run.add_column(column)
    length = norm(w)
    numbers = torch.stack([alpha, length]).tolist()
    if not np.isfinite(numbers).all():
        raise NotFiniteError(
            f"Lanczos, step {run.steps + 1}: the operator's product holds NaN, infinity or numbers too large to square"
        )
    run.alphas.append(numbers[0])
    run.betas.append(numbers[1])
    run.leaks.append(leak)
    _require_symmetric(run)
    if numbers[1] > _BREAKDOWN_ROUNDINGS * run.eps * run.scale:
        return w / length
    run.betas[-1] = 0.0
    run.dropped = max(run.dropped, numbers[1])
    return _fresh(operator, run, locked, generator)


def _fresh(operator: Operator, run: KrylovRun, locked: Tensor | None, generator: torch.Generator) -> Tensor | None:
    """A random direction outside the space found so far; None without a basis or when there is none."""
    found = run.steps + (0 if locked is None else locked.shape[1])
    if run.basis is None or found >= operator.shape[0]:
        return None
    return _orthonormal(random_unit_vector(operator, generator), locked, run.basis)


def _orthonormal(vector: Tensor, locked: Tensor | None, basis: Basis | None) -> Tensor:
    """The direction of what is left of a vector outside `locked` and `basis`."""
    for _ in range(2):
        if locked is not None:
            vector = vector - locked @ (locked.T @ vector)
        if basis is not None:
            vector, _ = basis.project_out(vector)
        vector = vector / norm(vector)
    return vector


def leading(pairs: Ritz, count: int, tolerance: float, rounding: float) -> np.ndarray:
    """Indices of the `count` Ritz values of largest magnitude, descending, up to the first that has not converged.

    Converged: the residual is at most tolerance * |value|, or as small as the products' rounding lets it become.
    """
    order = np.argsort(-np.abs(pairs.values), kind="stable")[:count]
    good = pairs.residuals[order] <= np.maximum(tolerance * np.abs(pairs.values[order]), 2 * rounding)
    return order[: len(order) if good.all() else int(np.argmin(good))]
