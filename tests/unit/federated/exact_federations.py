"""Federations whose rounds are known."""

import torch
from small_federations import (
    COUNT,
    SIZES,
    dimension,
    method,
    simulation,
)

WEIGHTS = [size / COUNT for size in SIZES]
P = dimension()
"""Methods that lose nothing: all numbers, a sketch that is orthogonal, the p largest of p entries."""


def spied(of) -> list[tuple]:
    """Filled with the sum that a method applies in each round, and the change of the weights."""
    seen, original = [], of.change

    def change(total, step, rate):
        result = original(total, step, rate)
        seen.append((total.clone(), result.clone()))
        return result

    of.change = change
    return seen


def float32(name, kind="batch", **changes):
    """A federation as it is trained, its method and its number of parameters."""
    of = method(name, dimension(kind))
    return simulation(of, kind, dtype=torch.float32, **changes), of, dimension(kind)
