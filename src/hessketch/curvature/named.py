"""Operators by name: the package's own, and those that extensions register."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, distributed, nn

from hessketch.curvature.losses import Loss
from hessketch.curvature.operators import OPERATORS, Batches, CurvatureOperator, select_parameters
from hessketch.curvature.precision import arithmetic, describe_arithmetic
from hessketch.errors import InputError, NotFiniteError, nearest
from hessketch.extensions import HINT, call_with, register, registered, require_takes
from hessketch.linalg.vectors import Operator

Product = Callable[[Tensor], Tensor]
_OTHERS = ("cross",)  # a name that tables have beside those of operators
_ASYMMETRY = 1e-3  # of u^T A v against v^T A u, relative to |u| |A v|; float32 products of networks stay below 1e-4


def register_operator(name: str, build: Callable[..., Product | Operator]) -> None:
    """Makes a symmetric operator of the user's own known by a name, wherever `second_moment` and the like are allowed.

    `build` is called with model, loss (a function of outputs and targets, one value an example) and batches (a list of
    (inputs, targets)), and with memory (bytes) if it takes that. It returns a function that multiplies a block of
    columns (p, k), parameters in the order of `model.parameters()`, or an operator with `@`.

    Raises InputError for a name that is taken or not of lower-case letters, digits and underscores, and for a function
    that needs other arguments.
    """
    require_takes(f"operator {name!r}", build, ("model", "loss", "batches", "memory"), ["model", "loss", "batches"])
    register("operator", name, build, (*OPERATORS, *_OTHERS), build)


def operator_names() -> tuple[str, ...]:
    """Operators that average over the examples of a split: all but `predictor`."""
    return (*(name for name in OPERATORS if name != "predictor"), *registered("operator"))


def named_operator(
    name: str, model: nn.Module, loss: Loss, batches: Batches, **options: Any
) -> "CurvatureOperator | RegisteredOperator":
    """The operator of a name; options as of `CurvatureOperator`, of which a registered one has memory and tf32.

    Raises InputError for a name that is not known.
    """
    if name in registered("operator"):
        return RegisteredOperator(name, model, loss, batches, **options)
    if name not in OPERATORS:
        known = operator_names()
        raise InputError(f"operator {name!r} is unknown; allowed: {', '.join(known)}{HINT}{nearest(name, known)}")
    return CurvatureOperator(name, model, loss, batches, **options)


class RegisteredOperator:
    """A registered operator on all parameters of a network, with what tables and records ask of one.

    Its products are checked: their shape, that they are finite, and at the beginning, by two products with random
    vectors, that the map is symmetric. Raises InputError, or NotFiniteError, where they are not.
    """

    largest_batch: int | None = None
    batches_kept = 0

    def __init__(
        self,
        name: str,
        model: nn.Module,
        loss: Loss,
        batches: Iterable[tuple[Any, Any]],
        *,
        memory: int | None = None,
        tf32: bool = False,
        group: distributed.ProcessGroup | None = None,
    ):
        if group is not None:
            raise InputError(f"operator {name!r}: one that an extension registers takes one process; give processes: 1")
        chosen = select_parameters(model)
        size = sum(p.numel() for p in chosen.values())
        first = next(iter(chosen.values()))
        self.name, self.shape, self.dtype, self.device = name, (size, size), first.dtype, first.device
        self.arithmetic, self._tf32 = describe_arithmetic(tf32, False), tf32
        given = {"model": model, "loss": loss, "batches": list(batches), "memory": memory}
        made = call_with(registered("operator")[name], given)
        self._product: Product = made if not hasattr(made, "__matmul__") else made.__matmul__
        self._require_symmetric()

    def __matmul__(self, other: Tensor) -> Tensor:
        """The product with a vector (p,) or a block of columns (p, k)."""
        block = other.detach().to(device=self.device, dtype=self.dtype).reshape(self.shape[1], -1)
        with arithmetic(self._tf32):
            product = self._product(block).detach()
        if product.shape != block.shape:
            raise InputError(
                f"operator {self.name!r}: its product with {tuple(block.shape)} has shape {tuple(product.shape)}; "
                "allowed: the same shape"
            )
        if not product.isfinite().all():
            raise NotFiniteError(f"operator {self.name!r}: a product holds NaN or infinity")
        return product.to(block).reshape(other.shape)

    def _require_symmetric(self) -> None:
        generator = torch.Generator().manual_seed(0)
        u, v = torch.randn(2, self.shape[0], generator=generator, dtype=torch.float64)
        products = (self @ torch.stack([u, v], dim=1)).double().cpu()
        there, back = u @ products[:, 1], v @ products[:, 0]
        scale = max(float(u.norm() * products[:, 1].norm()), float(v.norm() * products[:, 0].norm()))
        if abs(float(there - back)) > _ASYMMETRY * scale:
            raise InputError(
                f"operator {self.name!r} is not symmetric: u^T A v = {there:.6g} and v^T A u = {back:.6g} for random u "
                "and v; only symmetric operators have a spectrum here"
            )
