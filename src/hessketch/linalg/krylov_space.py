"""What m Lanczos steps know of an operator: T and C of `krylov`, the Ritz pairs with their bounds, and copies."""

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from hessketch.linalg.arrays import Flags, Floats, Indices
from hessketch.linalg.basis import Basis
from hessketch.linalg.lanczos import GHOST_TOLERANCE, Ritz, eigenpairs_of_tridiagonal

# Rounding of a product, of its norm, that a bound allows for beside what was measured.
PRODUCT_ROUNDINGS = 4
# Without a basis, a copy on its way has p times its weight below this (1e-14 to 1e-7 seen), a simple eigenvalue, for
# which it is a squared normal number, once in 1,200.
_GHOST_WEIGHT = 1e-6
_EIGENSOLVER_ROUNDING = float(np.finfo(np.float64).eps)  # of T's eigenvalues, of its norm, a step


@dataclass
class KrylovRun:
    """A Lanczos run of m steps, float64."""

    alphas: list[float] = field(default_factory=list)  # diagonal of T
    betas: list[float] = field(default_factory=list)  # off-diagonal; the last is the norm of the next vector
    columns: list[Floats] = field(default_factory=list)  # of C, each as long as the basis then was
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

    def add_column(self, column: Floats) -> None:
        """Appends one of C."""
        self.columns.append(column)
        self.largest_column = max(self.largest_column, float(np.linalg.norm(column)))

    @property
    def rounding(self) -> float:
        """What rounding may add to a bound: that of the products, as far as it is not measured, and that of T's values.

        Without a basis nothing of it is measured; it then grows as the square root of the steps.
        """
        products: float = PRODUCT_ROUNDINGS * self.eps
        products += self.eps * self.steps**0.5 if self.basis is None else self.asymmetry
        return (products + self.steps * _EIGENSOLVER_ROUNDING) * self.scale + self.dropped

    def eigenpairs(self) -> tuple[Ritz, Floats]:
        """Ritz values with weights and residual bounds, and the eigenvectors of T as columns (m, m)."""
        values, y = eigenpairs_of_tridiagonal(np.array(self.alphas), np.array(self.betas[:-1]))
        squares: Floats = (self.betas[-1] * y[-1]) ** 2
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


def same_eigenvalue(pairs: Ritz, values: Floats, residuals: Floats) -> Flags:
    """Which Ritz values (m,) found without a basis are copies of which eigenvalues (k,): (m, k).

    Those that are near and that the bounds do not tell apart.
    """
    distance = np.abs(pairs.values[:, None] - values)
    return distance <= np.minimum(_near(pairs), pairs.residuals[:, None] + residuals)


def leading(pairs: Ritz, count: int, tolerance: float, rounding: float) -> Indices:
    """Indices of the `count` Ritz values of largest magnitude, descending, up to the first that has not converged."""
    return converged(pairs, np.argsort(-np.abs(pairs.values), kind="stable")[:count], tolerance, rounding)


def converged(pairs: Ritz, order: Indices, tolerance: float, rounding: float) -> Indices:
    """These indices of Ritz values up to the first that has not converged.

    Converged: the residual is at most tolerance * |value|, or as small as the products' rounding lets it become.
    """
    good = pairs.residuals[order] <= np.maximum(tolerance * np.abs(pairs.values[order]), 2 * rounding)
    return order[: len(order) if good.all() else int(np.argmin(good))]
