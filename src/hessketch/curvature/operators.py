r"""The Hessian of a mean loss and its two Gauss-Newton components, as operators.

With outputs f(x; theta) in R^C, per-example loss l and n examples,

    hessian  = (1/n) sum_i d2 l_i / d theta2
    ggn      = (1/n) sum_i J_i^T (d2 l_i / d f2) J_i           (paper: "covariance of gradients")
    residual = (1/n) sum_i sum_k (d l_i / d f_k) d2 f_ik        (paper: "averaged Hessian of predictions")

and hessian = ggn + residual exactly (Papyan 2018, equation 4). Every product is exact, by reverse mode over
reverse mode; no finite differences. A regulariser of the training (weight decay) is not part of the loss here.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from hessketch.curvature.losses import Loss
from hessketch.errors import InputError, NotFiniteError

Batch = tuple[Tensor, Tensor]
Product = Callable[[list[Tensor]], Sequence[Tensor]]


def _vector_jacobian(outputs: Sequence[Tensor], inputs: Sequence[Tensor], weights, **options):
    """Gradient of sum <outputs, weights> in the inputs; constants among the outputs contribute zero."""
    live = [(o, w) for o, w in zip(outputs, weights, strict=True) if o.requires_grad]
    if not live:
        return [torch.zeros_like(i) for i in inputs]
    return torch.autograd.grad(
        [o for o, _ in live],
        inputs,
        [w for _, w in live],
        allow_unused=True,
        materialize_grads=True,
        **options,
    )


def hessian_product(outputs: Tensor, targets: Tensor, loss: Loss, parameters: list[Tensor]) -> Product:
    """Builds the graph of the summed loss's gradient once; the result multiplies by its derivative."""
    gradient = torch.autograd.grad(loss(outputs, targets).sum(), parameters, create_graph=True)
    return lambda vector: _vector_jacobian(gradient, parameters, vector, retain_graph=True)


def residual_product(outputs: Tensor, targets: Tensor, loss: Loss, parameters: list[Tensor]) -> Product:
    """As `hessian_product`, with the loss's slope in the outputs held constant."""
    leaf = outputs.detach().requires_grad_()
    slope = torch.autograd.grad(loss(leaf, targets).sum(), leaf)[0]
    gradient = _vector_jacobian([outputs], parameters, [slope], create_graph=True)
    return lambda vector: _vector_jacobian(gradient, parameters, vector, retain_graph=True)


def ggn_product(outputs: Tensor, targets: Tensor, loss: Loss, parameters: list[Tensor]) -> Product:
    """J^T (d2l/df2) J: the forward derivative J v by differentiating J^T z in the dummy z."""
    dummy = torch.zeros_like(outputs, requires_grad=True)
    pulled_back = _vector_jacobian([outputs], parameters, [dummy], create_graph=True)
    leaf = outputs.detach().requires_grad_()
    slope = torch.autograd.grad(loss(leaf, targets).sum(), leaf, create_graph=True)[0]

    def product(vector: list[Tensor]) -> Sequence[Tensor]:
        tangent = _vector_jacobian(pulled_back, [dummy], vector, retain_graph=True)[0]
        curved = _vector_jacobian([slope], [leaf], [tangent], retain_graph=True)[0]
        return _vector_jacobian([outputs], parameters, [curved], retain_graph=True)

    return product


_PRODUCTS = {"hessian": hessian_product, "ggn": ggn_product, "residual": residual_product}
OPERATORS = tuple(_PRODUCTS)


class CurvatureOperator:
    """A symmetric (p, p) map on flat parameter vectors: the mean over all examples of a batch's product.

    `operator @ v` takes a vector (p,) or a block (p, k) in the parameters' dtype and device. The order of the
    entries is that of `model.parameters()`, each flattened row by row (`parameter_shapes` tells them).

    With a single batch its graph is built once and kept, which saves about a third of every product and needs
    no more memory than one product does; with several batches each graph is rebuilt and freed in turn.
    """

    def __init__(self, name: str, model: nn.Module, loss: Loss, batches: Sequence[Batch]):
        """Raises InputError for an unknown name, no data, no parameters, or a network in training mode."""
        if name not in _PRODUCTS:
            raise InputError(f"operator {name!r} is unknown; allowed: {', '.join(_PRODUCTS)}")
        if model.training:
            raise InputError("curvature is taken with batch norm frozen: call model.eval() first")
        self.name = name
        self._model, self._loss, self._batches = model, loss, batches
        self._parameters = [p for p in model.parameters() if p.requires_grad]
        if not self._parameters:
            raise InputError("the network has no parameter that requires a gradient")
        self.examples = sum(len(targets) for _, targets in batches)
        if self.examples == 0:
            raise InputError("no examples given: an average over nothing is undefined")
        self.parameter_shapes = {n: tuple(p.shape) for n, p in model.named_parameters() if p.requires_grad}
        size = sum(p.numel() for p in self._parameters)
        self.shape = (size, size)
        self.dtype, self.device = self._parameters[0].dtype, self._parameters[0].device
        self._kept = self._batch_product(batches[0]) if len(batches) == 1 else None

    def _batch_product(self, batch: Batch) -> Product:
        inputs, targets = batch
        outputs = self._model(inputs)
        if not torch.isfinite(outputs).all():
            raise NotFiniteError("the network's outputs hold NaN or infinity: its weights have diverged")
        return _PRODUCTS[self.name](outputs, targets, self._loss, self._parameters)

    def _multiply(self, vector: Tensor) -> Tensor:
        pieces = [
            piece.view_as(p)
            for piece, p in zip(vector.split([p.numel() for p in self._parameters]), self._parameters, strict=True)
        ]
        total = torch.zeros_like(vector)
        for batch in self._batches:
            product = self._kept or self._batch_product(batch)
            total += torch.cat([part.reshape(-1) for part in product(pieces)])
        return total / self.examples

    def __matmul__(self, other: Tensor) -> Tensor:
        if other.shape[0] != self.shape[1] or other.ndim > 2:
            raise InputError(
                f"cannot multiply an operator of shape {self.shape} with a tensor of shape {tuple(other.shape)}"
            )
        other = other.to(device=self.device, dtype=self.dtype)
        if other.ndim == 1:
            return self._multiply(other.contiguous())
        return torch.stack([self._multiply(column.contiguous()) for column in other.T], dim=1)


def hessian(model: nn.Module, loss: Loss, batches: Sequence[Batch]) -> CurvatureOperator:
    """Hessian of the mean loss over `batches` of (inputs, targets); see `CurvatureOperator`."""
    return CurvatureOperator("hessian", model, loss, batches)


def ggn(model: nn.Module, loss: Loss, batches: Sequence[Batch]) -> CurvatureOperator:
    """Generalised Gauss-Newton matrix of the mean loss; see `CurvatureOperator`."""
    return CurvatureOperator("ggn", model, loss, batches)


def residual(model: nn.Module, loss: Loss, batches: Sequence[Batch]) -> CurvatureOperator:
    """Hessian minus GGN: the averaged Hessian of predictions; see `CurvatureOperator`."""
    return CurvatureOperator("residual", model, loss, batches)
