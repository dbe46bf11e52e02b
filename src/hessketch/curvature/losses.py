"""Losses as functions of outputs and targets, one value an example.

Outputs have shape (n, C); targets are class numbers (n,), or anything the function understands.
Every function here is twice differentiable in the outputs; curvature operators take any such function.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils._pytree import tree_map

from hessketch.errors import InputError

Loss = Callable[[Tensor, Tensor], Tensor]


def cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Softmax cross-entropy of logits (n, C) and class numbers (n,), in nats, shape (n,)."""
    return functional.cross_entropy(outputs, targets, reduction="none")


def _as_labels(outputs: Tensor, targets: Tensor) -> Tensor:
    """One-hot targets (n, C); for a single output the class number itself, 0 or 1, as (n, 1)."""
    if outputs.shape[1] == 1:
        return targets[:, None].to(outputs.dtype)
    return functional.one_hot(targets, outputs.shape[1]).to(outputs.dtype)


def binary_cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Sigmoid cross-entropy averaged over the outputs, shape (n,): each output answers 'is it my class?'."""
    labels = _as_labels(outputs, targets)
    return functional.binary_cross_entropy_with_logits(outputs, labels, reduction="none").mean(1)


def mean_squared_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """Squared distance of the outputs to the one-hot target, averaged over the outputs, shape (n,)."""
    return (outputs - _as_labels(outputs, targets)).square().mean(1)


LOSSES: dict[str, Loss] = {
    "cross_entropy": cross_entropy,
    "binary_cross_entropy": binary_cross_entropy,
    "mean_squared_error": mean_squared_error,
}


def correct(outputs: Tensor, targets: Tensor) -> Tensor:
    """Which predictions are right, bool (n,): the largest output, or the sign of a single one."""
    if outputs.shape[1] == 1:
        return (outputs[:, 0] > 0) == (targets > 0)
    return outputs.argmax(1) == targets


def loss_function(name: str) -> Loss:
    """The loss of that name; raises InputError with the allowed names."""
    if name not in LOSSES:
        raise InputError(f"loss {name!r} is unknown; allowed: {', '.join(LOSSES)}")
    return LOSSES[name]


def summed_loss(loss: Loss, outputs: Tensor, targets: Any) -> Callable[[Tensor, Any], Tensor]:
    """The sum over examples of a loss that gives one value an example, or the mean or the sum of a batch.

    A loss of torch.nn with its default reduction is a mean. Which one a scalar is, is found out once with the given
    outputs (n, ...) and targets: doubling a batch doubles a sum and leaves a mean. Raises InputError for a loss of
    another shape, or whose value for two copies of a batch is neither.
    """
    with torch.no_grad():
        value = loss(outputs, targets)
        n = len(outputs)
        if value.ndim and value.shape[0] == n:
            return lambda o, t: loss(o, t).sum()
        if value.ndim:
            raise InputError(
                f"the loss of {n} examples has shape {tuple(value.shape)}; give one value an example, or their mean"
            )
        twice = loss(torch.cat([outputs, outputs]), tree_map(lambda t: torch.cat([t, t]), targets))
        if torch.allclose(twice, value, rtol=1e-4, atol=0):
            return lambda o, t: loss(o, t) * len(o)
        if torch.allclose(twice, 2 * value, rtol=1e-4, atol=0):
            return loss
    raise InputError("the loss is neither a mean nor a sum over examples; give one value an example")


def mean_loss_and_accuracy(
    model: torch.nn.Module, loss: Loss, batches: list[tuple[Tensor, Tensor]]
) -> tuple[float, float]:
    """Mean loss (nats for cross-entropy) and share of right predictions over batches, in eval mode, no gradient."""
    was_training = model.training
    model.eval()
    total_loss, total_correct, count = 0.0, 0, 0
    with torch.no_grad():
        for inputs, targets in batches:
            outputs = model(inputs)
            total_loss += loss(outputs, targets).sum(dtype=torch.float64).item()
            total_correct += int(correct(outputs, targets).sum())
            count += len(targets)
    model.train(was_training)
    return total_loss / count, total_correct / count
