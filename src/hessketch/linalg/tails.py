"""Laws fitted to one tail of a spectral density: a power law, and Marchenko-Pastur to compare."""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import least_squares

from hessketch.errors import InputError
from hessketch.linalg.arrays import Floats

# Nearer to zero than so many broadenings, the density is the kernel of the spike at zero.
_BROADENINGS_FROM_ZERO = 6
# Farther out than so many eigenvalues from the end, the density is single eigenvalues, no continuum.
_EIGENVALUES_BEYOND = 10
# The range must span this factor and hold so many grid points, else no law can be told from another.
_LEAST_RATIO, _LEAST_POINTS = 2, 8
_RESAMPLED = 64


@dataclass(frozen=True)
class PowerLaw:
    """phi = coefficient |lambda|^-exponent; all NaN with a `reason` when there is nothing to fit."""

    coefficient: float
    exponent: float
    r_squared: float  # of log density
    lower: float  # range of |lambda| fitted, in the operator's units
    upper: float
    points: int  # log-spaced points used
    reason: str  # empty when fitted


@dataclass(frozen=True)
class MarchenkoPastur:
    """phi = mass sqrt((b - x)(x - a)) / (2 pi s x), s = ((sqrt b - sqrt a) / 2)^2, at x = |lambda|."""

    mass: float  # share of all eigenvalues under the law
    lower_edge: float  # a
    upper_edge: float  # b
    r_squared: float  # of log density, over the same points as the power law's
    lower: float
    upper: float
    points: int
    reason: str


@dataclass(frozen=True)
class _Range:
    lower: float
    upper: float
    x: Floats  # log-spaced |lambda|
    log_density: Floats
    reason: str


def _one_side(eigenvalues: Floats, density: Floats, sign: int) -> tuple[Floats, Floats]:
    """|lambda| ascending and the density there, strictly on one side of zero."""
    if sign not in (1, -1):
        raise InputError(f"sign is {sign!r}; allowed: 1 for positive eigenvalues, -1 for negative ones")
    x, phi = np.asarray(eigenvalues, float), np.asarray(density, float)
    if x.shape != phi.shape or x.ndim != 1 or len(x) < 2 or not np.all(np.diff(x) > 0):
        raise InputError("eigenvalues must be an ascending grid with one density value for each point")
    if not np.isfinite(phi).all():
        raise InputError("the density holds NaN or infinity; fit finite densities only")
    x, phi = (x, phi) if sign == 1 else (-x[::-1], phi[::-1])
    return x[x > 0], phi[x > 0]


def _fit_range(eigenvalues: Floats, density: Floats, broadening: float, dimension: int, sign: int) -> _Range:
    """The stated rule of `fit_power_law`, and the density resampled in it."""
    x, phi = _one_side(eigenvalues, density, sign)
    lower = _BROADENINGS_FROM_ZERO * float(broadening)
    areas = np.diff(x) * (phi[1:] + phi[:-1]) / 2
    beyond = dimension * np.append(np.cumsum(areas[::-1])[::-1], 0.0)  # eigenvalues farther out than each x
    if len(x) < 2 or beyond[0] < _EIGENVALUES_BEYOND:
        return _nothing(lower, np.nan, f"fewer than {_EIGENVALUES_BEYOND} eigenvalues on this side of zero")
    upper = float(np.interp(-_EIGENVALUES_BEYOND, -beyond, x))
    if upper < _LEAST_RATIO * lower:
        return _nothing(
            lower, upper, f"the range {lower:.3g} to {upper:.3g} spans less than a factor of {_LEAST_RATIO}"
        )
    inside = (x >= lower) & (x <= upper)
    if inside.sum() < _LEAST_POINTS:
        return _nothing(lower, upper, f"only {inside.sum()} grid points in the range, {_LEAST_POINTS} are needed")
    points = np.geomspace(lower, upper, _RESAMPLED)
    values = np.interp(points, x, phi)
    points, values = points[values > 0], values[values > 0]
    if len(points) < _LEAST_POINTS:
        return _nothing(lower, upper, "the density is zero in nearly all of the range")
    return _Range(lower, upper, points, np.log(values), "")


def _nothing(lower: float, upper: float, reason: str) -> _Range:
    return _Range(lower, upper, np.empty(0), np.empty(0), reason)


def _r_squared(observed: Floats, fitted: Floats) -> float:
    spread = ((observed - observed.mean()) ** 2).sum()
    return float(1 - ((observed - fitted) ** 2).sum() / spread) if spread > 0 else float("nan")


def fit_power_law(eigenvalues: Floats, density: Floats, broadening: float, dimension: int, sign: int) -> PowerLaw:
    """Least squares of log phi on log |lambda| on one side of zero (Papyan 2018, Figure 4(d)).

    `eigenvalues` (K,) ascending and `density` (K,) are a density that integrates to 1, `broadening` its kernel's
    standard deviation, `dimension` the number p of eigenvalues, `sign` 1 or -1 the side. The paper fits "part of
    the spectrum" without saying which; the rule here is fixed beforehand:

    - from 6 broadenings (nearer, the density is the kernel of the spike at zero)
    - to where the expected number of eigenvalues farther out, p times the integral of phi, falls to 10 (farther,
      there are single eigenvalues and no continuum), never beyond the grid.

    In it phi is read off at 64 log-spaced points (linearly between grid points; an even grid would let the far
    end outvote the rest); points where phi is zero or negative are left out. Fewer than 10 eigenvalues, a range
    of less than a factor of 2 or fewer than 8 points give NaN and the `reason`. R^2 is that of log phi: it
    describes the smoothed curve, whose neighbouring points are not independent, so it is no test of significance.

    Raises InputError for a bad grid, density or sign.
    """
    found = _fit_range(eigenvalues, density, broadening, dimension, sign)
    if found.reason:
        nan = float("nan")
        return PowerLaw(nan, nan, nan, found.lower, found.upper, 0, found.reason)
    slope, intercept = np.polyfit(np.log(found.x), found.log_density, 1)
    fitted = slope * np.log(found.x) + intercept
    r_squared = _r_squared(found.log_density, fitted)
    return PowerLaw(float(np.exp(intercept)), float(-slope), r_squared, found.lower, found.upper, len(found.x), "")


def _log_marchenko_pastur(x: Floats, a: float, b: float) -> Floats:
    """Log density of the law with edges a < b and mass 1."""
    s = ((np.sqrt(b) - np.sqrt(a)) / 2) ** 2
    logarithm: Floats = (np.log(b - x) + np.log(x - a)) / 2 - np.log(2 * np.pi * s * x)
    return logarithm


def fit_marchenko_pastur(
    eigenvalues: Floats, density: Floats, broadening: float, dimension: int, sign: int
) -> MarchenkoPastur:
    """The Marchenko-Pastur law with free mass and edges on the range and points of `fit_power_law`.

    phi = mass sqrt((b - x)(x - a)) / (2 pi s x) with s = ((sqrt b - sqrt a) / 2)^2, so that `mass` is its
    integral; 0 <= a < lower and b > upper, so that the law covers the range. Least squares of log phi over a and
    b from nine starts, the log mass being the mean difference. One parameter more than the power law: an R^2 no
    better than the power law's speaks against Marchenko-Pastur.
    """
    found = _fit_range(eigenvalues, density, broadening, dimension, sign)
    if found.reason:
        nan = float("nan")
        return MarchenkoPastur(nan, nan, nan, nan, found.lower, found.upper, 0, found.reason)
    low, high = found.x[0], found.x[-1]

    def edges(position: Floats) -> tuple[float, float]:
        """a as a share of the range's start; b by the logarithm of its relative distance from the range's end."""
        return low * position[0], high * (1 + np.exp(position[1]))

    def misfit(position: Floats) -> Floats:
        difference = found.log_density - _log_marchenko_pastur(found.x, *edges(position))
        centred: Floats = difference - difference.mean()
        return centred

    limits = ([0.0, -12.0], [1 - 1e-6, 12.0])
    starts = [(share, distance) for share in (0.01, 0.5, 0.99) for distance in (-4.0, 0.0, 4.0)]
    best = min((least_squares(misfit, start, bounds=limits) for start in starts), key=lambda fit: fit.cost)
    a, b = edges(best.x)
    log_mass = (found.log_density - _log_marchenko_pastur(found.x, a, b)).mean()
    r_squared = _r_squared(found.log_density, found.log_density - best.fun)
    return MarchenkoPastur(
        float(np.exp(log_mass)), float(a), float(b), r_squared, found.lower, found.upper, len(found.x), ""
    )
