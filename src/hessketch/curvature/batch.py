"""One batch of examples: its network, its loss, and the small matrices between outputs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge

from hessketch.errors import InputError, NotFiniteError

Pieces = Sequence[Tensor]  # one tensor a parameter, in its shape
Root = TypeVar("Root", Tensor, GradientEdge)


@dataclass(frozen=True)
class Batch:
    """What a product of one batch is made from."""

    network: Callable[[Pieces], Tensor]  # outputs of the batch's inputs, from parameters
    parameters: Pieces  # leaves that require gradients
    loss: Callable[[Tensor], Tensor]  # sum of the examples' losses, from outputs
    fixed: Pieces  # tensors that exist anyway: parameters, buffers


class Product(Protocol):
    """A batch's curvature matrix, summed over its examples, which multiplies vectors given in pieces."""

    def __call__(self, vector: Pieces) -> list[Tensor]: ...

    def kept_bytes(self) -> int:
        """Memory of what is kept between vectors, parameters and buffers aside."""
        ...


def require_finite(outputs: Tensor) -> Tensor:
    """The outputs; raises NotFiniteError when they hold NaN or infinity, InputError when they are no tensor."""
    if not isinstance(outputs, Tensor):
        raise InputError(f"the network returns {type(outputs).__name__}; wrap it so that it returns one tensor")
    if not torch.isfinite(outputs.detach()).all():
        raise NotFiniteError("the network's outputs hold NaN or infinity: its weights have diverged, or its inputs do")
    return outputs


def edges(tensors: Sequence[Tensor | None]) -> list[GradientEdge | None]:
    """Where derivatives of `tensors` start; their values need not be kept. None where there is no graph."""
    return [None if t is None or not t.requires_grad else get_gradient_edge(t) for t in tensors]


def vector_jacobian(outputs: Sequence[Root | None], inputs: Pieces, weights: Pieces, **options: bool) -> list[Tensor]:
    """Gradient of sum <outputs, weights> in the inputs; outputs may be edges, constants among them contribute zero."""
    live = [
        (o, w)
        for o, w in zip(outputs, weights, strict=True)
        if o is not None and (isinstance(o, GradientEdge) or o.requires_grad)
    ]
    if not live:
        return [torch.zeros_like(i) for i in inputs]
    found = torch.autograd.grad([o for o, _ in live], inputs, [w for _, w in live], allow_unused=True, **options)
    return [torch.zeros_like(i) if g is None else g for g, i in zip(found, inputs, strict=True)]


def loss_slope(batch: Batch, outputs: Tensor) -> Tensor:
    """Slope of the summed loss in the outputs, a constant."""
    return _slope(batch, outputs, keep_graph=False)[1].detach()


def _slope(batch: Batch, outputs: Tensor, keep_graph: bool) -> tuple[Tensor, Tensor]:
    """The outputs as a leaf of their own, and the loss's slope there."""
    leaf = outputs.detach().requires_grad_()
    with torch.enable_grad():
        loss = batch.loss(leaf)
        return leaf, vector_jacobian([loss], [leaf], [torch.ones_like(loss)], create_graph=keep_graph)[0]


def loss_gradient(batch: Batch) -> list[Tensor]:
    """Gradient of the batch's summed loss."""
    with torch.enable_grad():
        loss = batch.loss(require_finite(batch.network(batch.parameters)))
    return vector_jacobian([loss], batch.parameters, [torch.ones_like(loss)])


def output_hessian(batch: Batch, outputs: Tensor) -> Callable[[Tensor], Tensor]:
    """The loss's Hessian in the outputs, as a product with tangents of the outputs' shape."""
    leaf, slope = _slope(batch, outputs, keep_graph=True)
    return lambda tangent: vector_jacobian([slope], [leaf], [tangent], retain_graph=True)[0]


def slope_outer_product(batch: Batch, outputs: Tensor) -> Callable[[Tensor], Tensor]:
    """s s^T of each example (the first axis), s the loss's slope, as a product."""
    slope = loss_slope(batch, outputs)
    each = slope.flatten(1) if slope.ndim > 1 else slope[:, None]

    def multiply(tangent: Tensor) -> Tensor:
        inner = (each.double() * tangent.reshape(each.shape).double()).sum(1, keepdim=True)
        return (each * inner.to(each)).reshape(slope.shape)

    return multiply
