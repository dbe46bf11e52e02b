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
from itertools import chain
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from hessketch.errors import InputError, NotFiniteError
from hessketch.linalg.basis import Basis
from hessketch.linalg.krylov_space import KrylovRun
from hessketch.linalg.lanczos import BREAKDOWN_ROUNDINGS
from hessketch.linalg.vectors import Operator, ProgressCallback, dot, no_progress, norm, random_unit_vector


class RunStore(Protocol):
    """Where a long run leaves its state from time to time; see `curvature.resume`."""

    def load(self) -> tuple[list[Tensor], dict[str, Tensor]] | None:
        """Blocks of basis vectors and the state that were saved last, or None."""

    def due(self) -> bool:
        """Whether it is time to save."""

    def save(self, vectors: list[Tensor], state: dict[str, Tensor]) -> None:
        """Adds blocks of basis vectors to those saved before and replaces the state."""


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
        if basis is not None:
            for row in chain.from_iterable(vectors):
                basis.append(row)
        # Copies: what a store gives may be aligned otherwise, and sums then round otherwise.
        v, previous = (state[name].to(start, copy=True) for name in ("vector0", "vector1"))
        generator.set_state(state["generator"].clone())
    saved_rows = len(basis) if basis is not None else 0
    while run.steps < max_steps and not (run.steps and _may_stop(run, stop)):
        following = _step(operator, run, v, previous, locked, generator)
        progress(run.steps, max_steps)
        if following is None:
            run.exhausted = True
            break
        previous, v = v, following
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
    if numbers[1] > BREAKDOWN_ROUNDINGS * run.eps * run.scale:
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
