"""Leading eigenpairs of the Hessian at one point of a training, by three methods, and how good they are."""

import math
import time
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from hessketch.curvature.dense import dense_hessian, require_memory
from hessketch.curvature.losses import Loss
from hessketch.curvature.operators import select_parameters
from hessketch.data.examples import Examples
from hessketch.eigenspaces.settings import EigenspaceSettings
from hessketch.linalg.a_posteriori import ErrorEstimate
from hessketch.linalg.dense_eigenpairs import dense_eigenpairs, rounding_of
from hessketch.linalg.many_eigenpairs import many_eigenpairs
from hessketch.linalg.measurement_store import MeasurementStore
from hessketch.linalg.sketched_eigh import SketchSettings, sketched_eigh
from hessketch.linalg.subspaces import overlap
from hessketch.linalg.vectors import Operator, ProgressCallback

# Matrices of p x p numbers that a whole decomposition holds at once: the Hessian, its eigenvectors and twice as much
# workspace.
_MATRICES = 4
# Residuals by which `krylov_eigenspace` tells a pair that has converged, relative to its eigenvalue.
TOLERANCE = 1e-3


@dataclass(frozen=True, eq=False)
class Eigenspace:
    """The k eigenpairs of largest magnitude of a (p, p) Hessian as one method found them; NaN is what it cannot say."""

    method: str  # one of METHODS, or of those of `many_eigenpairs`
    values: np.ndarray  # (k,) float64, descending by magnitude, with their sign
    vectors: Tensor  # (p, k), orthonormal columns
    residuals: np.ndarray  # (k,) float64, |H u - lambda u| or a bound of it
    products: int  # Hessian products; rows of the matrix where it was formed
    seconds: float
    negative_share: float = math.nan  # of all p eigenvalues, those below zero by more than rounding
    frobenius_squared: float = math.nan  # |H|_F^2
    residual_squared: float = math.nan  # |H - U diag(values) U^T|_F^2
    residual_lower: float = math.nan  # probability bounds where residual_squared is an estimate
    residual_upper: float = math.nan


def exact_memory(parameters: int) -> int:
    """Bytes that forming and decomposing a Hessian takes."""
    return _MATRICES * 8 * parameters**2


def exact_eigenspace(
    model: nn.Module,
    loss: str | Loss,
    examples: Examples,
    pairs: int,
    *,
    batch_size: int = 500,
    memory: int | None = None,
    progress: ProgressCallback | None = None,
) -> Eigenspace:
    """By the matrix in float64, whatever the model's precision, and all of its eigenvalues; see `dense_eigenpairs`.

    An eigenvalue counts as negative below -p eps |H|: zeros of parameters without curvature are rounded to either sign.
    Raises as `dense_hessian`, and InputError where the decomposition exceeds `memory` bytes (None: what is free).
    """
    started, own = time.perf_counter(), next(iter(select_parameters(model).values()))
    p = sum(parameter.numel() for parameter in select_parameters(model).values())
    require_memory(exact_memory(p), own.device, f"decomposing the Hessian of {p} parameters", memory)
    hessian = dense_hessian(model, loss, examples.batches(batch_size), memory=memory, progress=progress)
    everything, values, vectors = dense_eigenpairs(hessian, pairs)
    rounding = rounding_of(everything)
    squares = everything.square().sort().values  # smallest first: the rest is summed by itself, without cancellation
    return Eigenspace(
        method="exact",
        values=values.cpu().numpy(),
        vectors=vectors,
        residuals=torch.linalg.vector_norm(hessian @ vectors - vectors * values, dim=0).cpu().numpy(),
        products=p,
        seconds=time.perf_counter() - started,
        negative_share=float((everything < -rounding).double().mean()),
        frobenius_squared=float(squares.sum()),
        residual_squared=float(squares[: p - pairs].sum()),
    )


def krylov_eigenspace(
    operator: Operator,
    pairs: int,
    seed: int,
    *,
    method: str = "lanczos",
    memory: int | None = None,
    progress: ProgressCallback | None = None,
) -> Eigenspace:
    """By `many_eigenpairs`, one of whose methods is `method`: the leading pairs with relative residuals up to 1e-3.

    As many as have converged: fewer than `pairs`, or none, where memory holds too few vectors, or where a sketch, which
    `auto` takes then, is not that accurate. Raises as `many_eigenpairs`.
    """
    started = time.perf_counter()
    found = many_eigenpairs(
        operator, pairs, seed, method=method, tolerance=TOLERANCE, residuals=True, memory=memory, progress=progress
    )
    within = np.cumprod(found.residuals <= TOLERANCE * np.abs(found.values), dtype=int)
    k = max(found.converged, int(within.sum()))
    seconds = time.perf_counter() - started
    return Eigenspace(
        found.method, found.values[:k], found.vectors[:, :k], found.residuals[:k], found.products, seconds
    )


def sketch_settings(settings: EigenspaceSettings, pairs: int) -> SketchSettings:
    """The sketch of a study's settings for so many pairs."""
    return SketchSettings(
        pairs=pairs,
        measurements=settings.measurements_of(pairs),
        method=settings.sketch_method,
        kind=settings.kind,
        passes=settings.passes,
        probes=settings.probes,
    )


def sketched_eigenspace(
    operator: Operator,
    settings: SketchSettings,
    seed: int,
    *,
    store: MeasurementStore | None = None,
    memory: int | None = None,
    progress: ProgressCallback | None = None,
) -> Eigenspace:
    """By `sketched_eigh`, whose a-posteriori estimate says what the rest of the Hessian weighs; raises as it does."""
    started = time.perf_counter()
    found = sketched_eigh(operator, settings, seed, store=store, memory=memory, progress=progress)
    estimates = {} if found.errors is None else _estimates(found.errors)
    unknown = np.full(len(found.values), math.nan)
    seconds = time.perf_counter() - started
    return Eigenspace("sketched", found.values, found.vectors, unknown, found.products, seconds, **estimates)


def quality(found: Eigenspace, exact: Eigenspace | None) -> dict[str, float]:
    """The row of a table: cost and errors of what was found, and how far it is from the exact eigenpairs, if given.

    eigenvalue_error: the largest error, relative to the eigenvalue, over the half of the pairs that is leading; the
    j-th of those above zero is held against the j-th found above zero, and likewise below, so that a sign that is
    wrong counts and two magnitudes in another order do not. subspace_overlap and subspace_overlap_half: of the spaces
    of all pairs and of that half; NaN where fewer were found.
    """
    row = {
        "pairs": len(found.values),
        **{name: getattr(found, name) for name in ("products", "seconds", "negative_share", "frobenius_squared")},
        **{name: getattr(found, name) for name in ("residual_squared", "residual_lower", "residual_upper")},
        **dict.fromkeys(("eigenvalue_error", "subspace_overlap_half", "subspace_overlap"), math.nan),
    }
    if exact is None:
        return row
    k = len(exact.values)
    half = max(1, k // 2)
    row["eigenvalue_error"] = _eigenvalue_error(found.values, exact.values[:half])
    for name, size in (("subspace_overlap_half", half), ("subspace_overlap", k)):
        if size <= len(found.values):
            row[name] = overlap(exact.vectors[:, :size], found.vectors[:, :size].to(exact.vectors.device))
    return row


def _eigenvalue_error(found: np.ndarray, exact: np.ndarray) -> float:
    errors = [0.0]
    for sign in (1, -1):
        wanted = sign * exact[sign * exact > 0]
        there = np.zeros(len(wanted))
        of_sign = (sign * found[sign * found > 0])[: len(wanted)]
        there[: len(of_sign)] = of_sign
        errors += list(np.abs(there - wanted) / wanted)
    return float(max(errors))


def _estimates(errors: ErrorEstimate) -> dict[str, float]:
    lower, upper = errors.residual_bounds()
    return {
        "frobenius_squared": errors.frobenius_squared,
        "residual_squared": errors.residual_squared,
        "residual_lower": lower,
        "residual_upper": upper,
    }
