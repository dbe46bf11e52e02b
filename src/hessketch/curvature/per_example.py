"""Gradients of each example's own loss."""

import math
from collections import deque
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap

from hessketch.curvature.averages import require_frozen
from hessketch.curvature.batch import require_finite
from hessketch.curvature.dense import checked_sum, converted, copied, require_memory
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

ExampleLoss = Callable[[dict[str, Tensor], Tensor, Tensor], Tensor]


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
    hold), half as many where they do not fit. The columns are in the operators' order of parameters. `loss`, a function
    or the name of one, is called with a batch of one. The mean of the rows is the gradient of the mean loss,
    (1/n) sum g_i g_i^T the operator `second_moment`.

    Raises InputError for a chunk below 1, no examples, unequally many inputs and targets, a model in train mode, a loss
    that `summed_loss` refuses for some of them, or (n, p) numbers that do not fit into memory; NotFiniteError for NaN.
    """
    require_frozen(model)
    require_at_least(1, chunk=1 if chunk is None else chunk)
    loss, chosen = as_loss(loss), select_parameters(model)
    if len(inputs) != len(targets) or not len(targets):
        raise InputError(f"{len(inputs)} inputs and {len(targets)} targets given; give as many of each, at least one")
    first = next(iter(chosen.values()))
    dtype, device = dtype or first.dtype, first.device
    parameters, fixed = copied(model, chosen, dtype)
    n, p = len(targets), sum(q.numel() for q in parameters.values())
    require_memory(n * p * dtype.itemsize, device, f"the gradients of {n} examples in {p} parameters")

    def given(tensor: Tensor) -> Tensor:
        return converted(tensor.to(device), dtype)

    gradients = torch.empty(n, p, dtype=dtype, device=device)
    with arithmetic():
        summed = _summed(model, fixed | parameters, loss, given(spread(inputs)), given(spread(targets)), first.dtype)
        example_loss = _example_loss(model, fixed, summed)
        chunk = chunk or _chunk(example_loss, parameters, given(inputs[0]), given(targets[0]))
        find = vmap(grad_and_value(example_loss), in_dims=(None, 0, 0))

        def fill(part: slice) -> None:
            pieces, losses = find(parameters, given(inputs[part]), given(targets[part]))
            _require_defined(losses)
            torch.cat([piece.reshape(len(losses), -1) for piece in pieces.values()], 1, out=gradients[part])

        deque(BatchLimit("chunks of {} examples").parts(fill, n, chunk), 0)
    if not torch.isfinite(gradients).all():
        raise NotFiniteError("per-example gradients hold NaN or infinity: the network's weights have diverged")
    return gradients


def _example_loss(model: nn.Module, fixed: dict[str, Tensor], summed: Loss) -> ExampleLoss:
    """The loss of one example, from parameters, input and target without their batch axis."""

    def loss(parameters: dict[str, Tensor], example: Tensor, target: Tensor) -> Tensor:
        outputs = functional_call(model, fixed | parameters, (example[None],))
        return summed(outputs, target[None])

    return loss


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


def _chunk(example_loss: ExampleLoss, parameters: dict[str, Tensor], example: Tensor, target: Tensor) -> int:
    """Examples that fill the budget: each holds what its graph keeps and its gradient, twice."""
    leaves = {name: q.detach().requires_grad_() for name, q in parameters.items()}
    with torch.enable_grad():
        value = example_loss(leaves, example, target)
    activations = storage_bytes(saved_tensors([value.grad_fn]), leaves.values())
    return max(1, _CHUNK_BYTES // (2 * (activations + sum(q.nbytes for q in leaves.values()))))
