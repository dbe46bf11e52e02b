"""Gradients of each example's own loss."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap

from hessketch.curvature.averages import require_frozen
from hessketch.curvature.batch import require_finite
from hessketch.curvature.dense import checked_sum, converted, require_memory
from hessketch.curvature.halving import BatchLimit
from hessketch.curvature.losses import Loss, as_loss
from hessketch.curvature.memory import saved_tensors, storage_bytes
from hessketch.curvature.operators import select_parameters
from hessketch.curvature.precision import arithmetic
from hessketch.errors import InputError, NotFiniteError
from hessketch.linalg.vectors import require_at_least

# What a chunk of examples may hold of activations and gradients, unless the caller says otherwise.
_CHUNK_BYTES = 2**28
# The loss is asked with so many examples whether it is a mean or a sum over them: spread, since data lie by class.
_ASKED = 64


def per_example_gradients(
    model: nn.Module,
    loss: str | Loss,
    inputs: Tensor,
    targets: Tensor,
    chunk: int | None = None,
    *,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Gradients g_i (n, p) of the n examples' losses, one a row, on the parameters' device.

    Computed in `dtype` (default: the parameters') on copies, for `chunk` examples at once (default: as many as 256 MiB
    hold), half as many where they do not fit. The columns are ordered as the operators order parameters:
    `named_parameters`, those that require a gradient, each flattened row by row. `loss`, a function or the name of one,
    is called with a batch of one. The mean of the rows is the gradient of the mean loss, (1/n) sum g_i g_i^T the
    operator `second_moment`.

    Raises InputError for a chunk below 1, no examples, unequally many inputs and targets, a model in train mode, a loss
    that for some of the examples is neither one value an example nor their mean or sum (`losses.summed_loss`), or when
    (n, p) numbers do not fit into memory; NotFiniteError for NaN or infinity.
    """
    require_frozen(model)
    loss = as_loss(loss)
    chosen = select_parameters(model)
    if chunk is not None:
        require_at_least(1, chunk=chunk)
    if len(inputs) != len(targets) or not len(targets):
        raise InputError(f"{len(inputs)} inputs and {len(targets)} targets given; give as many of each, at least one")
    first = next(iter(chosen.values()))
    dtype, device = dtype or first.dtype, first.device
    fixed = {n: converted(t, dtype) for n, t in [*model.named_parameters(), *model.named_buffers()]}
    parameters = {n: fixed.pop(n) for n in chosen}
    n, p = len(targets), sum(q.numel() for q in parameters.values())
    require_memory(n * p * dtype.itemsize, device, f"the gradients of {n} examples in {p} parameters")

    def example_loss(parameters: dict[str, Tensor], example: Tensor, target: Tensor) -> Tensor:
        outputs = functional_call(model, fixed | parameters, (example[None],))
        return summed(outputs, target[None])

    def fill(part: slice) -> None:
        rows = gradients[part]
        examples, labels = (converted(t[part].to(device), dtype) for t in (inputs, targets))
        pieces, losses = vmap(grad_and_value(example_loss), in_dims=(None, 0, 0))(parameters, examples, labels)
        _require_defined(losses)
        torch.cat([piece.reshape(len(rows), -1) for piece in pieces.values()], 1, out=rows)

    gradients = torch.empty(n, p, dtype=dtype, device=device)
    with arithmetic():
        some = (converted(spread(t).to(device), dtype) for t in (inputs, targets))
        summed = _summed(model, fixed | parameters, loss, *some, first.dtype)
        if chunk is None:
            one = converted(inputs[0].to(device), dtype), converted(targets[0].to(device), dtype)
            chunk = _chunk(example_loss, parameters, *one)
        for _ in BatchLimit("chunks of {} examples").parts(fill, n, chunk):
            pass
    if not torch.isfinite(gradients).all():
        raise NotFiniteError("per-example gradients hold NaN or infinity: the network's weights have diverged")
    return gradients


def spread(examples: Tensor) -> Tensor:
    """At most 64 examples of all, evenly apart: enough to find out what a loss does with a batch."""
    return examples[:: math.ceil(len(examples) / _ASKED)]


def _summed(
    model: nn.Module, tensors: dict[str, Tensor], loss: Loss, inputs: Tensor, targets: Tensor, own: torch.dtype
) -> Loss:
    """The loss as a sum over examples: of one alone, a mean with weights would lose them."""
    with torch.no_grad():
        outputs = require_finite(functional_call(model, tensors, (inputs,)))
        return checked_sum(loss, outputs, targets, own)


def _require_defined(losses: Tensor) -> None:
    """The mean over nothing, of one target that a loss ignores, is NaN with a gradient of 0."""
    if losses.isnan().any():
        raise NotFiniteError(
            "the loss of a single example is NaN: it is a mean that ignores this target (give reduction='none' or "
            "leave these examples out), or the network's weights have diverged"
        )


def _chunk(example_loss: Callable[..., Tensor], parameters: dict[str, Tensor], example: Tensor, target: Tensor) -> int:
    """Examples that fill the budget: each holds what its graph keeps and its gradient, twice."""
    leaves = {name: q.detach().requires_grad_() for name, q in parameters.items()}
    with torch.enable_grad():
        value = example_loss(leaves, example, target)
    activations = storage_bytes(saved_tensors([value.grad_fn]), leaves.values())
    return max(1, _CHUNK_BYTES // (2 * (activations + sum(q.nbytes for q in leaves.values()))))
