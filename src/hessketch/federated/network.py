"""A network as a function of one flat vector of parameters and of its buffers."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call

from hessketch.curvature.halving import BatchLimit
from hessketch.networks.layers import has_batch_norm

Buffers = dict[str, Tensor]

_BATCH_NORM = "batch norm takes its statistics over all of them, so that halves would train another network"
_REMEDY = (
    "lower federated.local_batch_size or take more clients, so that each step has fewer examples, or take norm group, "
    "a narrower network or a device with more memory"
)


class FlatNetwork:
    """outputs = network(theta, buffers, inputs) for theta (p,) in the order of `named_parameters`.

    The module itself only lends its structure: neither its parameters nor its buffers change, until `load`. What did
    not fit into memory at once is remembered in its limits.
    """

    def __init__(self, model: nn.Module):
        self.model = model
        self._shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
        self._sizes = [shape.numel() for shape in self._shapes.values()]
        self.dimension = sum(self._sizes)
        self.has_batch_norm = has_batch_norm(model)
        # Of a chunk of clients, and of the examples of one client in a step.
        self.clients_limit = BatchLimit("chunks of {} clients", _REMEDY)
        whole = _BATCH_NORM if self.has_batch_norm else None
        self.examples_limit = BatchLimit("{} examples of a client's step", _REMEDY, whole)

    def theta(self) -> Tensor:
        """The module's parameters as one vector (p,), a copy."""
        return torch.cat([parameter.detach().reshape(-1) for parameter in self.model.parameters()])

    def buffers(self) -> Buffers:
        """Copies of the module's buffers: running statistics of batch norm."""
        return {name: buffer.detach().clone() for name, buffer in self.model.named_buffers()}

    def load(self, theta: Tensor, buffers: Mapping[str, Tensor]) -> None:
        """Puts parameters and buffers into the module."""
        with torch.no_grad():
            for parameter, piece in zip(self.model.parameters(), torch.split(theta, self._sizes), strict=True):
                parameter.copy_(piece.view_as(parameter))
            for name, buffer in self.model.named_buffers():
                buffer.copy_(buffers[name])

    def __call__(self, theta: Tensor, buffers: Buffers, inputs: Tensor) -> Tensor:
        """Outputs in training mode; batch norm updates the given buffers in place."""
        pieces = torch.split(theta, self._sizes)
        parameters = {
            name: piece.view(shape) for (name, shape), piece in zip(self._shapes.items(), pieces, strict=True)
        }
        outputs: Tensor = functional_call(self.model, {**parameters, **buffers}, (inputs,))
        return outputs
