"""A network as a function of one flat vector of parameters and of its buffers."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call

from hessketch.networks.layers import has_batch_norm

Buffers = dict[str, Tensor]


class FlatNetwork:
    """outputs = network(theta, buffers, inputs) for theta (p,) in the order of `named_parameters`.

    The module itself only lends its structure: neither its parameters nor its buffers change, until `load`.
    """

    def __init__(self, model: nn.Module):
        self.model = model
        self._shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
        self._sizes = [shape.numel() for shape in self._shapes.values()]
        self.dimension = sum(self._sizes)
        self.has_batch_norm = has_batch_norm(model)

    def theta(self) -> Tensor:
        """The module's parameters as one vector (p,), a copy."""
        return torch.cat([parameter.detach().reshape(-1) for parameter in self.model.parameters()])

    def buffers(self) -> Buffers:
        """Copies of the module's buffers: running statistics of batch norm."""
        return {name: buffer.detach().clone() for name, buffer in self.model.named_buffers()}

    def load(self, theta: Tensor, buffers: Mapping[str, Tensor]) -> None:
        """Puts parameters and buffers into the module."""
        with torch.no_grad():
            for parameter, piece in zip(self.model.parameters(), theta.split(self._sizes), strict=True):
                parameter.copy_(piece.view_as(parameter))
            for name, buffer in self.model.named_buffers():
                buffer.copy_(buffers[name])

    def __call__(self, theta: Tensor, buffers: Buffers, inputs: Tensor) -> Tensor:
        """Outputs in training mode; batch norm updates the given buffers in place."""
        pieces = theta.split(self._sizes)
        parameters = {
            name: piece.view(shape) for (name, shape), piece in zip(self._shapes.items(), pieces, strict=True)
        }
        return functional_call(self.model, {**parameters, **buffers}, (inputs,))
