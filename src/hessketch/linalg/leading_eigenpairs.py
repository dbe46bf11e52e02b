"""Eigenpairs of largest magnitude by Lanczos, as many as asked for, each with its bound."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hessketch.linalg.arrays import Floats, Indices
from hessketch.linalg.basis import Basis
from hessketch.linalg.deflation import Eigenpairs
from hessketch.linalg.krylov import RunStore, krylov_run
from hessketch.linalg.krylov_space import KrylovRun, leading
from hessketch.linalg.memory import free_memory
from hessketch.linalg.vectors import (
    Operator,
    ProgressCallback,
    Sized,
    dimension,
    random_unit_vector,
    require_at_least,
    require_share,
)

# Of the memory that is free, so much may hold the basis.
BASIS_SHARE = 0.5
PLACES = ("auto", "device", "host")


def require_tolerance(tolerance: float) -> None:
    """Raises InputError for a relative residual that no pair could meet, or every one."""
    require_share(0.001, tolerance=tolerance)


@dataclass(frozen=True)
class Wanted:
    """When a run may stop."""

    count: int  # leading pairs that must converge
    tolerance: float  # of their residuals, relative to the eigenvalue
    least_steps: int
    max_steps: int

    @property
    def expected_steps(self) -> int:
        """Steps that such a run has taken on trained networks, generously."""
        return max(self.least_steps, 6 * self.count + 20)


@dataclass(frozen=True)
class LeadingEigenpairs:
    """Eigenpairs of largest magnitude, descending."""

    values: Floats  # (k,) float64, with their sign
    residuals: Floats  # (k,) bounds: an eigenvalue lies within each of its value
    vectors: Tensor | None  # (p, k) orthonormal columns; None when no basis was kept
    converged: bool  # whether as many as were asked for have converged; else k is less
    products: int
    reorthogonalization: str


class Room:
    """Where Lanczos vectors are kept: on the operator's device, on the host, or nowhere."""

    def __init__(
        self,
        operator: Sized,
        wanted: Wanted,
        memory: int | None,
        precision: torch.dtype | None = None,
        place: str = "auto",
    ):
        self.dtype = precision or operator.dtype
        self.size = dimension(operator)
        each = self.size * self.dtype.itemsize
        self.place, self.capacity = None, 0
        device, host = torch.device(operator.device), torch.device("cpu")
        for candidate in {"auto": dict.fromkeys([device, host]), "device": [device], "host": [host]}[place]:
            limit = free_memory(candidate) * BASIS_SHARE if memory is None else memory
            if limit >= min(wanted.expected_steps, self.size) * each:
                self.place, self.capacity = candidate, int(limit // each)
                break

    def basis(self) -> Basis | None:
        return None if self.place is None else Basis(self.size, self.dtype, self.place, self.capacity)

    def steps(self, wanted: Wanted) -> int:
        """Steps that a run may take."""
        return wanted.max_steps if self.place is None else min(wanted.max_steps, self.capacity)

    def describe(self) -> str:
        if self.place is None:
            return "none, for want of memory: copies of converged eigenvalues were merged"
        return f"full, {str(self.dtype).removeprefix('torch.')} basis on {self.place.type}"


def leading_eigenpairs(
    operator: Operator,
    count: int,
    generator: torch.Generator,
    *,
    tolerance: float = 1e-3,
    max_steps: int = 1000,
    memory: int | None = None,
    store: RunStore | None = None,
    progress: ProgressCallback | None = None,
) -> LeadingEigenpairs:
    """The `count` eigenpairs of largest magnitude by Lanczos, until each residual is within tolerance * |value|.

    Takes as many products as steps; keeps a basis of steps vectors within `memory` bytes (default half of what is
    free), without room for one only values, copies merged. `count` beyond p is clipped to p. A multiple eigenvalue is
    found once: a single start vector has one direction of its eigenspace only (`fast_spectrum` with several start
    vectors finds the others). Raises as `krylov_run`.
    """
    require_at_least(1, count=count, max_steps=max_steps)
    require_tolerance(tolerance)
    start, wanted = random_unit_vector(operator, generator), Wanted(count, tolerance, 1, max_steps)
    room = Room(operator, wanted, memory)
    run, found = leading_run(operator, wanted, room, start, generator, store, progress)
    pairs = ritz_pairs(run, found)
    vectors = None if pairs.vectors is None else pairs.vectors.to(dtype=operator.dtype, device=operator.device)
    done = len(found) == min(count, dimension(operator))
    return LeadingEigenpairs(pairs.values, pairs.residuals, vectors, done, run.steps, room.describe())


def leading_run(
    operator: Operator,
    wanted: Wanted,
    room: Room,
    start: Tensor,
    generator: torch.Generator,
    store: RunStore | None,
    progress: ProgressCallback | None,
) -> tuple[KrylovRun, Indices]:
    """A run until the wanted pairs have converged, and the indices of those that did."""
    count = min(wanted.count, dimension(operator))

    def found(run: KrylovRun) -> Indices:
        return leading(run.ritz(), count, wanted.tolerance, run.rounding)

    run = krylov_run(
        operator,
        start,
        room.steps(wanted),
        stop=lambda run: run.steps >= wanted.least_steps and len(found(run)) == count,
        generator=generator,
        basis=room.basis(),
        store=store,
        progress=progress,
    )
    return run, found(run)


def ritz_pairs(run: KrylovRun, found: Indices) -> Eigenpairs:
    """The eigenpairs at these indices of the run's Ritz values; vectors only where a basis was kept."""
    if run.basis is None:
        pairs, vectors = run.ritz(), None
    else:
        pairs, y = run.eigenpairs()
        vectors = run.basis.combine(y[:, found])
    values, residuals = pairs.values[found], pairs.residuals[found]
    return Eigenpairs(values, vectors, residuals, np.hypot(values, residuals))
