r"""Sums over a whole spectrum, from spectral measures of random vectors and eigenvalues that are known.

For a unit vector v drawn uniformly in d dimensions, v^T f(A) v has the mean of f over the spectrum as its expectation
and the variance 2 / (d + 2) (mean f^2 - (mean f)^2). Gauss quadrature gives both means, so that a standard error is
known from a single vector. Eigenvalues that are known are summed exactly: with the outliers taken out, what is left
varies little.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from hessketch.linalg.arrays import Floats
from hessketch.linalg.lanczos import Ritz


@dataclass(frozen=True)
class Sum:
    """An estimate with its standard error (of the random start vectors alone; 0 when everything is known)."""

    value: float
    standard_error: float


@dataclass(frozen=True)
class SpectralSums:
    """Sums over all p eigenvalues, in the operator's units (squared for the second)."""

    trace: Sum
    frobenius_squared: Sum  # sum of squares
    absolute: Sum  # sum of magnitudes: Lanczos resolves it to its own steps near zero, where |x| has its corner


def spectral_sum(function: Callable[[Floats], Floats], measures: Sequence[Ritz], dimension: int, known: Floats) -> Sum:
    """Sum of a function over `known` eigenvalues (k,) and the d = dimension - k others.

    `measures` are spectral measures (weights of sum 1) of independent random unit vectors in the space of the others.
    """
    rest = dimension - len(known)
    exact = float(function(np.asarray(known, float)).sum())
    if rest == 0 or not measures:
        return Sum(exact, 0.0)
    first = np.mean([m.weights @ function(m.values) for m in measures])
    second = np.mean([m.weights @ function(m.values) ** 2 for m in measures])
    variance = 2 / (rest + 2) * max(float(second - first**2), 0.0) / len(measures)
    return Sum(exact + rest * float(first), rest * float(np.sqrt(variance)))


def spectral_sums(
    measures: Sequence[Ritz], dimension: int, known: Sequence[float] | Floats = (), exact: bool = False
) -> SpectralSums:
    """Trace, squared Frobenius norm and sum of |eigenvalues|; `exact` when the measures hold every eigenvalue alike."""
    sums = [spectral_sum(f, measures, dimension, np.asarray(known, float)) for f in (np.array, np.square, np.abs)]
    return SpectralSums(*(Sum(s.value, 0.0) if exact else s for s in sums))
