"""The gradient of a mini-batch, in micro-batches where memory does not suffice for the whole."""

import torch
from torch import Tensor, nn

from hessketch.curvature.halving import BatchLimit
from hessketch.curvature.losses import Loss
from hessketch.networks.layers import has_batch_norm

_BATCH_NORM = "batch norm takes its statistics over a whole one, so that halves would train another network"
_REMEDY = (
    "lower the batch size (training.batch_size, of a followed training its study's batch_size or batch_sizes), or take "
    "a narrower network, norm group or none, which let a mini-batch be cut, or a device with more memory"
)


def step_limit(model: nn.Module) -> BatchLimit:
    """How many examples of a mini-batch go through the network at once; with batch norm all of it or none."""
    return BatchLimit("mini-batches of {} examples", _REMEDY, whole=_BATCH_NORM if has_batch_norm(model) else None)


def mean_loss_backward(
    model: nn.Module, loss: Loss, inputs: Tensor, targets: Tensor, limit: BatchLimit, mixed: bool = False
) -> tuple[Tensor, Tensor]:
    """Leaves the gradients of the mean loss in `.grad`, where others are dropped; gives that loss, and the outputs.

    Both on the device, detached. `mixed` takes the passes through the network in bfloat16 where that is sound
    (autocast), loss, parameters and gradients in float32. Where memory runs out the mini-batch is cut into
    micro-batches of half the size, whose gradients are added: the same up to rounding. Raises InputError where it
    cannot be cut (`step_limit`).
    """

    def backward(size: int) -> tuple[Tensor, Tensor]:
        model.zero_grad(set_to_none=True)
        values, found = [], []
        for part, labels in zip(inputs.split(size), targets.split(size), strict=True):
            # No weight is used twice: a cache of casts would only hold memory.
            with torch.autocast(part.device.type, torch.bfloat16, enabled=mixed, cache_enabled=False):
                outputs = model(part)
            outputs = outputs.float() if mixed else outputs
            value = loss(outputs, labels).mean()
            if len(labels) < len(targets):
                value = value * (len(labels) / len(targets))
            value.backward()
            values.append(value.detach())
            found.append(outputs.detach())
        return (values[0], found[0]) if len(values) == 1 else (torch.stack(values).sum(), torch.cat(found))

    return limit.run(backward, len(targets))
