r"""Quadratic forms of Gaussian vectors: their moments, and bounds on their deviations from one number each way.

For z standard normal, S symmetric with eigenvalues a_i and b a vector, the form T = constant + z^T S z + b^T z has

    E T = constant + sum a_i,    var T = 2 sum a_i^2 + |b|^2,

and, log E exp(t (T - E T)) being at most t^2 (var T / 2) / (1 - 2 t max(a_i, 0)) for positive t,

    P(T - E T >= sqrt(2 x var T) + 2 x max(a_i, 0)) <= exp(-x)

(Laurent and Massart 2000, Lemma 1, where b = 0 and every a_i >= 0; Bechar 2009 in general); -T gives the other side.
So the trace, the sum of squares and the two ends of S's spectrum are all that is needed of S.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from hessketch.errors import NotFiniteError
from hessketch.linalg.fast_spectrum import FastSettings, fast_spectrum
from hessketch.linalg.vectors import Operator, ProgressCallback, dimension, require_at_least, require_share

# Pairs that leave the estimate as soon as they have converged: what is left of the spectrum then varies little.
_LEADING = 10
_LEADING_TOLERANCE = 1e-2
_START_VECTORS = 2


@dataclass(frozen=True)
class FormSpectrum:
    """What the moments and bounds of a form need of its symmetric matrix S."""

    trace: float  # sum a_i
    squares: float  # sum a_i^2
    largest: float  # max a_i, at least 0
    smallest: float  # min a_i, at most 0

    def scaled(self, factor: float) -> "FormSpectrum":
        """Of factor * S, for a factor >= 0."""
        return FormSpectrum(
            factor * self.trace, factor**2 * self.squares, factor * self.largest, factor * self.smallest
        )


NO_FORM = FormSpectrum(0.0, 0.0, 0.0, 0.0)  # of S = 0


@dataclass(frozen=True)
class GaussianForm:
    """A quadratic form T of a standard normal vector."""

    mean: float
    variance: float
    largest: float  # max(a_i, 0)
    smallest: float  # min(a_i, 0)

    @property
    def standard_deviation(self) -> float:
        return math.sqrt(self.variance)

    def bounds(self, probability: float) -> tuple[float, float]:
        """(lower, upper): T lies below the first, and above the second, with at most this probability each.

        Raises InputError for a probability outside (0, 1).
        """
        require_share(0.05, probability=probability)
        x = -math.log(probability)
        spread = math.sqrt(2 * x * self.variance)
        return self.mean - spread + 2 * x * self.smallest, self.mean + spread + 2 * x * self.largest


def gaussian_form(constant: float, spectrum: FormSpectrum, linear_square: float) -> GaussianForm:
    """constant + z^T S z + b^T z, from the spectrum of S and |b|^2."""
    return GaussianForm(
        constant + spectrum.trace, 2 * spectrum.squares + linear_square, spectrum.largest, spectrum.smallest
    )


def exact_form_spectrum(matrix: Tensor) -> FormSpectrum:
    """Of a dense symmetric S (r, r), by all its eigenvalues. Raises NotFiniteError where it holds NaN or infinity."""
    if not torch.isfinite(matrix).all():
        raise NotFiniteError("the matrix of a quadratic form holds NaN or infinity")
    values = torch.linalg.eigvalsh(matrix.double())
    ends = [values.new_zeros(1), values]
    numbers = torch.stack([values.sum(), values.square().sum(), torch.cat(ends).max(), torch.cat(ends).min()])
    return FormSpectrum(*numbers.tolist())


def estimated_form_spectrum(
    operator: Operator, steps: int, generator: torch.Generator, progress: ProgressCallback | None = None
) -> FormSpectrum:
    """Of S (r, r) known by its products, from two Lanczos runs of `steps` products each (`fast_spectrum`).

    Converged leading eigenvalues enter trace and squares exactly, the rest by its spectral measure: exact for r up to
    `steps`. The ends are the outermost Ritz values moved outwards by their residuals, which hold the ends themselves
    once the outermost values have converged; before that they may lie inside. At least 2 steps. Raises as
    `fast_spectrum`.
    """
    require_at_least(2, steps=steps)
    settings = FastSettings(
        top=min(_LEADING, dimension(operator)),
        tolerance=_LEADING_TOLERANCE,
        lanczos_steps=steps,
        max_steps=steps,
        start_vectors=_START_VECTORS,
        grid_points=max(16, steps),
    )
    spectrum = fast_spectrum(operator, settings, generator, progress)
    measures = spectrum.parts[0].ritz
    largest = max(float((m.values + m.residuals).max()) for m in measures)
    smallest = min(float((m.values - m.residuals).min()) for m in measures)
    sums = spectrum.sums
    return FormSpectrum(sums.trace.value, sums.frobenius_squared.value, max(largest, 0.0), min(smallest, 0.0))
