r"""How far an approximation A_k of a symmetric operator A is from it, from products with a few Gaussian vectors.

For standard normal w, E |A w|^2 = |A|_F^2: the mean over q of them estimates squared Frobenius norms of the operator,
the approximation and their difference. q times such an estimate is a sum of eigenvalues^2 times chi-square variables,
whose tails are heaviest for a single eigenvalue; by Chernoff, for an estimate e of x and d > 0 (d < 1 on the left),

    P(e <= (1 - d) x) <= (exp(d) (1 - d))^{q/2},   P(e >= (1 + d) x) <= (exp(d) / (1 + d))^{-q/2}

(Tropp, Yurtsever, Udell and Cevher 2019, section 6; Gratton and Titley-Peloquin 2018). q = 30: d = 0.5 gives 0.055 and
0.242. The approximation must not depend on the probes.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import brentq
from torch import Tensor

from hessketch.linalg.arrays import Floats
from hessketch.linalg.vectors import column_dots, require_at_least, require_share


@dataclass(frozen=True)
class ErrorEstimate:
    """Estimated squared Frobenius norms from `probes` Gaussian vectors, in the operator's units squared."""

    probes: int
    frobenius_squared: float  # |A|_F^2
    approximation_squared: float  # |A_k|_F^2; known from its eigenvalues, estimated to check against them
    residual_squared: float  # |A - A_k|_F^2

    @property
    def residual_share(self) -> float:
        """|A - A_k|_F^2 / |A|_F^2; 0 for a zero operator."""
        return self.residual_squared / self.frobenius_squared if self.frobenius_squared else 0.0

    def residual_bounds(self, confidence: float = 0.95) -> tuple[float, float]:
        """An interval that holds |A - A_k|_F^2 with at least this probability."""
        low, high = interval_factors(self.probes, confidence)
        return low * self.residual_squared, high * self.residual_squared


def interval_factors(probes: int, confidence: float) -> tuple[float, float]:
    """(low, high) such that x lies in [low e, high e] with at least this probability, e its estimate from `probes`.

    Either side fails with at most half of 1 - confidence. Raises InputError for a confidence outside (0, 1).
    """
    require_at_least(1, probes=probes)
    require_share(0.95, confidence=confidence)
    exponent = 2 / probes * math.log((1 - confidence) / 2)
    # With s = -log(1 - d) below: d + log(1 - d) = 1 - exp(-s) - s, which falls from 0 without bound.
    below = brentq(lambda s: -math.expm1(-s) - s - exponent, 0, 2 - exponent)
    above = brentq(lambda s: s - math.expm1(s) - exponent, 0, 2 + math.sqrt(-2 * exponent))
    return math.exp(-above), math.exp(below)


def error_estimate(probes: Tensor, products: Tensor, values: Floats, vectors: Tensor) -> ErrorEstimate:
    """From Gaussian probes (p, q), their products (p, q) and the pairs (k,), (p, k); computed where the pairs are."""
    probes, products = probes.to(vectors), products.to(vectors)
    weights = torch.from_numpy(values).to(vectors)[:, None]
    approximate = vectors @ (weights * (vectors.T @ probes))
    means = [float(column_dots(b, b).mean()) for b in (products, approximate, products - approximate)]
    return ErrorEstimate(probes.shape[1], *means)


def joined(parts: list[ErrorEstimate]) -> ErrorEstimate:
    """One estimate from those of blocks of probes."""
    count = sum(part.probes for part in parts)
    names = ("frobenius_squared", "approximation_squared", "residual_squared")
    return ErrorEstimate(count, *(sum(part.probes * getattr(part, name) for part in parts) / count for name in names))


def scree_bounds(values: Floats, errors: ErrorEstimate) -> tuple[Floats, Floats]:
    """Lower and upper estimates (k + 1,) of the share of |A|_F^2 outside the best approximation of rank 0 ... k.

    Tropp et al. 2019, section 6.5: tail energies of the approximation's eigenvalues alone, and with the error's norm
    added by the triangle inequality, over the estimated norm of A. The lower one is a bound where approximate values
    are below the true ones (a projection of A; otherwise up to the error), and both as far as the estimates are right.
    """
    tails = np.concatenate([np.cumsum(np.square(values)[::-1])[::-1], [0.0]])
    if errors.frobenius_squared == 0:
        return np.zeros_like(tails), np.zeros_like(tails)
    upper = (np.sqrt(tails) + math.sqrt(errors.residual_squared)) ** 2
    return np.minimum(tails / errors.frobenius_squared, 1), np.minimum(upper / errors.frobenius_squared, 1)
