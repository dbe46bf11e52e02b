"""Spectral density on a grid from the Ritz values of one or more start vectors."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hessketch.errors import InputError
from hessketch.linalg.arrays import Floats
from hessketch.linalg.lanczos import Ritz
from hessketch.linalg.normalization import Bounds
from hessketch.linalg.vectors import require_at_least

# Grid beyond the outermost Ritz values, in standard deviations of a Gaussian kernel, whose mass beyond is below 1e-9.
KERNEL_REACH = 6.2
# Kernel values below this fraction of the peak are left out, as in the paper's released code.
_NEGLIGIBLE = 1e-8


@dataclass(frozen=True)
class Density:
    """Density of eigenvalues on a grid, float64; it integrates to 1 over the operator's own axis."""

    eigenvalues: Floats  # (K,) evenly spaced over the bounds, in the operator's units
    density: Floats  # (K,) per unit of eigenvalue
    standard_error: Floats  # (K,) of the mean over start vectors; NaN with a single one
    broadening: float  # standard deviation of the smoothing kernel, in the operator's units


def kernel_width(steps: int) -> float:
    """Standard deviation of the Gaussian on [-1, 1]: 2 / ((M - 1) sqrt(8 ln 1.25)), with M Lanczos steps."""
    require_at_least(2, steps=steps)
    return float(2 / ((steps - 1) * np.sqrt(8 * np.log(1.25))))


def average_curves(curves: Sequence[Floats], bounds: Bounds, broadening: float) -> Density:
    """Mean and standard error of densities on [-1, 1], one a start vector, moved to the bounds' axis."""
    stack = np.stack(curves) / bounds.half_width
    count, points = stack.shape
    error = stack.std(axis=0, ddof=1) / np.sqrt(count) if count > 1 else np.full(points, np.nan)
    grid = bounds.from_unit(np.linspace(-1, 1, points))
    return Density(grid, stack.mean(axis=0), error, float(broadening * bounds.half_width))


def smoothed(pairs: Ritz, bounds: Bounds, points: int, sigma: float) -> Floats:
    """Gaussians of standard deviation sigma, with the pairs' weights, on `points` even points of [-1, 1]."""
    distance = (np.linspace(-1, 1, points)[:, None] - bounds.to_unit(pairs.values)) / sigma
    kernel: Floats = np.exp(-(distance**2) / 2) / (sigma * np.sqrt(2 * np.pi))
    kernel[np.abs(distance) > np.sqrt(-2 * np.log(_NEGLIGIBLE))] = 0
    curve: Floats = kernel @ pairs.weights
    return curve


def lanczos_density(ritz_list: Sequence[Ritz], bounds: Bounds, points: int = 1024, steps: int = 256) -> Density:
    """LANCZOSAPPROXSPEC (Papyan 2018, Algorithm 3): weighted Gaussians at the Ritz values.

    phi(t) = mean over start vectors of sum_m weight_m g_sigma(t - theta_m) on `points` even points t of [-1, 1],
    with theta mapped there by `bounds`; returned on the original axis as x = d t + c with phi / d. `steps` sets
    sigma (`kernel_width`) and is the number of steps asked for, also when Lanczos stopped early. The Gaussian is
    cut where it falls below 1e-8 of its peak. Weight within some sigma of an end of the bounds, or outside, is
    lost from the grid. Accurate for points >= steps (the grid then resolves sigma); fewer raise InputError.
    """
    require_at_least(2, points=points)
    if not ritz_list:
        raise InputError("no Ritz values given; run Lanczos from at least one start vector")
    if points < steps:
        raise InputError(f"{points} grid points do not resolve {steps} Lanczos steps; give at least {steps} points")
    sigma = kernel_width(steps)
    return average_curves([smoothed(pairs, bounds, points, sigma) for pairs in ritz_list], bounds, sigma)
