"""Spectral density by the Kernel Polynomial Method: damped Chebyshev moments."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.polynomial import chebyshev
from torch import Tensor

from hessketch.errors import InputError, NotFiniteError
from hessketch.linalg.arrays import Floats
from hessketch.linalg.density import Density, average_curves
from hessketch.linalg.lanczos import Ritz
from hessketch.linalg.normalization import Bounds
from hessketch.linalg.vectors import (
    Operator,
    ProgressCallback,
    dot,
    no_progress,
    random_unit_vector,
    require_at_least,
)


def _jackson(moments: int) -> Floats:
    """Weisse et al. 2006, equation 71: the kernel is nonnegative, its width about pi / moments."""
    k, n = np.arange(moments), moments + 1
    factors: Floats = ((n - k) * np.cos(np.pi * k / n) + np.sin(np.pi * k / n) / np.tan(np.pi / n)) / n
    return factors


def _lanczos_sigma(moments: int) -> Floats:
    """Lanczos's sigma factors: sharper than Jackson's, small negative ripples stay."""
    return np.sinc(np.arange(moments) / (moments + 1))


DAMPINGS: dict[str, Callable[[int], Floats]] = {"jackson": _jackson, "lanczos_sigma": _lanczos_sigma, "none": np.ones}


def kpm_products(moments: int) -> int:
    """Operator products for so many Chebyshev moments of one vector."""
    return moments // 2


def chebyshev_moments(
    operator: Operator,
    bounds: Bounds,
    moments: int,
    start: Tensor,
    progress: Callable[[int], None] | None = None,
) -> Floats:
    """mu_k = v^T T_k(A) v for k = 0 ... moments - 1, float64, with A the operator mapped to [-1, 1] by `bounds`.

    `start` is the unit vector v (p,). With t_k = T_k(A) v, half the products suffice by the product identities
    mu_2k = 2 t_k.t_k - mu_0 and mu_2k+1 = 2 t_k+1.t_k - mu_1. `progress` is told the number of products done.
    NotFiniteError names the moment; an eigenvalue outside the bounds makes the t_k grow until it is raised.
    """
    center, half_width = bounds.center, bounds.half_width
    t_before: Tensor | None = None
    t = start
    found = [dot(t, t)]
    for k in range(1, kpm_products(moments) + 1):
        mapped = torch.sub(operator @ t, t, alpha=center) / half_width
        t_next = mapped if t_before is None else mapped.mul_(2).sub_(t_before)
        odd = dot(t_next, t) if k == 1 else 2 * dot(t_next, t) - found[1]
        found += [odd, 2 * dot(t_next, t_next) - found[0]]
        if not torch.isfinite(found[-1]):
            raise NotFiniteError(
                f"Kernel Polynomial Method, moment {2 * k} of {moments}: NaN or infinity; either the operator "
                "gave it or eigenvalues lie outside the bounds (take more normalization steps)"
            )
        if progress is not None:
            progress(k)
        t_before, t = t, t_next
    return torch.stack(found[:moments]).cpu().numpy()


def _curve(moments: Floats, points: int) -> Floats:
    """The density on [-1, 1]; its weight 1 / sqrt(1 - t^2) is taken half a spacing inside at both ends."""
    t = np.linspace(-1, 1, points)
    inside = np.clip(t, -1 + 1 / (points - 1), 1 - 1 / (points - 1))
    coefficients = np.concatenate([moments[:1], 2 * moments[1:]])
    curve: Floats = chebyshev.chebval(inside, coefficients) / (np.pi * np.sqrt(1 - inside**2))
    return curve


def kpm_density_of_ritz(
    ritz_list: Sequence[Ritz], bounds: Bounds, moments: int = 256, points: int = 1024, damping: str = "jackson"
) -> Density:
    """`kpm_density` from Lanczos runs instead of products of its own.

    A run of m steps gives the first 2m moments exactly, as sums over its Ritz values (Gauss quadrature); as many as
    asked for are used, at most so many. All Ritz values must lie inside the bounds.
    """
    moments = min([moments, *(2 * len(pairs.values) for pairs in ritz_list)])
    curves = []
    for pairs in ritz_list:
        found = chebyshev.chebvander(bounds.to_unit(pairs.values), moments - 1).T @ pairs.weights
        curves.append(_curve(found * DAMPINGS[damping](moments), points))
    return average_curves(curves, bounds, np.pi / moments)


def kpm_density(
    operator: Operator,
    bounds: Bounds,
    generator: torch.Generator,
    moments: int = 256,
    vectors: int = 1,
    points: int = 1024,
    damping: str = "jackson",
    progress: ProgressCallback | None = None,
) -> Density:
    """Kernel Polynomial Method (Lin, Saad and Yang 2016, section 3.2; Weisse et al. 2006).

    phi(t) = (g_0 mu_0 + 2 sum_k g_k mu_k T_k(t)) / (pi sqrt(1 - t^2)), with moments mu_k averaged over random
    unit vectors and damping factors g_k: 'jackson' (nonnegative), 'lanczos_sigma' (sharper, ripples) or 'none'
    (Gibbs oscillations, negative values). Takes vectors * (moments // 2) products. On the original axis it
    integrates to 1; `broadening` is pi d / moments, the width of Jackson's kernel in the middle of the bounds
    (d their half width), and of the same order for the others. The spectrum must lie inside the bounds.

    Raises InputError for bad arguments, NotFiniteError naming the moment.
    """
    require_at_least(2, moments=moments, points=points)
    require_at_least(1, vectors=vectors)
    if damping not in DAMPINGS:
        raise InputError(f"damping {damping!r} is unknown; allowed: {', '.join(DAMPINGS)}")
    progress = progress or no_progress
    each = kpm_products(moments)
    curves = []
    for i in range(vectors):
        start = random_unit_vector(operator, generator)

        def report(done: int, before: int = i * each) -> None:
            progress(before + done, vectors * each)

        found = chebyshev_moments(operator, bounds, moments, start, report)
        curves.append(_curve(found * DAMPINGS[damping](moments), points))
    return average_curves(curves, bounds, np.pi / moments)
