"""Curvature products from recorded tangents (`tangents`): the cheapest for many products with one batch.

In gradients of the batch, on one CPU thread: Hessian and residual 1.7 to 2.1 (1.9 to 2.4 from autograd's own graph, 2.9
to 3.5 from scratch), ggn and second moment 1.1 to 1.3, Hessian, ggn and residual of one vector 2.3 to 2.8. A network
without forward mode goes by autograd's graph instead (`graphs`).
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.autograd.graph import GradientEdge

from hessketch.curvature.batch import Batch, Pieces, edges, loss_slope, output_hessian, require_finite, vector_jacobian
from hessketch.curvature.graphs import GradientGraph
from hessketch.curvature.memory import saved_tensors, storage_bytes
from hessketch.curvature.tangents import TangentsUnsupported, TangentTape, record_tangents


class _Taped:
    """A batch's tape, recorded with its first vector, or autograd's graph where forward mode is missing."""

    def __init__(self, batch: Batch):
        self._batch = batch
        self._tape: TangentTape | None = None
        self._graph: GradientGraph | None = None
        self._outputs: list[GradientEdge | None] = []  # where a pass backwards from the outputs starts, if one is made

    def kept_bytes(self) -> int:
        """Memory of what is kept, parameters and buffers aside."""
        if self._graph is not None:
            return self._graph.kept_bytes()
        constants = [] if self._tape is None else self._tape.constants()
        saved = saved_tensors(e.node for e in self._outputs if e is not None)
        return storage_bytes([*constants, *saved], self._batch.fixed)


class GradientTape(_Taped):
    """Multiplies by the derivative of J^T s: the Hessian with s = s(theta), the residual with s held fixed."""

    def __init__(self, batch: Batch, fixed_slope: bool):
        super().__init__(batch)
        self._fixed_slope = fixed_slope

    def __call__(self, vector: Pieces) -> list[Tensor]:
        """The product with `vector`."""
        if self._graph is not None:
            return self._graph(vector)
        if self._tape is not None:
            return self._tape.play(vector)
        try:
            _, tangents, self._tape = record_tangents(self._gradient, self._batch.parameters, vector)
            return tangents
        except TangentsUnsupported:
            self._graph = GradientGraph(self._batch, self._fixed_slope)
            return self._graph(vector)

    def _gradient(self, parameters: Pieces) -> list[Tensor]:
        outputs = require_finite(self._batch.network(parameters))
        slope = _fixed_slope(self._batch, outputs)
        primal, tangent = forward_ad.unpack_dual(outputs)
        if not self._fixed_slope and tangent is not None:
            # The slope moves by L J v; by reverse mode, since not every loss has a forward one.
            slope = forward_ad.make_dual(slope, output_hessian(self._batch, primal)(tangent))
        return vector_jacobian([outputs], parameters, [slope])


def _fixed_slope(batch: Batch, outputs: Tensor) -> Tensor:
    return loss_slope(batch, forward_ad.unpack_dual(outputs).primal)


class OutputsTape(_Taped):
    """Multiplies by J^T M J for a matrix M between outputs of the same example, given by its product."""

    def __init__(self, batch: Batch, between: Callable[[Batch, Tensor], Callable[[Tensor], Tensor]]):
        super().__init__(batch)
        self._make_between = between

    def __call__(self, vector: Pieces, chosen: Sequence[int] | None = None) -> list[Tensor]:
        """The product with `vector`; with `chosen`, that of the diagonal block of these parameters alone."""
        parameters = self._batch.parameters
        if chosen is not None:
            given = dict(zip(chosen, vector, strict=True))
            vector = [given.get(i, torch.zeros_like(p)) for i, p in enumerate(parameters)]
            parameters = [parameters[i] for i in chosen]
        tangent = self._tangent(vector)
        return vector_jacobian(self._outputs, parameters, [self._between(tangent)], retain_graph=True)

    def _tangent(self, vector: Pieces) -> Tensor:
        if self._graph is not None:
            return self._graph.with_tangent(vector)[1]
        if self._tape is not None:
            return self._tape.play(vector)[0]
        try:
            (outputs,), (tangent,), self._tape = record_tangents(
                lambda parameters: [self._batch.network(parameters)], self._batch.parameters, vector
            )
            self._outputs = edges([require_finite(outputs)])
        except TangentsUnsupported:
            # Twice backwards instead: J v is the derivative of J^T s in s.
            self._graph = GradientGraph(self._batch, fixed_slope=True)
            outputs, self._outputs = self._graph.outputs, self._graph.outputs_edges
            tangent = self._graph.with_tangent(vector)[1]
        self._between = self._make_between(self._batch, outputs)
        return tangent


class ComponentsTape(_Taped):
    """GGN and residual of the same vector: the residual's tape gives J v on its way, the GGN adds a pass backwards."""

    def __call__(self, vector: Pieces) -> list[Tensor]:
        """The pieces of the GGN's product, then those of the residual's."""
        residual, tangent = self._residual_and_tangent(vector)
        ggn = vector_jacobian(self._outputs, self._batch.parameters, [self._between(tangent)], retain_graph=True)
        return [*ggn, *residual]

    def _residual_and_tangent(self, vector: Pieces) -> tuple[list[Tensor], Tensor]:
        if self._graph is not None:
            return self._graph.with_tangent(vector)
        if self._tape is not None:
            *residual, tangent = self._tape.play(vector)
            return residual, tangent
        try:
            values, tangents, self._tape = record_tangents(self._gradient_and_outputs, self._batch.parameters, vector)
            outputs, self._outputs = values[-1], edges(values[-1:])
            residual, tangent = tangents[:-1], tangents[-1]
        except TangentsUnsupported:
            self._graph = GradientGraph(self._batch, fixed_slope=True)
            outputs, self._outputs = self._graph.outputs, self._graph.outputs_edges
            residual, tangent = self._graph.with_tangent(vector)
        self._between = output_hessian(self._batch, outputs)
        return residual, tangent

    def _gradient_and_outputs(self, parameters: Pieces) -> list[Tensor]:
        outputs = require_finite(self._batch.network(parameters))
        slope = _fixed_slope(self._batch, outputs)
        return [*vector_jacobian([outputs], parameters, [slope], retain_graph=True), outputs]
