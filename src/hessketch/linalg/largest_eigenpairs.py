"""Eigenpairs of largest value (not magnitude) by Lanczos, with the smallest eigenvalue and the trace it shows."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hessketch.errors import InputError
from hessketch.linalg.arrays import Flags, Floats, Indices
from hessketch.linalg.basis import Basis
from hessketch.linalg.complement import without
from hessketch.linalg.krylov import krylov_run
from hessketch.linalg.krylov_space import KrylovRun, converged
from hessketch.linalg.lanczos import Ritz
from hessketch.linalg.leading_eigenpairs import Room, Wanted, require_tolerance
from hessketch.linalg.sums import Sum, spectral_sums
from hessketch.linalg.vectors import (
    Operator,
    ProgressCallback,
    dimension,
    no_progress,
    random_unit_vector,
    require_at_least,
)

# Eigenvalues at the lower end are known where their residuals are so small, relative to them.
_SMALLEST_TOLERANCE = 1e-3


@dataclass(frozen=True)
class LargestEigenpairs:
    """Eigenpairs of largest value, descending, up to the first that has not converged."""

    values: Floats  # (k,) float64
    residuals: Floats  # (k,) bounds: an eigenvalue lies within each of its value
    vectors: Tensor  # (p, k) orthonormal columns
    rounding: float  # below this a value is not told from zero
    smallest: float  # the smallest eigenvalue by value; NaN where it has not converged to a residual of 0.1%
    trace: Sum
    converged: bool  # whether as many as were asked for have
    products: int


def largest_eigenpairs(
    operator: Operator,
    count: int,
    generator: torch.Generator,
    *,
    tolerance: float = 1e-5,
    max_steps: int = 2000,
    memory: int | None = None,
    progress: ProgressCallback | None = None,
) -> LargestEigenpairs:
    """The `count` eigenpairs of largest value by Lanczos, until each residual is within tolerance * |value|.

    An eigenvector's error is about its residual over the gap to the next eigenvalue, an eigenvalue's the residual's
    square over the gap. Lanczos finds both ends of a spectrum alike, so that large negative eigenvalues cost some
    steps, but hide nothing. A multiple eigenvalue is found once, or, where a run has exhausted its space and goes on,
    more often: what is returned after a zero may belong after further zeros. `memory` bounds the kept basis in bytes
    (default half of what is free). Raises InputError for a count beyond p or too little memory, else as `krylov_run`.
    """
    require_at_least(1, count=count, max_steps=max_steps)
    require_tolerance(tolerance)
    p = dimension(operator)
    if count > p:
        raise InputError(f"{count} eigenpairs asked of an operator of dimension {p}; allowed: 1 to {p}")
    wanted, report = Wanted(count, tolerance, 1, max_steps), progress or no_progress
    room = Room(operator, wanted, memory)
    basis = room.basis()
    if basis is None:
        raise InputError(
            f"eigenvectors of {p} parameters need a basis of some {min(wanted.expected_steps, p)} vectors, which does "
            "not fit into memory; ask for fewer, or give more memory"
        )
    run = krylov_run(
        operator,
        random_unit_vector(operator, generator),
        room.steps(wanted),
        stop=lambda run: len(_largest(run, wanted)) == count,
        generator=generator,
        basis=basis,
        progress=lambda done, _: report(done, max(done, min(wanted.expected_steps, p))),
    )
    return _result(run, basis, _largest(run, wanted), count)


def _largest(run: KrylovRun, wanted: Wanted) -> Indices:
    """Indices of the wanted Ritz values of largest value, descending, up to the first that has not converged."""
    pairs = run.ritz()
    return converged(pairs, np.argsort(-pairs.values, kind="stable")[: wanted.count], wanted.tolerance, run.rounding)


def _result(run: KrylovRun, basis: Basis, found: Indices, count: int) -> LargestEigenpairs:
    ritz, y = run.eigenpairs()
    values, residuals, vectors = ritz.values[found], ritz.residuals[found], basis.combine(y[:, found]).to(run.dtype)
    good = ritz.residuals <= np.maximum(_SMALLEST_TOLERANCE * np.abs(ritz.values), 2 * run.rounding)
    smallest = float(ritz.values[0]) if good[0] else math.nan
    trace, done = _trace(run, ritz, found, good), len(found) == count
    return LargestEigenpairs(values, residuals, vectors, run.rounding, smallest, trace, done, run.steps)


def _trace(run: KrylovRun, ritz: Ritz, found: Indices, good: Flags) -> Sum:
    """The eigenvalues at both ends that are known, and the rest by the measure of the start vector."""
    if run.steps == run.size:
        return Sum(float(ritz.values.sum()), 0.0)
    known = np.cumprod(good).astype(bool)
    known[found] = True
    known &= np.abs(ritz.values) > run.rounding  # a zero may have many copies, and its weight is theirs
    rest = without(ritz, known)
    return spectral_sums([] if rest is None else [rest], run.size, ritz.values[known]).trace
