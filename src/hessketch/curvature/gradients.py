"""The gradient of a mean loss over all examples, as a number."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from hessketch.curvature.averages import require_frozen
from hessketch.curvature.halving import BatchLimit
from hessketch.curvature.losses import Loss
from hessketch.errors import InputError, NotFiniteError


def squared_gradient_norm(model: nn.Module, loss: Loss, batches: Iterable[tuple[Tensor, Tensor]]) -> float:
    """|g|^2 of the mean gradient g over all examples, in the parameters that require one.

    `loss` gives one value an example; the size of the (inputs, targets) batches does not change the result, and one
    that does not fit into memory is halved. Raises InputError without examples, or unless the model is in eval mode;
    NotFiniteError where g is not finite.
    """
    require_frozen(model)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    total, examples = [torch.zeros_like(parameter) for parameter in parameters], 0
    limit = BatchLimit()

    def slopes(inputs: Tensor, targets: Tensor) -> tuple[Tensor, ...]:
        return torch.autograd.grad(loss(model(inputs), targets).sum(), parameters, materialize_grads=True)

    for batch in batches:
        for gradients in limit.of_batch(slopes, *batch):
            torch._foreach_add_(total, gradients)
        examples += len(batch[1])
    if not examples:
        raise InputError("no examples given: an average over nothing is undefined")
    squared = sum(float(gradient.double().square().sum()) for gradient in total) / examples**2
    if not math.isfinite(squared):
        raise NotFiniteError("the gradient of the mean loss holds NaN or infinity: the network's weights have diverged")
    return squared
