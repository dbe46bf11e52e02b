r"""Distances between subspaces from their principal angles, and similarities that compare subspaces of any size.

With principal angles t (k,) between two k-spaces (Edelman, Arias and Smith 1998, section 4.3; as Fernandez, Schneider,
Mahsereci and Hennig 2025, arXiv 2504.14701, compare them), each with the largest value that it can take:

    geodesic        |t|_2                    pi sqrt(k) / 2
    chordal_max     max 2 sin(t / 2)         sqrt(2)
    chordal         |2 sin(t / 2)|_2         sqrt(2 k)
    projection_max  max sin t                1
    projection      |sin t|_2                sqrt(k)       (|P - Q|_F / sqrt(2) of the projections P and Q)
    fubini_study    arccos of prod cos t     pi / 2

A similarity is 1 - distance / largest; the overlap, mean cos^2 t = 1 - projection^2 / k, is one by itself.
"""

import math

import torch
from torch import Tensor

from hessketch.errors import InputError

DISTANCES = ("geodesic", "chordal_max", "chordal", "projection_max", "projection", "fubini_study")
METRICS = (*DISTANCES, "overlap")

_RIGHT = math.pi / 2
# Angles may leave [0, pi / 2] by rounding.
_ROUNDING = 1e-12


def distances(angles: Tensor) -> dict[str, float]:
    """The DISTANCES of two subspaces with these principal angles (k,), in radians, in any order.

    Accurate for angles near 0 and near pi / 2 alike. Raises InputError for anything but real numbers (k,), k >= 1, in
    [0, pi / 2].
    """
    t = _angles(angles)
    sines, halves = t.sin(), 2 * (t / 2).sin()
    return {
        "geodesic": float(t.norm()),
        "chordal_max": float(halves.max()),
        "chordal": float(halves.norm()),
        "projection_max": float(sines.max()),
        "projection": float(sines.norm()),
        "fubini_study": _fubini_study(t),
    }


def largest_distances(k: int) -> dict[str, float]:
    """The DISTANCES of two k-spaces that are orthogonal to each other: none is larger."""
    return {
        "geodesic": _RIGHT * math.sqrt(k),
        "chordal_max": math.sqrt(2),
        "chordal": math.sqrt(2 * k),
        "projection_max": 1.0,
        "projection": math.sqrt(k),
        "fubini_study": _RIGHT,
    }


def similarities(angles: Tensor) -> dict[str, float]:
    """The METRICS as similarities in [0, 1], 1 for equal and 0 for orthogonal spaces; raises as `distances`."""
    largest = largest_distances(len(_angles(angles)))
    # Orthogonal spaces may come out a rounding beyond the largest distance.
    found = {name: max(0.0, 1 - value / largest[name]) for name, value in distances(angles).items()}
    return {**found, "overlap": float(_angles(angles).cos().square().mean())}


def _fubini_study(t: Tensor) -> float:
    """arccos of prod cos t by its logarithm: the product of cosines near 1 has lost the angle."""
    squares = t.sin().square()
    logarithm = float(torch.where(squares < 0.5, torch.log1p(-squares.clamp(max=0.5)) / 2, t.cos().log()).sum())
    return math.atan2(math.sqrt(-math.expm1(2 * logarithm)), math.exp(logarithm))


def _angles(angles: Tensor) -> Tensor:
    if angles.ndim != 1 or not len(angles) or not angles.is_floating_point():
        raise InputError(f"angles are {tuple(angles.shape)} of {angles.dtype}; allowed: real numbers (k,), k >= 1")
    t = angles.double()
    if not bool(((t >= -_ROUNDING) & (t <= _RIGHT + _ROUNDING)).all()):
        low, high = float(t.min()), float(t.max())
        raise InputError(
            f"angles lie between {low:.4g} and {high:.4g}; allowed: radians in [0, pi / 2], as of principal_angles"
        )
    return t.clamp(0, _RIGHT)
