"""The entries of a vector that are largest in magnitude."""

import torch
from torch import Tensor

from hessketch.errors import InputError, NotFiniteError


def largest_entries(vector: Tensor, count: int) -> Tensor:
    """Indices (count,) int64, ascending, of the entries largest in magnitude; of equal ones those of lower index.

    By magnitude, not by squares, which underflow below 1e-23 in float32. Raises InputError for a count that is not
    between 1 and the length, and NotFiniteError for a vector that holds NaN, which no order places.
    """
    if not 1 <= count <= len(vector):
        raise InputError(f"the {count} largest of {len(vector)} entries asked for; allowed: 1 to {len(vector)}")
    magnitudes = vector.abs()
    if torch.isnan(magnitudes).any():
        raise NotFiniteError("NaN among the entries to choose the largest from")
    # torch.topk alone promises nothing about ties, and differs there between devices.
    least = magnitudes.topk(count, sorted=True).values[-1]
    above = (magnitudes > least).nonzero().squeeze(1)
    level = (magnitudes == least).nonzero().squeeze(1)
    return torch.cat([above, level[: count - len(above)]]).sort().values


def keep_largest(vector: Tensor, count: int) -> Tensor:
    """A copy (p,) with zeros in place of all but the `count` largest entries; see `largest_entries`."""
    kept = torch.zeros_like(vector)
    chosen = largest_entries(vector, count)
    kept[chosen] = vector[chosen]
    return kept
