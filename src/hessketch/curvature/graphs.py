"""Curvature products from autograd's own graph of a gradient: built once a batch, differentiated for each vector.

Two gradients a product, and one more to build the graph. Taken where a tape (`tapes`) is not worth its recording, or
not possible: for batches that are rebuilt at each product, for diagonal blocks, of which autograd computes no more than
it needs, and for networks without forward mode.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from hessketch.curvature.batch import Batch, Pieces, edges, loss_slope, require_finite, vector_jacobian
from hessketch.curvature.memory import saved_tensors, storage_bytes


class GradientGraph:
    """Multiplies by the derivative of J^T s: the Hessian with s = s(theta), the residual with s held fixed."""

    def __init__(self, batch: Batch, fixed_slope: bool):
        self._batch, self.parameters = batch, batch.parameters
        with torch.enable_grad():
            outputs = require_finite(batch.network(batch.parameters))
            self.outputs, self.outputs_edges = outputs.detach(), edges([outputs])
            if fixed_slope:
                self._slope = loss_slope(batch, outputs).requires_grad_()
                gradient = vector_jacobian([outputs], batch.parameters, [self._slope], create_graph=True)
            else:
                loss = batch.loss(outputs)
                gradient = vector_jacobian([loss], batch.parameters, [torch.ones_like(loss)], create_graph=True)
        self._gradient = edges(gradient)

    def __call__(self, vector: Pieces, chosen: Sequence[int] | None = None) -> list[Tensor]:
        """The product with `vector`; with `chosen`, that of the diagonal block of these parameters alone."""
        gradient, parameters = self._gradient, self._batch.parameters
        if chosen is not None:
            gradient, parameters = [gradient[i] for i in chosen], [parameters[i] for i in chosen]
        return vector_jacobian(gradient, parameters, vector, retain_graph=True)

    def with_tangent(self, vector: Pieces) -> tuple[list[Tensor], Tensor]:
        """The product, and J v, which the same pass meets on its way (with a fixed slope only)."""
        *product, tangent = vector_jacobian(
            self._gradient, [*self._batch.parameters, self._slope], vector, retain_graph=True
        )
        return product, tangent

    def kept_bytes(self) -> int:
        nodes = [e.node for e in [*self._gradient, *self.outputs_edges] if e is not None]
        return storage_bytes(saved_tensors(nodes), self._batch.fixed)
