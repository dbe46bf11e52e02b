"""Products from scratch, in plain torch: nothing is kept between vectors.

These are what a library that keeps nothing costs, and what the released code of Papyan 2018 does: its three
operators are multiplied one after the other, each with a forward pass and graphs of its own. Same signature as the
makers in `peers`.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

Batch = tuple[Tensor, Tensor]
BatchProduct = Callable[[Tensor, Tensor, list[Tensor], list[Tensor]], Sequence[Tensor]]


def pieces_like(vector: Tensor, parameters: Sequence[Tensor]) -> list[Tensor]:
    """A flat vector (p,) cut into the parameters' shapes, without a copy."""
    cut = vector.split([p.numel() for p in parameters])
    return [piece.view_as(p) for piece, p in zip(cut, parameters, strict=True)]


def flat(parts: Sequence[Tensor]) -> Tensor:
    """The parameters' shapes as one vector (p,)."""
    return torch.cat([part.reshape(-1) for part in parts])


def _summed_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    return functional.cross_entropy(outputs, targets, reduction="sum")


def _mean_over_batches(model: nn.Module, batches: Sequence[Batch], of_batch: BatchProduct) -> Callable:
    """A flat product from one that sums over the examples of a batch."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    examples = sum(len(targets) for _, targets in batches)

    def product(vector: Tensor) -> Tensor:
        pieces = pieces_like(vector, parameters)
        total = sum(flat(of_batch(model(inputs), targets, parameters, pieces)) for inputs, targets in batches)
        return total / examples

    return product


def gradient(model: nn.Module, batches: Sequence[Batch]) -> Callable:
    """The gradient of the mean loss, whatever the vector: the unit in which products are counted."""
    return _mean_over_batches(
        model, batches, lambda outputs, targets, w, v: torch.autograd.grad(_summed_loss(outputs, targets), w)
    )


def _hessian(outputs: Tensor, targets: Tensor, parameters: list[Tensor], v: list[Tensor]) -> Sequence[Tensor]:
    slope = torch.autograd.grad(_summed_loss(outputs, targets), parameters, create_graph=True)
    return torch.autograd.grad(slope, parameters, v)


def _ggn(outputs: Tensor, targets: Tensor, parameters: list[Tensor], v: list[Tensor]) -> Sequence[Tensor]:
    """J^T (d2l/df2) J v; J v is the derivative in z of <J^T z, v>, the trick of two backward passes."""
    z = torch.zeros_like(outputs, requires_grad=True)
    pulled_back = torch.autograd.grad(outputs, parameters, z, create_graph=True)
    tangent = torch.autograd.grad(pulled_back, z, v)[0]
    leaf = outputs.detach().requires_grad_()
    slope = torch.autograd.grad(_summed_loss(leaf, targets), leaf, create_graph=True)[0]
    curved = torch.autograd.grad(slope, leaf, tangent)[0]
    return torch.autograd.grad(outputs, parameters, curved)


def _residual(outputs: Tensor, targets: Tensor, parameters: list[Tensor], v: list[Tensor]) -> Sequence[Tensor]:
    """As `_hessian`, with the slope of the loss in the outputs held constant."""
    leaf = outputs.detach().requires_grad_()
    slope = torch.autograd.grad(_summed_loss(leaf, targets), leaf)[0]
    pulled_back = torch.autograd.grad(outputs, parameters, slope, create_graph=True)
    live = [(g, piece) for g, piece in zip(pulled_back, v, strict=True) if g.requires_grad]  # not the last bias
    slopes, pieces = zip(*live, strict=True)
    return torch.autograd.grad(slopes, parameters, pieces, allow_unused=True, materialize_grads=True)


def double_backward(model: nn.Module, batches: Sequence[Batch]) -> Callable:
    """Hessian products, a new graph each."""
    return _mean_over_batches(model, batches, _hessian)


def released_ggn(model: nn.Module, batches: Sequence[Batch]) -> Callable:
    """GGN products as in the released code, a new graph each."""
    return _mean_over_batches(model, batches, _ggn)


def released_protocol(model: nn.Module, batches: Sequence[Batch]) -> Callable:
    """Hessian, GGN and residual of one vector as in the released code: three graphs, one after the other."""
    products = [_mean_over_batches(model, batches, of_batch) for of_batch in (_hessian, _ggn, _residual)]
    return lambda vector: torch.cat([product(vector) for product in products])
