r"""Products of one batch of examples with its curvature matrices, summed over the batch.

With outputs f(theta), loss l, its slope s = dl/df and its output Hessian L = d2l/df2 (all of one example i):

    hessian        sum_i d2 l_i / d theta2                = d/dtheta <J^T s, .>  with s a function of theta
    residual       sum_i sum_k s_ik d2 f_ik               = d/dtheta <J^T s, .>  with s held fixed
    ggn            sum_i J_i^T L_i J_i
    second_moment  sum_i J_i^T s_i s_i^T J_i, since an example's loss gradient is J_i^T s_i

The first two differentiate a kept graph of the gradient (2 gradients a product, 3 from scratch). The last two need J v,
kept as a tape (`tangents`), and one pass backwards: together 1.1 to 1.3 gradients, 2.2 to 2.7 in curvlinops. No
per-example gradient is ever formed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge

from hessketch.curvature.memory import saved_tensors, storage_bytes
from hessketch.curvature.tangents import TangentsUnsupported, TangentTape, record_tangents
from hessketch.errors import NotFiniteError

Pieces = Sequence[Tensor]  # one tensor a parameter, in its shape


@dataclass(frozen=True)
class Batch:
    """What a product of one batch is made from."""

    network: Callable[[Pieces], Tensor]  # outputs of the batch's inputs, from parameters
    parameters: Pieces  # leaves that require gradients
    loss: Callable[[Tensor], Tensor]  # sum of the examples' losses, from outputs
    fixed: Pieces  # tensors that exist anyway: parameters, buffers

    def outputs(self) -> Tensor:
        return _finite(self.network(self.parameters))


def _finite(outputs: Tensor) -> Tensor:
    if not torch.isfinite(outputs).all():
        raise NotFiniteError("the network's outputs hold NaN or infinity: its weights have diverged")
    return outputs


def _edges(tensors: Sequence[Tensor | None]) -> list[GradientEdge | None]:
    """Where derivatives of `tensors` start; their values need not be kept. None where there is no graph."""
    return [None if t is None or not t.requires_grad else get_gradient_edge(t) for t in tensors]


def vector_jacobian(outputs, inputs: Pieces, weights: Pieces, **options) -> list[Tensor]:
    """Gradient of sum <outputs, weights> in the inputs; outputs may be edges, constants among them contribute zero."""
    live = [(o, w) for o, w in zip(outputs, weights, strict=True) if isinstance(o, GradientEdge) or _has_graph(o)]
    if not live:
        return [torch.zeros_like(i) for i in inputs]
    found = torch.autograd.grad([o for o, _ in live], inputs, [w for _, w in live], allow_unused=True, **options)
    return [torch.zeros_like(i) if g is None else g for g, i in zip(found, inputs, strict=True)]


def _has_graph(tensor: Tensor | None) -> bool:
    return tensor is not None and tensor.requires_grad


def _slope(batch: Batch, outputs: Tensor, keep_graph: bool) -> tuple[Tensor, Tensor]:
    """The outputs as a leaf of their own, and the loss's slope there."""
    leaf = outputs.detach().requires_grad_()
    with torch.enable_grad():
        return leaf, vector_jacobian([batch.loss(leaf)], [leaf], [_one(leaf)], create_graph=keep_graph)[0]


def _one(like: Tensor) -> Tensor:
    return torch.ones((), dtype=like.dtype, device=like.device)


def loss_gradient(batch: Batch) -> list[Tensor]:
    """Gradient of the batch's summed loss."""
    with torch.enable_grad():
        loss = batch.loss(batch.outputs())
    return vector_jacobian([loss], batch.parameters, [torch.ones_like(loss)])


class SecondOrder:
    """Multiplies by the derivative of J^T s: the Hessian, or with a slope held fixed the residual."""

    def __init__(self, batch: Batch, fixed_slope: bool):
        self._batch = batch
        with torch.enable_grad():
            outputs = batch.outputs()
            self.outputs, self.outputs_edges = outputs.detach(), _edges([outputs])
            if fixed_slope:
                self._slope = _slope(batch, outputs, keep_graph=False)[1].detach().requires_grad_()
                gradient = vector_jacobian([outputs], batch.parameters, [self._slope], create_graph=True)
            else:
                loss = batch.loss(outputs)
                gradient = vector_jacobian([loss], batch.parameters, [_one(outputs)], create_graph=True)
        self._gradient = _edges(gradient)

    def __call__(self, vector: Pieces, chosen: Sequence[int] | None = None) -> list[Tensor]:
        """The product with `vector`; with `chosen`, that of the diagonal block of these parameters alone."""
        return vector_jacobian(
            self._of(self._gradient, chosen), self._of(self._batch.parameters, chosen), vector, retain_graph=True
        )

    def with_tangent(self, vector: Pieces) -> tuple[list[Tensor], Tensor]:
        """The product, and J v, which the same pass meets on its way (with a fixed slope only)."""
        *product, tangent = vector_jacobian(
            self._gradient, [*self._batch.parameters, self._slope], vector, retain_graph=True
        )
        return product, tangent

    @staticmethod
    def _of(items: Sequence, chosen: Sequence[int] | None) -> Sequence:
        return items if chosen is None else [items[i] for i in chosen]

    def kept_bytes(self) -> int:
        edges = [e.node for e in [*self._gradient, *self.outputs_edges] if e is not None]
        return storage_bytes(saved_tensors(edges), self._batch.fixed)


class FirstOrder:
    """Multiplies by J^T M J for a matrix M between outputs of the same example, given by its product."""

    def __init__(self, batch: Batch, between: Callable[[Batch, Tensor], Callable[[Tensor], Tensor]]):
        self._batch, self._make_between = batch, between
        self._tape: TangentTape | None = None
        self._by_gradient: SecondOrder | None = None
        self._outputs: list[GradientEdge | None] = []

    def __call__(self, vector: Pieces, chosen: Sequence[int] | None = None) -> list[Tensor]:
        """The product with `vector`; with `chosen`, that of the diagonal block of these parameters alone."""
        parameters = self._batch.parameters
        if chosen is not None:
            given = dict(zip(chosen, vector, strict=True))
            vector = [given.get(i, torch.zeros_like(p)) for i, p in enumerate(parameters)]
            parameters = [parameters[i] for i in chosen]
        tangent = self._tangent(vector)
        if tangent is None:
            return [torch.zeros_like(p) for p in parameters]
        return vector_jacobian(self._outputs, parameters, [self._between(tangent)], retain_graph=True)

    def _tangent(self, vector: Pieces) -> Tensor | None:
        if self._by_gradient is not None:
            return self._by_gradient.with_tangent(vector)[1]
        if self._tape is not None:
            with torch.no_grad():
                return self._tape.play(vector)
        try:
            outputs, tangent, self._tape = record_tangents(self._batch.network, self._batch.parameters, vector)
        except TangentsUnsupported:
            # Twice backwards instead: J v is the derivative of J^T s in s.
            self._by_gradient = SecondOrder(self._batch, fixed_slope=True)
            outputs, self._outputs = self._by_gradient.outputs, self._by_gradient.outputs_edges
            tangent = self._by_gradient.with_tangent(vector)[1]
        else:
            self._outputs = _edges([_finite(outputs)])
        self._between = self._make_between(self._batch, outputs)
        return tangent

    def kept_bytes(self) -> int:
        tensors = saved_tensors(e.node for e in self._outputs if e is not None)
        tensors += self._tape.constants() if self._tape is not None else []
        other = self._by_gradient.kept_bytes() if self._by_gradient is not None else 0
        return storage_bytes(tensors, self._batch.fixed) + other


def output_hessian(batch: Batch, outputs: Tensor) -> Callable[[Tensor], Tensor]:
    """L: the loss's Hessian in the outputs."""
    leaf, slope = _slope(batch, outputs, keep_graph=True)
    return lambda tangent: vector_jacobian([slope], [leaf], [tangent], retain_graph=True)[0]


def slope_outer_product(batch: Batch, outputs: Tensor) -> Callable[[Tensor], Tensor]:
    """s s^T of each example (the first axis)."""
    slope = _slope(batch, outputs, keep_graph=False)[1].detach()
    each = slope.flatten(1) if slope.ndim > 1 else slope[:, None]

    def multiply(tangent: Tensor) -> Tensor:
        inner = (each.double() * tangent.reshape(each.shape).double()).sum(1, keepdim=True)
        return (each * inner.to(each)).reshape(slope.shape)

    return multiply


class Components:
    """Hessian, GGN and residual of the same vector in one pass: 2.4 to 3.1 gradients, 9.8 one after the other.

    The residual's pass gives J v on its way; the GGN adds one pass backwards, and the Hessian is their sum.
    """

    def __init__(self, batch: Batch):
        self._residual = SecondOrder(batch, fixed_slope=True)
        self._parameters = batch.parameters
        self._between = output_hessian(batch, self._residual.outputs)

    def __call__(self, vector: Pieces, chosen: None = None) -> list[Tensor]:
        """The pieces of the GGN's product, then those of the residual's."""
        residual, tangent = self._residual.with_tangent(vector)
        outputs = self._residual.outputs_edges
        ggn = vector_jacobian(outputs, self._parameters, [self._between(tangent)], retain_graph=True)
        return [*ggn, *residual]

    def kept_bytes(self) -> int:
        return self._residual.kept_bytes()


PRODUCTS: dict[str, Callable[[Batch], SecondOrder | FirstOrder]] = {
    "hessian": lambda batch: SecondOrder(batch, fixed_slope=False),
    "ggn": lambda batch: FirstOrder(batch, output_hessian),
    "residual": lambda batch: SecondOrder(batch, fixed_slope=True),
    "second_moment": lambda batch: FirstOrder(batch, slope_outer_product),
}
