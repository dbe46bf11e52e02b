"""Losses as functions of outputs and targets, one value an example.

Outputs have shape (n, C); targets are class numbers (n,), or anything the function understands.
Every function here is twice differentiable in the outputs; curvature operators take any such function.
"""

import copy
from collections.abc import Callable, MutableMapping
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.func import vmap
from torch.nn import functional
from torch.utils._pytree import tree_map

from hessketch.curvature.halving import BatchLimit
from hessketch.errors import InputError

Loss = Callable[[Tensor, Tensor], Tensor]


def cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Softmax cross-entropy of logits (n, C) and class numbers (n,), in nats, shape (n,)."""
    return functional.cross_entropy(outputs, targets, reduction="none")


def _as_labels(outputs: Tensor, targets: Tensor) -> Tensor:
    """One-hot targets (n, C); for a single output the class number itself, 0 or 1, as (n, 1)."""
    if outputs.shape[1] == 1:
        return targets[:, None].to(outputs.dtype)
    # Not functional.one_hot, which looks at the values and so cannot be vectorised over clients by vmap.
    return torch.zeros_like(outputs).scatter(1, targets[:, None], 1)


def binary_cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Sigmoid cross-entropy averaged over the outputs, shape (n,): each output answers 'is it my class?'."""
    labels = _as_labels(outputs, targets)
    return functional.binary_cross_entropy_with_logits(outputs, labels, reduction="none").mean(1)


def mean_squared_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """Squared distance of the outputs to the one-hot target, averaged over the outputs, shape (n,)."""
    return (outputs - _as_labels(outputs, targets)).square().mean(1)


def sigmoid_squared_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """Squared distance of the sigmoids of the outputs to the one-hot target, averaged over the outputs, shape (n,).

    What the code of Shrivastava et al. 2024 trains with as its MSE, with one output and two classes. Not convex in the
    outputs: its ggn has negative eigenvalues too.
    """
    return (torch.sigmoid(outputs) - _as_labels(outputs, targets)).square().mean(1)


LOSSES: dict[str, Loss] = {
    "cross_entropy": cross_entropy,
    "binary_cross_entropy": binary_cross_entropy,
    "mean_squared_error": mean_squared_error,
    "sigmoid_squared_error": sigmoid_squared_error,
}
_OF_A_SINGLE_OUTPUT = ("binary_cross_entropy", "mean_squared_error", "sigmoid_squared_error")


def outputs_of(loss: str, classes: int) -> int:
    """How many outputs a network has: one a class, but of two classes a single one where the loss takes it.

    A single output is drawn to the label, 0 or 1 (Shrivastava et al. 2024); a softmax needs two. Raises InputError for
    an unknown loss.
    """
    loss_function(loss)
    return 1 if classes == 2 and loss in _OF_A_SINGLE_OUTPUT else classes


def correct(outputs: Tensor, targets: Tensor, loss: Loss | None = None) -> Tensor:
    """Which predictions are right, bool (n,): the largest output, or the class that a single one is closer to.

    The border of a single output is 0, and 1/2 for the loss `mean_squared_error`, which draws it to 0 or 1 itself. With
    any other function, of one value an example, it is where both classes cost the same.
    """
    if outputs.shape[1] != 1:
        return outputs.argmax(1) == targets
    if loss is None or loss in LOSSES.values():
        predicted = outputs[:, 0] > (0.5 if loss is mean_squared_error else 0)
    else:
        predicted = loss(outputs, torch.ones_like(targets)) < loss(outputs, torch.zeros_like(targets))
    return predicted == (targets > 0)


def loss_function(name: str) -> Loss:
    """The loss of that name; raises InputError with the allowed names."""
    if name not in LOSSES:
        raise InputError(f"loss {name!r} is unknown; allowed: {', '.join(LOSSES)}")
    return LOSSES[name]


def as_loss(loss: str | Loss) -> Loss:
    """The loss of that name, or the function itself; a module with tensors of its own serves float32 and float64.

    Raises InputError, with the allowed names, for anything else.
    """
    if isinstance(loss, str):
        return loss_function(loss)
    if isinstance(loss, type) or not callable(loss):
        raise InputError(
            f"loss is {loss!r}; give a function of outputs and targets, such as nn.CrossEntropyLoss(), or one of the "
            f"names {', '.join(LOSSES)}"
        )
    if not isinstance(loss, nn.Module) or not any(t.is_floating_point() for t in loss.state_dict().values()):
        return loss
    copies = {dtype: copy.deepcopy(loss).to(dtype) for dtype in (torch.float32, torch.float64)}
    return lambda outputs, targets: copies.get(outputs.dtype, loss)(outputs, targets)


def loss_of_each(loss: Loss, outputs: Tensor, targets: Tensor) -> Loss:
    """A loss that `summed_loss` takes as one value an example, shape (n,): a mean or a sum is that of batches of one.

    Raises as `summed_loss`, which is asked with the given outputs (n, ...) and targets (n, ...).
    """
    summed = summed_loss(loss, outputs, targets)
    with torch.no_grad():
        dimensions = loss(outputs, targets).ndim
    if dimensions == 1:
        return loss
    if dimensions:
        return lambda o, t: loss(o, t).flatten(1).sum(1)
    return vmap(lambda o, t: summed(o[None], t[None]))


def summed_loss(loss: Loss, outputs: Tensor, targets: Any) -> Callable[[Tensor, Any], Tensor]:
    """The sum over examples of a loss that gives one value an example, or the mean or the sum of a batch.

    A loss of torch.nn with its default reduction is a mean. Which one a scalar is, is found out once with the given
    outputs (n, ...) and targets, from its values for two parts of them (for two copies of a single example). Raises
    InputError for a loss of another shape and for one that is neither, such as a mean with weights, whose value for a
    batch does not follow from those of its parts.
    """
    with torch.no_grad():
        value = loss(outputs, targets)
        n = len(outputs)
        if not isinstance(value, Tensor):
            raise InputError(f"the loss returns {type(value).__name__}; give a function that returns a tensor")
        if value.ndim:
            broadcast = outputs.numel() == n > 1 and value.numel() == n * n
            if value.shape[0] == n and not broadcast:
                return lambda o, t: loss(o, t).sum()
            raise InputError(
                f"the loss of {n} examples has shape {tuple(value.shape)}; give one value an example, or their mean"
            )
        is_mean, is_sum = _reduction(loss, _told_apart(loss, outputs, targets), targets)
    if is_mean and is_sum:
        raise InputError("the loss of the first batch is 0: it may be a mean or a sum; give one value an example")
    if not is_mean and not is_sum:
        raise InputError(
            "the loss is neither a mean nor a sum over examples (a mean with weights or ignored targets is not); give "
            "one value an example"
        )
    return (lambda o, t: loss(o, t) * len(o)) if is_mean else loss


def _told_apart(loss: Loss, outputs: Tensor, targets: Any) -> Tensor:
    """The outputs moved by random numbers, if the loss is finite there: an untrained network's are all alike."""
    outputs = outputs if outputs.dtype.itemsize > 2 else outputs.float()
    noise = torch.randn(outputs.shape, generator=torch.Generator().manual_seed(0))
    moved = outputs + noise.to(outputs)
    try:
        return moved if torch.isfinite(loss(moved, targets)).all() else outputs
    except RuntimeError:  # such as that probabilities lie between 0 and 1
        return outputs


def _reduction(loss: Loss, outputs: Tensor, targets: Any) -> tuple[bool, bool]:
    """Whether a scalar loss behaves as a mean, and as a sum, of the first examples and the rest.

    At several cuts: where both parts hold as much of each class, a mean with weights looks like one without.
    """
    n = len(outputs)
    if n == 1:
        outputs = torch.cat([outputs, outputs])
        targets = tree_map(lambda t: torch.cat([t, t]) if isinstance(t, Tensor) else t, targets)
        n = 2
    whole, is_mean, is_sum = loss(outputs, targets), True, True
    for cut in {1, max(n // 3, 1), min(2, n - 1)}:
        first, rest = (
            loss(outputs[part], tree_map(lambda t, part=part: t[part] if isinstance(t, Tensor) else t, targets))
            for part in (slice(0, cut), slice(cut, n))
        )
        is_mean &= torch.allclose(whole, (cut * first + (n - cut) * rest) / n, rtol=1e-4, atol=0)
        is_sum &= torch.allclose(whole, first + rest, rtol=1e-4, atol=0)
    return is_mean, is_sum


_LIMITS: MutableMapping[nn.Module, BatchLimit] = WeakKeyDictionary()  # of evaluations


def mean_loss_and_accuracy(
    model: torch.nn.Module, loss: Loss, batches: list[tuple[Tensor, Tensor]]
) -> tuple[float, float]:
    """Mean loss (nats for cross-entropy) and share of right predictions over batches, in eval mode, no gradient.

    A batch that does not fit into memory is halved, and so are those of later evaluations; the log says so.
    """
    limit = _LIMITS.setdefault(model, BatchLimit())
    was_training = model.training
    model.eval()
    total_loss, total_correct, count = 0.0, 0, 0

    def sums(inputs: Tensor, targets: Tensor) -> tuple[float, int]:
        outputs = model(inputs)
        return loss(outputs, targets).sum(dtype=torch.float64).item(), int(correct(outputs, targets, loss).sum())

    with torch.no_grad():
        for batch in batches:
            for of_loss, right in limit.of_batch(sums, *batch):
                total_loss, total_correct = total_loss + of_loss, total_correct + right
            count += len(batch[1])
    model.train(was_training)
    return total_loss / count, total_correct / count


def evaluation(model: torch.nn.Module, loss: Loss, **splits: list[tuple[Tensor, Tensor]]) -> dict[str, float]:
    """`train_loss`, `train_accuracy`, ... of each named split's batches, in eval mode."""
    results = {}
    for split, batches in splits.items():
        results[f"{split}_loss"], results[f"{split}_accuracy"] = mean_loss_and_accuracy(model, loss, batches)
    return results
