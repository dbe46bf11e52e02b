"""Curvature products by hessketch and by others, behind one signature.

A maker takes a network in eval mode and batches of (images, classes) of equal size, prepares once what can be
prepared, and returns a function that multiplies a flat vector (p,), in the order of `model.parameters()`, with a
matrix of the mean cross-entropy over all examples. Every library is used as it documents repeated products on data
that do not change; what it recomputes at every product, it recomputes here.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks import scratch
from hessketch.curvature.losses import cross_entropy
from hessketch.curvature.operators import ComponentOperators, CurvatureOperator

Batch = tuple[Tensor, Tensor]
Product = Callable[[Tensor], Tensor]
Maker = Callable[[nn.Module, Sequence[Batch]], Product]

OPERATORS = {
    "hessian": "Hessian",
    "ggn": "GGN",
    "together": "Hessian, GGN, residual at once",
}
"""What is measured; `together` multiplies the same vector with all three, for a result (3p,)."""


@dataclass(frozen=True)
class Candidate:
    """One way to multiply: `makers` by operator, and the distribution that has to be installed, if any."""

    name: str
    makers: dict[str, Maker]
    distribution: str | None = None

    @property
    def missing(self) -> bool:
        return self.distribution is not None and version(self.distribution) is None


def version(distribution: str) -> str | None:
    """Installed version of a distribution, None where there is none."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _ours(operator: str) -> Maker:
    def make(model: nn.Module, batches: Sequence[Batch]) -> Product:
        return CurvatureOperator(operator, model, cross_entropy, batches).__matmul__

    return make


def _ours_together(model: nn.Module, batches: Sequence[Batch]) -> Product:
    components = ComponentOperators(model, cross_entropy, batches)

    def product(vector: Tensor) -> Tensor:
        products = components.products(vector)
        return torch.cat([products[name] for name in ("hessian", "ggn", "residual")])

    return product


def _together(hessian: Maker, ggn: Maker) -> Maker:
    """Two products and their difference: all that a library without a residual operator needs."""

    def make(model: nn.Module, batches: Sequence[Batch]) -> Product:
        by_hessian, by_ggn = hessian(model, batches), ggn(model, batches)

        def product(vector: Tensor) -> Tensor:
            whole, component = by_hessian(vector), by_ggn(vector)
            return torch.cat([whole, component, whole - component])

        return product

    return make


def _curvlinops(operator: str) -> Maker:
    """Weights batches by their size; recomputes the forward pass at every product."""

    def make(model: nn.Module, batches: Sequence[Batch]) -> Product:
        import curvlinops

        kind = {"hessian": curvlinops.HessianLinearOperator, "ggn": curvlinops.GGNLinearOperator}[operator]
        parameters = [p for p in model.parameters() if p.requires_grad]
        linear = kind(model, nn.CrossEntropyLoss(), parameters, list(batches), check_deterministic=False)
        return linear.__matmul__

    return make


def pyhessian_of(model: nn.Module, batches: Sequence[Batch]) -> Any:
    """PyHessian's object: for a single batch it keeps the gradient's graph, else it rebuilds one a batch."""
    from pyhessian import hessian

    data = {"data": batches[0]} if len(batches) == 1 else {"dataloader": batches}
    model.zero_grad()  # it adds to gradients that are there
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # backward with create_graph: a reference cycle
        made = hessian(model, nn.CrossEntropyLoss(), cuda=batches[0][0].is_cuda, **data)
    model.zero_grad()
    return made


def _pyhessian(model: nn.Module, batches: Sequence[Batch]) -> Product:
    from pyhessian.utils import hessian_vector_product

    made = pyhessian_of(model, batches)

    def product(vector: Tensor) -> Tensor:
        pieces = scratch.pieces_like(vector, made.params)
        if len(batches) == 1:
            parts = hessian_vector_product(made.gradsH, made.params, pieces)
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)
                parts = made.dataloader_hv_product(pieces)[1]
        return scratch.flat(parts)

    return product


def _eigenthings_hessian(model: nn.Module, batches: Sequence[Batch]) -> Product:
    """Averages batches with equal weights; builds and frees a graph at every product.

    By double backward, its default. Its finite differences cost two gradients and are left out: they are another
    number (for VGG11 of width 1/8 as it is made here, off by 16 times the product's norm with a random unit vector).
    """
    from hessian_eigenthings import HessianOperator, supervised_loss

    return HessianOperator(model, batches, supervised_loss(functional.cross_entropy)).matvec


def _eigenthings_ggn(model: nn.Module, batches: Sequence[Batch]) -> Product:
    from hessian_eigenthings import GGNOperator, supervised_forward, supervised_loss_of_output

    return GGNOperator(model, batches, supervised_forward, supervised_loss_of_output(functional.cross_entropy)).matvec


OURS = "hessketch"
_EIGENTHINGS = "hessian-eigenthings"
CANDIDATES = (
    Candidate(OURS, {"hessian": _ours("hessian"), "ggn": _ours("ggn"), "together": _ours_together}),
    Candidate(
        "curvlinops",
        {
            "hessian": _curvlinops("hessian"),
            "ggn": _curvlinops("ggn"),
            "together": _together(_curvlinops("hessian"), _curvlinops("ggn")),
        },
        "curvlinops-for-pytorch",
    ),
    Candidate("PyHessian", {"hessian": _pyhessian}, "pyhessian"),
    Candidate(
        _EIGENTHINGS,
        {
            "hessian": _eigenthings_hessian,
            "ggn": _eigenthings_ggn,
            "together": _together(_eigenthings_hessian, _eigenthings_ggn),
        },
        _EIGENTHINGS,
    ),
    Candidate("double backward", {"hessian": scratch.double_backward}),
    Candidate("released protocol", {"ggn": scratch.released_ggn, "together": scratch.released_protocol}),
)


def available(operator: str) -> list[Candidate]:
    """The candidates that can be run here and know the operator, ours first."""
    return [c for c in CANDIDATES if operator in c.makers and not c.missing]


def missing_lines() -> list[str]:
    """One line for each library that is not installed, with what to do about it."""
    names = dict.fromkeys(c.distribution for c in CANDIDATES if c.missing)
    return [f"{name} is not installed and left out: pip install -r benchmarks/requirements.txt" for name in names]
