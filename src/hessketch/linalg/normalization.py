"""An interval that contains the spectrum, and the map that takes it to [-1, 1]."""

from dataclasses import dataclass

import numpy as np
import torch

from hessketch.errors import InputError
from hessketch.linalg.arrays import Floats
from hessketch.linalg.lanczos import Ritz, fast_lanczos, ritz
from hessketch.linalg.vectors import Operator, ProgressCallback

# Half width of the interval around a spectrum of one point, relative to that point (absolute around zero).
_POINT_HALF_WIDTH = 1e-6


@dataclass(frozen=True)
class Bounds:
    """An interval around the spectrum, in the operator's units."""

    lower: float
    upper: float

    @property
    def center(self) -> float:
        return (self.lower + self.upper) / 2

    @property
    def half_width(self) -> float:
        return (self.upper - self.lower) / 2

    def to_unit(self, values: Floats) -> Floats:
        """Maps the interval to [-1, 1]: t = (x - center) / half_width."""
        return (values - self.center) / self.half_width

    def from_unit(self, values: Floats) -> Floats:
        """Maps [-1, 1] to the interval: x = half_width * t + center."""
        return self.half_width * values + self.center


def bounds_of_ritz(pairs: Ritz, margin: float = 0.05) -> Bounds:
    """The last lines of NORMALIZATION: outer Ritz values moved out by their residuals, then by the margin.

    When all this is narrower than 1e-6 of the largest end's magnitude (a multiple of the identity), the half
    width becomes 1e-6 of it, or 1e-6 for the zero operator, so that the map to [-1, 1] exists.
    """
    if not 0 <= margin < float("inf"):
        raise InputError(f"margin is {margin!r}; allowed: numbers from 0 (0.05 is the paper's)")
    lower = float(pairs.values[0] - pairs.residuals[0])
    upper = float(pairs.values[-1] + pairs.residuals[-1])
    widening = margin * (upper - lower)
    bounds = Bounds(lower - widening, upper + widening)
    least = _POINT_HALF_WIDTH * float(np.abs([lower, upper]).max() or 1.0)
    if bounds.half_width < least:
        return Bounds(bounds.center - least, bounds.center + least)
    return bounds


def spectral_bounds(
    operator: Operator,
    generator: torch.Generator,
    steps: int = 64,
    margin: float = 0.05,
    progress: ProgressCallback | None = None,
) -> Bounds:
    """NORMALIZATION (Papyan 2018, Algorithm 4): where the spectrum lies, from `steps` products.

    lower = theta_1 - ||(T - theta_1) y_1|| and upper likewise, each widened by margin * (upper - lower). The
    residual norms are |beta_M y[M]|. The paper then rescales the operator; here the interval is returned and
    Ritz values are mapped instead, as in its released code. The interval holds the spectrum when the extreme
    Ritz values belong to the extreme eigenvalues: after few steps this is likely, not proven.

    Raises InputError for bad arguments, NotFiniteError when the operator gives NaN or infinity.
    """
    return bounds_of_ritz(ritz(fast_lanczos(operator, steps, generator, progress=progress)), margin)
