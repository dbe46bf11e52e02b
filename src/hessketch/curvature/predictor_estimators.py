"""The predictor Hessian of one example at one point, by two estimators.

`paper` is stochastic Lanczos quadrature with its smoothed sum, as in the code of Shrivastava et al. 2024; `fast` is
`linalg.fast_spectrum`.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hessketch.curvature.averages import require_frozen
from hessketch.curvature.batch import require_finite
from hessketch.curvature.dense import converted
from hessketch.curvature.losses import LOSSES, Loss, as_loss, cross_entropy
from hessketch.curvature.operators import CurvatureOperator, predictor, select_parameters
from hessketch.curvature.predictor_settings import PredictorSettings
from hessketch.errors import InputError
from hessketch.linalg.arrays import Floats
from hessketch.linalg.complement import without
from hessketch.linalg.deflation import Eigenpairs
from hessketch.linalg.density import Density
from hessketch.linalg.fast_spectrum import FastSettings, fast_spectrum
from hessketch.linalg.krylov import RunStore
from hessketch.linalg.lanczos import Ritz
from hessketch.linalg.quadrature import (
    absolute_sum,
    kernel_density,
    lower_absolute_sum,
    smoothed_absolute_sum,
    smoothing_floor,
    stochastic_lanczos_quadrature,
)
from hessketch.linalg.sums import Sum
from hessketch.linalg.vectors import ProgressCallback, no_progress
from hessketch.progress import Progress


@dataclass(frozen=True)
class PredictorSpectra:
    """What the estimators, by name, found of one example's predictor Hessian."""

    rows: Mapping[str, Mapping[str, Any]]  # numbers, as the columns of KAPPA in `predictor_spectra`
    densities: Mapping[str, Density]  # in units of H_i
    record: Mapping[str, Any]  # p, outputs, and how it was computed


def spectra_of_example(
    model: nn.Module,
    loss: str | Loss,
    inputs: Tensor,
    targets: Tensor,
    settings: PredictorSettings,
    seed: int,
    *,
    stores: Callable[[str], RunStore] | None = None,
    progress: Progress | None = None,
) -> PredictorSpectra:
    """Spectra of H = sum_k (dl/df_k) d2 f_k for inputs (1, ...) and targets (1,), in the network's precision.

    `loss` is a function or the name of one, `seed` fixes each estimator's start vectors; `stores` as of
    `fast_spectrum`; nothing is shown without `progress`. What the numbers mean is said at KAPPA in `predictor_spectra`.
    Raises NotFiniteError where outputs or products hold NaN; InputError for inputs and targets of another shape, a
    label that the outputs do not know, cross-entropy of a single output, and a network that is not in eval mode or
    mixes the examples of a batch.
    """
    require_frozen(model)
    function, own = as_loss(loss), next(iter(select_parameters(model).values()))
    inputs, targets = (converted(t.to(own.device), own.dtype) for t in (inputs, targets))
    example_loss, slope, outputs = _at(model, function, inputs, targets)
    operator = predictor(model, function, inputs, targets, tf32=settings.tf32)
    rows, densities, runs = {}, {}, {}
    for name in settings.estimators:
        generator = torch.Generator().manual_seed(seed)
        report = no_progress if progress is None else progress.stage(f"{name}: product")
        begin = time.perf_counter()
        if name == "paper":
            found = _by_quadrature(operator, settings, abs(slope), generator, report)
        else:
            found = _by_fast(operator, settings, generator, report, stores)
        seconds = time.perf_counter() - begin
        rows[name] = {"example_loss": example_loss, "slope": slope, **_numbers(found), "seconds": seconds}
        densities[name] = found.density
        runs[name] = {"products": found.products, "seconds": round(seconds, 3), **found.facts}
    record = {"p": operator.shape[0], "outputs": outputs, "estimators": runs, **operator.arithmetic}
    return PredictorSpectra(rows, densities, record)


@dataclass(frozen=True)
class _Estimate:
    """What one estimator found of a matrix."""

    measures: Sequence[Ritz]
    absolute: Sum
    density: Density
    smoothed: float
    floor: float
    lower: float
    products: int
    facts: Mapping[str, Any]


def _at(model: nn.Module, loss: Loss, x: Tensor, y: Tensor) -> tuple[float, float, int]:
    """The example's loss, its slope in a single output (NaN for several), and the number of outputs."""
    if x.ndim < 2 or len(x) != 1 or y.ndim < 1 or len(y) != 1:
        raise InputError(
            f"inputs have shape {tuple(x.shape)} and targets {tuple(y.shape)}; give one example with its batch axis, "
            "inputs[i : i + 1] of shape (1, ...) and targets[i : i + 1] of shape (1,)"
        )
    with torch.no_grad():
        outputs = require_finite(model(x))
    if outputs.ndim != 2 or len(outputs) != 1:
        raise InputError(
            f"the network gives outputs of shape {tuple(outputs.shape)} for inputs {tuple(x.shape)}; give inputs with "
            "a batch axis, inputs[i : i + 1], and a network with outputs (1, C)"
        )
    _require_label(loss, outputs.shape[1], y)
    outputs.requires_grad_()
    value = loss(outputs, y).sum()
    (slope,) = torch.autograd.grad(value, outputs)
    return value.item(), slope.item() if slope.numel() == 1 else math.nan, outputs.shape[1]


def _require_label(loss: Loss, outputs: int, y: Tensor) -> None:
    """What the named losses compute without a word, or with one from inside torch; others know their own targets."""
    if loss is cross_entropy and outputs == 1:
        raise InputError(
            "cross_entropy of a single output is 0 whatever it is; give a network with an output a class, or "
            "binary_cross_entropy"
        )
    classes = max(outputs, 2)
    if loss in LOSSES.values() and not y.is_floating_point() and not 0 <= int(y[0]) < classes:
        raise InputError(
            f"the label is {int(y[0])} and the network has {outputs} output{'s' * (outputs > 1)}; allowed: 0 to "
            f"{classes - 1}"
        )


def _by_quadrature(
    operator: CurvatureOperator,
    settings: PredictorSettings,
    slope: float,
    generator: torch.Generator,
    progress: ProgressCallback,
) -> _Estimate:
    """As the authors: their kernel knows d2 f, which is H over |l'| where there is one output and it has a slope."""
    p, unit = operator.shape[0], slope if slope > 0 else 1.0
    measures = stochastic_lanczos_quadrature(
        operator, settings.lanczos_steps, settings.start_vectors, generator, progress
    )
    theirs = [Ritz(m.values / unit, m.weights, m.residuals / unit) for m in measures]
    density = kernel_density(theirs, settings.grid_points)
    in_units = Density(
        density.eigenvalues * unit, density.density / unit, density.standard_error / unit, density.broadening * unit
    )
    return _Estimate(
        measures,
        absolute_sum(measures, p),
        in_units,
        smoothed_absolute_sum(theirs, p) * unit,
        smoothing_floor(theirs, p) * unit,
        lower_absolute_sum(measures, p),
        sum(len(m.values) for m in measures),
        {},
    )


def _by_fast(
    operator: CurvatureOperator,
    settings: PredictorSettings,
    generator: torch.Generator,
    progress: ProgressCallback,
    stores: Callable[[str], RunStore] | None,
) -> _Estimate:
    asked = FastSettings(
        top=settings.top,
        lanczos_steps=settings.fast_steps,
        max_steps=max(FastSettings.max_steps, settings.fast_steps),
        start_vectors=settings.fast_start_vectors,
        grid_points=settings.grid_points,
    )
    spectrum = fast_spectrum(operator, asked, generator, progress, stores=stores)
    raw = spectrum.parts[0]
    facts = {"reorthogonalization": spectrum.reorthogonalization, "unconverged": spectrum.unconverged}
    lower = lower_absolute_sum(*_apart(raw.ritz, spectrum.pairs, operator.shape[0]))
    return _Estimate(raw.ritz, spectrum.sums.absolute, raw.density, math.nan, math.nan, lower, spectrum.products, facts)


def _apart(measures: Sequence[Ritz], pairs: Eigenpairs | None, dimension: int) -> tuple[list[Ritz], int, Floats]:
    """Measures of the space without the leading eigenvalues that `fast_spectrum` put into them, and these."""
    taken = [
        np.isin(m.values, [] if pairs is None else pairs.values) & np.isclose(m.weights, 1 / dimension, rtol=1e-9)
        for m in measures
    ]
    rests = [rest for m, nodes in zip(measures, taken, strict=True) if (rest := without(m, nodes)) is not None]
    return rests, dimension, measures[0].values[taken[0]]


def _numbers(found: _Estimate) -> dict[str, Any]:
    largest = max(float(m.values.max()) for m in found.measures)
    smallest = min(float(m.values.min()) for m in found.measures)
    magnitude = max(abs(largest), abs(smallest))
    total, error = found.absolute.value, found.absolute.standard_error
    sums = {"": total, "_standard_error": error}
    sums |= {"_lower": found.lower, "_smoothed": found.smoothed, "_floor": found.floor}
    return {
        "largest_eigenvalue": largest,
        "smallest_eigenvalue": smallest,
        "largest_magnitude": magnitude,
        "absolute_sum": total,
        "absolute_sum_standard_error": error,
        **{f"kappa{end}": value / magnitude if magnitude > 0 else math.nan for end, value in sums.items()},
        "products": found.products,
    }
