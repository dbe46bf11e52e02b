"""How many eigenvalues stand apart from the bulk."""

import numpy as np
from scipy.special import fdtrc, gammaln

from hessketch.errors import InputError
from hessketch.linalg.arrays import Floats
from hessketch.linalg.vectors import require_share

# A boundary needs so many gaps below it, from which the bulk's law is estimated.
_LEAST_GAPS = 8
# Gap j of a bulk falls off as j^-b: b = 1/3 at a square-root edge (Wigner, Marchenko-Pastur), b = 1 in a Pareto tail.
_EXPONENTS = np.linspace(1 / 3, 1, 9)[:, None]
# Exponents b within so many units of the best log likelihood stay possible: about a 95% interval.
_LIKELIHOOD_DROP = 2.0
# Gamma shape of gaps: 1 for independent eigenvalues (exponential gaps), 4 for the repulsion of random matrices.
_LARGEST_SHAPE = 4.0
# Gaps of equal eigenvalues count as this share of the largest gap, so that their logarithm exists.
_SMALLEST_GAP = 1e-6


def count_outliers(eigenvalues: Floats, significance: float = 0.01) -> int:
    """How many of the largest eigenvalues stand apart from the bulk: a test of gaps between logarithms.

    Give the leading positive eigenvalues only, several times the number expected to stand apart, so that most are
    bulk; the order does not matter, and values <= 0 are ignored. For negative outliers give the negated values.

    Rule. Let l_1 >= ... >= l_K, and g_j = ln l_j - ln l_(j+1). If all are the top of one continuous bulk, the mean
    of g_j is c j^-b: b = 1 in a heavy (Pareto) tail, where j g_j are even independent exponentials (Renyi 1953),
    and b = 1/3 at a square-root edge (eigenvalues there are spaced as j^-1/3). Gap r is tested against those below:

    - g_j j^b for j > r are taken as Gamma with mean c and shape k, estimated for each b of nine from 1/3 to 1;
      k is lowered by a standard error and held in 1 (independent) to 4 (random-matrix repulsion)
    - then g_r r^b / c follows an F law with 2k and 2k (K - 1 - r) degrees of freedom; the p-value of the boundary r
      is the largest upper tail over all b within 2 units of the best log likelihood
    - boundaries are r <= K/2 with at least 8 gaps below. If the smallest p-value is below significance / (number of
      boundaries), 1 ... r are outliers; the rest is numbered from 1 again and tested so, until nothing is rejected.

    Thus `significance` is about the probability to report any outlier of a bulk that has none. Measured at 0.01 with
    the leading 50 of 2000 independent values: 1% (Pareto, exponents 1.6 and 3), 0.2% (exponential); of 200 x 200
    Wigner and Marchenko-Pastur matrices: none of 900. Ten spikes whose smallest is f times the bulk's edge, in
    these: counted exactly always at f = 1.5 (Wigner, Marchenko-Pastur), in 98% at f = 2 (exponential), in 67% at
    f = 2 and 97% at f = 5 (Pareto 3), in 1% at f = 2 and 74% at f = 5 (Pareto 1.6).

    Limits: a gap is demanded, and outliers that run smoothly into the bulk are not counted. Behind true outliers
    the first values of a heavy tail, themselves far apart, are often counted with them (in a quarter of the Pareto
    1.6 bulks at f = 5, mostly one or two too many). Fewer than 10 positive values give 0. Values must be distinct
    eigenvalues: copies, or eigenvalues missed, change the answer.

    Raises InputError for values that are not a finite vector, or a significance outside (0, 1).
    """
    values = np.asarray(eigenvalues, dtype=float)
    if values.ndim != 1 or not np.isfinite(values).all():
        raise InputError("eigenvalues must be a vector of finite numbers; drop NaN and infinity first")
    require_share(0.01, significance=significance)
    logarithms = np.log(np.sort(values[values > 0])[::-1])
    gaps = -np.diff(logarithms)
    boundaries = min(len(logarithms) // 2, len(gaps) - _LEAST_GAPS)
    if boundaries < 1 or gaps.max() == 0:
        return 0
    gaps = np.maximum(gaps, _SMALLEST_GAP * gaps.max())
    count = 0
    while count < boundaries:
        p_values = [_p_value(gaps[count:], r) for r in range(1, boundaries - count + 1)]
        best = int(np.argmin(p_values))
        if p_values[best] >= significance / boundaries:
            break
        count += best + 1
    return count


def _p_value(gaps: Floats, r: int) -> float:
    """Probability of a gap number r (from 1) as large as this one, were it to continue the gaps below it."""
    below = gaps[r:]
    m = len(below)
    ranks = np.log(np.arange(r + 1, r + 1 + m) / r)  # relative to r: c is then the mean of gap r itself
    logs = np.log(below) + _EXPONENTS * ranks  # (exponents, m)
    scaled = np.exp(logs)
    mean = scaled.mean(axis=1)
    shape = _gamma_shape(np.log(mean) - logs.mean(axis=1), m)
    k, c = shape[:, None], mean[:, None]
    density = k * np.log(k / c) - gammaln(k) + (k - 1) * logs - k * scaled / c + _EXPONENTS * ranks
    likelihood = density.sum(axis=1)
    possible = likelihood >= likelihood.max() - _LIKELIHOOD_DROP
    shape = shape[possible]
    return float(fdtrc(2 * shape, 2 * shape * m, gaps[r - 1] / mean[possible]).max())


def _gamma_shape(spread: Floats, m: int) -> Floats:
    """Shape of m Gamma variables from ln(mean) - mean(ln): Thom's closed form for the likelihood's maximum.

    Corrected for its bias by (m - 3) / m, less one standard error, about sqrt(2 / m) of itself, and held in bounds.
    """
    s = np.maximum(spread, 1e-9)
    shape: Floats = (3 - s + np.sqrt((s - 3) ** 2 + 24 * s)) / (12 * s)
    corrected: Floats = shape * (m - 3) / m * (1 - np.sqrt(2 / m))
    return np.clip(corrected, 1, _LARGEST_SHAPE)
