"""Gradients of each example's own loss."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from hessketch.curvature.averages import require_frozen
from hessketch.curvature.dense import converted, require_memory
from hessketch.curvature.losses import Loss
from hessketch.curvature.memory import saved_tensors, storage_bytes
from hessketch.curvature.operators import select_parameters
from hessketch.curvature.precision import arithmetic
from hessketch.errors import InputError, NotFiniteError
from hessketch.linalg.vectors import require_at_least

# What a chunk of examples may hold of activations and gradients, unless the caller says otherwise.
_CHUNK_BYTES = 2**28


def per_example_gradients(
    model: nn.Module,
    loss: Loss,
    inputs: Tensor,
    targets: Tensor,
    chunk: int | None = None,
    *,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Gradients g_i (n, p) of the n examples' losses, one a row, on the parameters' device.

    Computed in `dtype` (default: the parameters') on copies, for `chunk` examples at once (default: as many as 256 MiB
    hold). The columns are ordered as the operators order parameters: `named_parameters`, those that require a gradient,
    each flattened row by row. `loss` is called with a batch of one. The mean of the rows is the gradient of the mean
    loss, (1/n) sum g_i g_i^T the operator `second_moment`.

    Raises InputError for a chunk below 1, no examples, unequally many inputs and targets, a model in train mode, or
    when (n, p) numbers do not fit into memory; NotFiniteError for NaN or infinity.
    """
    require_frozen(model)
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
        return loss(outputs, target[None]).sum()

    gradients = torch.empty(n, p, dtype=dtype, device=device)
    with arithmetic():
        if chunk is None:
            one = converted(inputs[0].to(device), dtype), converted(targets[0].to(device), dtype)
            chunk = _chunk(example_loss, parameters, *one)
        for rows, examples, labels in zip(*(t.split(chunk) for t in (gradients, inputs, targets)), strict=True):
            examples, labels = converted(examples.to(device), dtype), converted(labels.to(device), dtype)
            pieces = vmap(grad(example_loss), in_dims=(None, 0, 0))(parameters, examples, labels)
            torch.cat([piece.reshape(len(rows), -1) for piece in pieces.values()], 1, out=rows)
    if not torch.isfinite(gradients).all():
        raise NotFiniteError("per-example gradients hold NaN or infinity: the network's weights have diverged")
    return gradients


def _chunk(example_loss: Callable[..., Tensor], parameters: dict[str, Tensor], example: Tensor, target: Tensor) -> int:
    """Examples that fill the budget: each holds what its graph keeps and its gradient, twice."""
    leaves = {name: q.detach().requires_grad_() for name, q in parameters.items()}
    with torch.enable_grad():
        value = example_loss(leaves, example, target)
    activations = storage_bytes(saved_tensors([value.grad_fn]), leaves.values())
    return max(1, _CHUNK_BYTES // (2 * (activations + sum(q.nbytes for q in leaves.values()))))
