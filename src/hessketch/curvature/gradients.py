"""The gradient of a mean loss over all examples, as a number."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from hessketch.curvature.averages import require_frozen
from hessketch.curvature.losses import Loss
from hessketch.errors import InputError


def squared_gradient_norm(model: nn.Module, loss: Loss, batches: Iterable[tuple[Tensor, Tensor]]) -> float:
    """|g|^2 of the mean gradient g over all examples, in the parameters that require one.

    `loss` gives one value an example; the size of the (inputs, targets) batches does not change the result. Raises
    InputError without examples, or unless the model is in eval mode.
    """
    require_frozen(model)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    total, examples = [torch.zeros_like(parameter) for parameter in parameters], 0
    for inputs, targets in batches:
        gradients = torch.autograd.grad(loss(model(inputs), targets).sum(), parameters, materialize_grads=True)
        torch._foreach_add_(total, gradients)
        examples += len(targets)
    if not examples:
        raise InputError("no examples given: an average over nothing is undefined")
    return sum(float(gradient.double().square().sum()) for gradient in total) / examples**2
