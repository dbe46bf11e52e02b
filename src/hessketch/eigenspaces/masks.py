r"""Masks of the largest weights, over all of a network or layer by layer, and what they and eigenspaces hold of layers.

A mask is ascending int64 indices of the flat parameters, in the order of an operator's `parameter_shapes`. A layer is
one parameter tensor: the entries of a flat vector that follow those of the tensors before it. Layers differ in scale
from their initialisation on, and parameters that the data never reaches (the input weights of a dead pixel) have no
curvature: both make masks and eigenspaces agree or differ for reasons that are not training, so masks by layer and
live parameters are the baselines beside masks and parameters at large.
"""

import math
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from hessketch.errors import InputError
from hessketch.linalg.coordinate_subspaces import magnitude_order, require_mask
from hessketch.linalg.vectors import require_at_least

# Entries that are compared with zero at a time.
_ENTRIES = 2**22


def layer_sizes(parameter_shapes: Mapping[str, Sequence[int]]) -> dict[str, int]:
    """Entries of each parameter tensor by name, from an operator's `parameter_shapes`; raises InputError for none."""
    sizes = {name: math.prod(shape) for name, shape in parameter_shapes.items()}
    _require_sizes(list(sizes.values()))
    return sizes


def layer_numbers(sizes: Sequence[int]) -> Tensor:
    """The layer of each parameter, (p,) int64 numbers in 0 ... len(sizes) - 1: strata for chance levels by layer."""
    _require_sizes(sizes)
    return torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(list(sizes)))


def layer_counts(sizes: Sequence[int], k: int) -> list[int]:
    """How many of k mask entries each layer gets at the same density in all: k size / p, in whole numbers of sum k.

    Every share is rounded down, and the entries that are left go to the layers with the largest remainders, the first
    of equal ones (Hamilton's method: no layer is off by 1 or more). Raises InputError for k outside 1 ... p - 1.
    """
    _require_sizes(sizes)
    p = sum(sizes)
    require_at_least(1, k=k)
    if k >= p:
        raise InputError(f"a mask of {k} of {p} parameters says nothing; allowed sizes: 1 to {p - 1}")
    counts = [k * size // p for size in sizes]
    by_remainder = sorted(range(len(sizes)), key=lambda layer: -(k * sizes[layer] % p))
    for layer in by_remainder[: k - sum(counts)]:
        counts[layer] += 1
    return counts


def by_layer_masks(flat: Tensor, sizes: Sequence[int], ks: Sequence[int]) -> list[Tensor]:
    """For each k the mask (k,) of the largest magnitudes of each layer, at the same density in all; ties by index.

    `flat` (p,) holds the layers one after the other, `layer_counts` says how many each gets. One order serves all k.
    The masks of two k need not be nested: rounding may move an entry from one layer to another. Raises InputError for
    sizes that do not sum to p, values that are not finite, and as `layer_counts`.
    """
    _require_sizes(sizes)
    if flat.ndim != 1 or len(flat) != sum(sizes):
        raise InputError(f"weights are {tuple(flat.shape)}, the layers have {sum(sizes)} entries; give both of one net")
    order = magnitude_order(flat)
    layers = layer_numbers(sizes).to(order.device)[order].sort(stable=True).indices
    orders = order[layers].split(list(sizes))

    def mask(k: int) -> Tensor:
        chosen = [order[:count] for order, count in zip(orders, layer_counts(sizes, k), strict=True)]
        return torch.cat(chosen).sort().values

    return [mask(k) for k in ks]


def live_parameters(columns: Tensor | Iterable[Tensor]) -> Tensor:
    """Which parameters have curvature, (p,) bool: those whose row is not exactly zero throughout.

    `columns` is a dense Hessian (p, p), or measurements W = H Omega (p, m) of one too large to form, as one tensor or
    block after block. With Omega of continuous distribution one column is enough: a row of H that is not zero gives
    zero with probability 0. Of H = G + R (generalised Gauss-Newton and residual) a row is zero where it is in both, as
    for the input weights of a pixel that is always 0: products by differentiation give exact zeros there.
    Eigenvectors serve where they are combinations of such columns, not those of a dense solver, which rounds. Raises
    InputError for blocks of different p, none at all, and NaN.
    """
    live: Tensor | None = None
    for block in [columns] if isinstance(columns, Tensor) else columns:
        found = _rows_not_zero(block)
        if live is not None and len(found) != len(live):
            raise InputError(f"blocks of {len(live)} and {len(found)} parameters are given; give columns of one matrix")
        live = found if live is None else live | found.to(live.device)
    if live is None:
        raise InputError("no columns are given; give a Hessian (p, p) or its products (p, m)")
    return live


def _rows_not_zero(block: Tensor) -> Tensor:
    if block.ndim != 2 or not block.numel():
        raise InputError(f"a block of shape {tuple(block.shape)} is given; allowed: columns (p, m), m >= 1")
    step = max(1, _ENTRIES // block.shape[1])
    parts = []
    for number, rows in enumerate(block.split(step)):
        if bool(rows.isnan().any()):
            first = number * step + int(rows.isnan().any(1).nonzero()[0, 0])
            raise InputError(f"row {first} of the columns holds NaN; allowed: finite numbers")
        parts.append((rows != 0).any(1))
    return torch.cat(parts)


def counts_in_layers(mask: Tensor, sizes: Sequence[int]) -> Tensor:
    """How many coordinates of a mask lie in each layer, (len(sizes),) int64 on the mask's device.

    Raises InputError for what is no mask of sum(sizes) coordinates (see `require_mask`).
    """
    _require_sizes(sizes)
    require_mask(mask, sum(sizes))
    ends = torch.tensor(list(sizes), device=mask.device).cumsum(0)
    return torch.bincount(torch.bucketize(mask, ends, right=True), minlength=len(sizes))


def energies_in_layers(leverages: Tensor, sizes: Sequence[int]) -> Tensor:
    """Sums of squared rows (p,) of a basis over each layer, (len(sizes),) float64: they sum to the basis's columns."""
    _require_sizes(sizes)
    if leverages.ndim != 1 or len(leverages) != sum(sizes):
        raise InputError(f"leverages are {tuple(leverages.shape)}, the layers have {sum(sizes)} entries")
    return torch.stack([layer.sum(dtype=torch.float64) for layer in leverages.split(list(sizes))])


def _require_sizes(sizes: Sequence[int]) -> None:
    if not len(sizes):
        raise InputError("no layers are given; give the size of at least one")
    for number, size in enumerate(sizes):
        require_at_least(1, **{f"size of layer {number}": size})
