r"""How much subspaces and masks overlap by chance: mean and standard deviation in closed form.

Let P and Q project onto spaces of k and l dimensions of R^p; the overlap here is X / k, X = tr(P Q).

Two spaces drawn uniformly (Haar). E Q = (l / p) I, so E X = k l / p. Write P0 = P - (k / p) I: X - E X = tr(P0 Q), and
E tr(P0 Q)^2 is the same quadratic form of every rotated P0, so a multiple c |P0|_F^2 on matrices of trace zero, with
|P0|_F^2 = k (p - k) / p. Traceless symmetric matrices have (p - 1)(p + 2) / 2 dimensions, and summing over an
orthonormal basis of them gives |Q0|_F^2 = l (p - l) / p in all; each has its equal share, c. Hence

    var X = 2 k l (p - k)(p - l) / (p^2 (p - 1)(p + 2)).

A random mask of k coordinates against a fixed space: X is the sum of k of the p leverages a_i drawn without
replacement (Cochran, Sampling Techniques, theorem 2.2): E X = k mean(a), var X = k (p - k) / (p - 1) var(a), the
variance with divisor p. Given how many coordinates come from each stratum, the strata add up. Against a fixed mask of l
the leverages are l ones and p - l zeros: X is hypergeometric.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from hessketch.errors import InputError
from hessketch.linalg.vectors import require_at_least

# Leverages of a float32 basis, orthonormal to its rounding, may exceed 1 by this much.
_ROUNDING = torch.finfo(torch.float32).eps ** 0.5


class Chance(NamedTuple):
    """Of an overlap, in units of the overlap."""

    mean: float
    sd: float


def chance_overlap(p: int, k: int, l: int | None = None) -> Chance:
    """Of two uniformly random spaces of k and l (default: k) dimensions of R^p, one of which may be fixed.

    The overlap is tr(P Q) / k, the mean squared cosine where l >= k: mean l / p. Raises InputError for k or l outside
    1 ... p.
    """
    l = k if l is None else l
    _require_dimensions(p, k=k, l=l)
    variance = 2 * k * l * (p - k) * (p - l) / (p**2 * (p - 1) * (p + 2)) if p > 1 else 0.0
    return Chance(l / p, math.sqrt(variance) / k)


def mask_pair_chance(p: int, k: int, l: int | None = None) -> Chance:
    """Of two random masks of k and l (default: k) of p coordinates, one of which may be fixed: shared ones over k.

    Raises as `chance_overlap`.
    """
    l = k if l is None else l
    _require_dimensions(p, k=k, l=l)
    variance = k * l * (p - k) * (p - l) / (p**2 * (p - 1)) if p > 1 else 0.0
    return Chance(l / p, math.sqrt(variance) / k)


def mask_chance(leverages: Tensor, k: int) -> Chance:
    """Of a random mask of k of p coordinates with a fixed space of these leverages (p,), squared row norms of a basis.

    Masks among some coordinates only, such as live parameters: their leverages alone. Raises InputError for k outside
    1 ... p and for leverages that are not numbers in [0, 1].
    """
    a = _leverages(leverages)
    _require_dimensions(len(a), k=k)
    return stratified_chance(a, torch.zeros(len(a), dtype=torch.int64, device=a.device), [k])


def stratified_chance(leverages: Tensor, strata: Tensor, counts: Sequence[int] | Tensor) -> Chance:
    """As `mask_chance`, of random masks with counts[s] coordinates out of those i with strata[i] = s.

    `strata` (p,) int64 numbers in 0 ... len(counts) - 1. Raises InputError for strata of another length or other
    numbers, counts below 0 or above the size of their stratum, and counts that are all 0.
    """
    a = _leverages(leverages)
    numbers = counts.tolist() if isinstance(counts, Tensor) else list(counts)
    strata = _strata(strata, len(a), len(numbers)).to(a.device)
    sizes = torch.bincount(strata, minlength=len(numbers))
    _require_counts(numbers, sizes.tolist())
    n, c = sizes.double(), torch.tensor(numbers, dtype=torch.float64, device=a.device)
    means = _sums(a, strata, len(n)) / n.clamp(min=1)
    squares = _sums((a - means[strata]).square(), strata, len(n))
    # A stratum's variance (divisor n) times c (n - c) / (n - 1); nothing varies in a stratum of one.
    variance = float((c * (n - c) * squares / (n * (n - 1)).clamp(min=1)).sum())
    k = sum(numbers)
    return Chance(float((c * means).sum()) / k, math.sqrt(variance) / k)


def _sums(values: Tensor, strata: Tensor, count: int) -> Tensor:
    # Not bincount: with weights it has no kernel on a GPU that repeats bit by bit.
    return values.new_zeros(count).index_add_(0, strata, values)


def _require_dimensions(p: int, **dimensions: int) -> None:
    require_at_least(1, p=p, **dimensions)
    for name, dimension in dimensions.items():
        if dimension > p:
            raise InputError(f"{name} is {dimension} in {p} dimensions; allowed: 1 to {p}")


def _leverages(leverages: Tensor) -> Tensor:
    if leverages.ndim != 1 or not len(leverages) or not leverages.is_floating_point():
        raise InputError(f"leverages are {tuple(leverages.shape)} of {leverages.dtype}; allowed: real numbers (p,)")
    if not bool(((leverages >= 0) & (leverages <= 1 + _ROUNDING)).all()):
        low, high = float(leverages.min()), float(leverages.max())
        raise InputError(
            f"leverages lie between {low:.4g} and {high:.4g}; allowed: [0, 1], squared norms of the rows of a basis "
            "with orthonormal columns"
        )
    return leverages.double()


def _strata(strata: Tensor, p: int, count: int) -> Tensor:
    if tuple(strata.shape) != (p,) or strata.dtype != torch.int64:
        raise InputError(f"strata are {tuple(strata.shape)} of {strata.dtype}; allowed: int64 numbers ({p},)")
    if int(strata.min()) < 0 or int(strata.max()) >= count:
        raise InputError(
            f"strata run from {int(strata.min())} to {int(strata.max())}, but {count} counts are given; allowed: "
            f"0 to {count - 1}"
        )
    return strata


def _require_counts(counts: Sequence[int], sizes: Sequence[int]) -> None:
    for number, (count, size) in enumerate(zip(counts, sizes, strict=True)):
        require_at_least(0, **{f"counts[{number}]": count})
        if count > size:
            raise InputError(f"counts[{number}] is {count}, but stratum {number} has {size}; allowed: 0 to {size}")
    if not sum(counts):
        raise InputError(f"counts are {list(counts)}: a mask of zero coordinates; allowed: at least one in all")
