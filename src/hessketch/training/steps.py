"""One step of mini-batch SGD, the same for every training of one network: gather, forward, backward, update."""

from typing import Any

import torch
from torch import Tensor, nn

from hessketch.curvature.halving import BatchLimit
from hessketch.curvature.losses import Loss, correct
from hessketch.data.examples import Examples
from hessketch.training.micro_batches import mean_loss_backward, step_limit


def sgd_of(model: nn.Module, settings: Any, device: torch.device) -> torch.optim.SGD:
    """SGD with the `learning_rate`, `momentum` and `weight_decay` of some settings.

    On a GPU the rate is a tensor there and the update one kernel, so that a captured step follows a changed rate. On a
    CPU neither `foreach` nor `fused` is faster (0.99 to 1.08 of a step's CPU time).
    """
    rate, on_gpu = settings.learning_rate, device.type == "cuda"
    return torch.optim.SGD(
        model.parameters(),
        lr=torch.tensor(rate, device=device) if on_gpu else rate,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
        fused=True if on_gpu else None,
    )


class PlainStep:
    """A step whose operations are launched one by one; nothing waits for the device.

    With `precision` bfloat16 the passes through the network run under autocast. A mini-batch that does not fit into
    memory is cut (`micro_batches`).
    """

    captured = False

    def __init__(
        self,
        model: nn.Module,
        loss: Loss,
        optimizer: torch.optim.Optimizer,
        examples: Examples,
        precision: str = "float32",
    ):
        self._model, self._loss, self._optimizer, self._examples = model, loss, optimizer, examples
        self._mixed, self._limit = precision == "bfloat16", step_limit(model)

    def set_rate(self, rate: float) -> None:
        """The learning rate of the steps to come."""
        for group in self._optimizer.param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate

    def __call__(self, indices: Tensor | None) -> tuple[Tensor, Tensor]:
        """Trains on the examples of these indices (m,), None for all; their mean loss and the number of right answers.

        The network is in training mode. Both results are scalars on the device, from before the update.
        """
        return self._take(indices, self._limit)

    def _take(self, indices: Tensor | None, limit: BatchLimit) -> tuple[Tensor, Tensor]:
        inputs, targets = self._examples.inputs, self._examples.targets
        if indices is not None:
            # On a CPU 4 to 6 times as fast as inputs[indices].
            inputs, targets = inputs.index_select(0, indices), targets.index_select(0, indices)
        value, outputs = mean_loss_backward(self._model, self._loss, inputs, targets, limit, self._mixed)
        self._optimizer.step()
        return value, correct(outputs, targets, self._loss).sum()
