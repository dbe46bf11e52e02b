r"""Eigenpairs of largest magnitude by block Lanczos: many columns in one product, multiple eigenvalues found.

With every block orthogonal to all before it (Golub and Van Loan, Matrix Computations, section 10.3.6),

    A V = V H + Q R E^T

where H (m, m) holds all that the orthogonalisation removed, R what is left of the last block's products and Q the next
block. H is symmetric but for rounding; with the eigenpairs (theta, y) of its symmetric part S the residuals follow
without a further product,

    || A V y - theta V y ||^2 = || (H - S) y ||^2 + || R E^T y ||^2.

A start block of b vectors sees b directions of each eigenspace, so that an eigenvalue is found up to b times. Single
vectors take fewer products to the same accuracy (`krylov`); blocks pay where a product with many columns costs less
than as many products, and where the orthogonalisation, a product of matrices here, costs more than the operator.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.linalg
import torch
from torch import Tensor

from hessketch.errors import InputError, NotFiniteError
from hessketch.linalg.arrays import Floats
from hessketch.linalg.basis import Basis
from hessketch.linalg.krylov import RunStore
from hessketch.linalg.krylov_space import PRODUCT_ROUNDINGS
from hessketch.linalg.lanczos import BREAKDOWN_ROUNDINGS, Ritz
from hessketch.linalg.vectors import Operator, ProgressCallback, dimension, no_progress, random_vectors

# A direction of which more lay in the basis, when a first pass had taken that out, was made of rounding.
_LEAST_OUTSIDE = 0.5


@dataclass
class BlockRun:
    """A run of m products."""

    basis: Basis  # its m rows: V
    h: Floats  # (m + r, m) float64: H, and below it R
    next: Tensor  # (r, p) orthonormal rows: Q
    dropped: float = 0.0  # largest remainder that was taken for rounding
    width: int = 0  # of the last block

    @property
    def products(self) -> int:
        return int(self.h.shape[1])

    @property
    def eps(self) -> float:
        """The rounding unit: the operator's, or the basis's if that is coarser."""
        return max(torch.finfo(dtype).eps for dtype in (self.basis.dtype, self.next.dtype))

    @property
    def scale(self) -> float:
        """The largest norm of a product of a unit vector so far."""
        return float(np.linalg.norm(self.h, axis=0).max(initial=0.0))

    @property
    def rounding(self) -> float:
        """What rounding may add to a bound, beside the part of it that H shows."""
        eigensolver: float = self.products**0.5 * float(np.finfo(np.float64).eps)
        return (PRODUCT_ROUNDINGS * self.eps + eigensolver) * self.scale + self.dropped

    def eigenpairs(self) -> tuple[Ritz, Floats]:
        """Ritz values with residual bounds (weights are not known: NaN), and eigenvectors of S as columns (m, m)."""
        m = self.products
        square, below = self.h[:m], self.h[m:]
        values, y = scipy.linalg.eigh((square + square.T) / 2, driver="evd", check_finite=False)
        squares = (((square - square.T) / 2 @ y) ** 2).sum(axis=0) + ((below @ y) ** 2).sum(axis=0)
        return Ritz(values, np.full(m, np.nan), np.sqrt(squares) + self.rounding), y

    def state(self, generator: torch.Generator) -> dict[str, Tensor]:
        return {
            "h": torch.from_numpy(self.h),
            "next": self.next,
            "dropped": torch.tensor([self.dropped], dtype=torch.float64),
            "width": torch.tensor([self.width]),
            "generator": generator.get_state(),
        }

    def restore(self, vectors: list[Tensor], state: dict[str, Tensor], generator: torch.Generator) -> None:
        for rows in vectors:
            for row in rows:
                self.basis.append(row)
        self.h = state["h"].numpy().copy()
        self.dropped, self.width = float(state["dropped"]), int(state["width"])
        # A copy: what a store gives may be aligned otherwise, and sums then round otherwise.
        self.next = state["next"].to(self.next, copy=True)
        generator.set_state(state["generator"].clone())


def block_run(
    operator: Operator,
    block: int,
    max_products: int,
    *,
    stop: Callable[[BlockRun], bool],
    generator: torch.Generator,
    basis: Basis,
    store: RunStore | None = None,
    progress: ProgressCallback | None = None,
) -> BlockRun:
    """Block Lanczos from `block` random vectors until `stop` of the run so far, or no block fits `max_products`.

    Directions of a product that are rounding are dropped, so that blocks get narrower where the space is nearly
    exhausted; where it is, the run goes on from fresh random directions. Ends at the latest with the whole space.
    Raises NotFiniteError naming the product, InputError for an operator that is not symmetric.
    """
    progress, p = progress or no_progress, dimension(operator)
    run = BlockRun(basis, np.empty((0, 0)), _fresh(operator, basis, min(block, max_products), generator))
    if store is not None and (saved := store.load()):
        run.restore(*saved, generator)
    kept, last = len(basis), min(max_products, p)
    while len(run.next) and run.products + len(run.next) <= last and not (run.products and stop(run)):
        _multiply(operator, run)
        if not len(run.next) and run.products < last:
            run.next = _fresh(operator, basis, min(block, last - run.products), generator)
            run.h = np.vstack([run.h, np.zeros((len(run.next), run.products))])
        progress(run.products, last)
        if store is not None and store.due():
            store.save(list(basis.rows(kept)), run.state(generator))
            kept = len(basis)
    return run


def _multiply(operator: Operator, run: BlockRun) -> None:
    """One product with the next block; H and the block after it."""
    rows, basis = run.next, run.basis
    products = (operator @ rows.T).T.to(basis.place, basis.dtype, copy=True).contiguous()
    if not torch.isfinite(torch.linalg.vector_norm(products)):
        first = run.products
        raise NotFiniteError(
            f"block Krylov, products {first + 1} to {first + len(rows)}: the operator's products hold NaN, infinity or "
            "numbers too large to square"
        )
    for row in rows:
        basis.append(row)
    removed = _project_out(products, basis)
    least = BREAKDOWN_ROUNDINGS * run.eps * max(run.scale, float(np.linalg.norm(removed, axis=0).max()))
    left, mixing, dropped = _row_space(products, least)
    # Once more, as one pass in rounded arithmetic leaves components of the size of what it removed times the rounding.
    again = _project_out(left, basis)
    following, outside, inside = _row_space(left, _LEAST_OUTSIDE)
    run.dropped = max(run.dropped, *(float(np.linalg.norm(lost)) for lost in (dropped, inside @ mixing)))
    m, r = len(basis), len(following)
    h = np.zeros((m + r, m))
    h[: len(run.h), : run.products] = run.h
    h[:m, run.products :] = removed + again @ mixing
    h[m:, run.products :] = outside @ mixing
    run.h, run.next, run.width = h, following.to(rows), len(rows)
    _require_symmetric(run)


def _project_out(rows: Tensor, basis: Basis) -> Floats:
    """Takes the components in the basis off rows (b, p), in place, and gives them: (m, b) float64."""
    removed = []
    for part in basis.rows():
        components = part @ rows.T
        rows.addmm_(components.T, part, alpha=-1)
        removed.append(components.double().cpu().numpy())
    return np.concatenate(removed)


def _row_space(rows: Tensor, least: float) -> tuple[Tensor, Floats, Floats]:
    """Orthonormal rows Q (r, p) of the directions with singular values above `least`, those of b rows (b, p).

    Also the coefficients (r, b) of rows^T = Q^T coefficients + rest, and the coefficients (b - r, b) of that rest.
    """
    if not len(rows):
        return rows, np.empty((0, 0)), np.empty((0, 0))
    q, triangle = torch.linalg.qr(rows.T)
    u, s, vh = np.linalg.svd(triangle.double().cpu().numpy(), full_matrices=False)
    keep = s > least
    chosen = q @ torch.from_numpy(np.ascontiguousarray(u[:, keep])).to(q)
    coefficients = s[:, None] * vh
    return chosen.T.contiguous(), coefficients[keep], coefficients[~keep]


def _fresh(operator: Operator, basis: Basis, count: int, generator: torch.Generator) -> Tensor:
    """At most `count` random orthonormal rows (r, p) outside the basis, as many as there is room for."""
    rows = random_vectors(operator, min(count, basis.size - len(basis)), generator).T
    rows = rows.to(basis.place, basis.dtype, copy=True)
    for _ in range(2):
        if len(basis):
            _project_out(rows, basis)
        rows, _, _ = _row_space(rows, 0.0)
    return rows.to(device=operator.device, dtype=operator.dtype)


def _require_symmetric(run: BlockRun) -> None:
    square = run.h[: run.products]
    asymmetry, allowed = float(np.linalg.norm(square - square.T)) / 2, 10 * run.eps**0.5 * float(np.linalg.norm(square))
    if asymmetry > allowed:
        raise InputError(
            f"the operator is not symmetric, or gives another product each time: after {run.products} products "
            f"|H - H^T| / 2 is {asymmetry:.1e} (allowed: {allowed:.1e}); give a symmetric operator on fixed data"
        )
