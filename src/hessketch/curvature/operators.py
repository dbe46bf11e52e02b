r"""Curvature matrices of a mean loss as operators: known by their products, never formed.

With outputs f(x; theta), per-example loss l, its gradient g_i in theta and n examples,

    hessian              (1/n) sum_i d2 l_i / d theta2
    ggn                  (1/n) sum_i J_i^T (d2 l_i / d f2) J_i          (Papyan: "covariance of gradients")
    residual             (1/n) sum_i sum_k (d l_i / d f_k) d2 f_ik      (Papyan: "averaged Hessian of predictions")
    second_moment        (1/n) sum_i g_i g_i^T                          (the empirical Fisher, with the true labels)
    gradient_covariance  second_moment - g g^T, g the mean gradient
    predictor            the residual of a single example               (Shrivastava et al. 2024)

and hessian = ggn + residual exactly (Papyan 2018, equation 4). For cross-entropy the ggn is the Fisher matrix too.
Every product is exact up to rounding; no finite differences. A regulariser of the training (weight decay) is not part
of the loss here.
"""

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, distributed, nn

from hessketch.curvature.averages import ExampleAverage, require_frozen
from hessketch.curvature.losses import Loss
from hessketch.curvature.precision import describe_arithmetic
from hessketch.curvature.products import COMPONENTS_AT_ONCE, PRODUCTS, Builders, for_blocks
from hessketch.errors import InputError, nearest
from hessketch.linalg.vectors import column_dots

Batches = Iterable[tuple[Any, Any]]
OPERATORS = ("hessian", "ggn", "residual", "second_moment", "gradient_covariance", "predictor")
COMPONENTS = ("hessian", "ggn", "residual")
_SAME_PRODUCT = {"gradient_covariance": "second_moment", "predictor": "residual"}


def select_parameters(model: nn.Module, patterns: str | Sequence[str] = "*") -> dict[str, nn.Parameter]:
    """Parameters that require a gradient and whose name matches a pattern such as 'layer4.*' or '*.weight'.

    Raises InputError when a pattern matches none, naming the nearest parameter.
    """
    candidates = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if not candidates:
        raise InputError("the network has no parameter that requires a gradient")
    patterns = [patterns] if isinstance(patterns, str) else list(patterns or [])
    if not patterns:
        raise InputError("no parameter pattern given; give at least one, such as '*'")
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in candidates):
            raise InputError(f"no parameter matches {pattern!r}{nearest(pattern, candidates, cutoff=0.3)}")
    return {name: p for name, p in candidates.items() if any(fnmatchcase(name, pattern) for pattern in patterns)}


class _Averaged:
    """What all operators of a network share: parameters in a flat order, examples, arithmetic, checks."""

    def __init__(
        self,
        build: Builders,
        model: nn.Module,
        loss: Loss,
        batches: Batches,
        *,
        parameters: str | Sequence[str] = "*",
        memory: int | None = None,
        tf32: bool = False,
        deterministic: bool = False,
        group: distributed.ProcessGroup | None = None,
    ):
        require_frozen(model)
        chosen = select_parameters(model, parameters)
        kinds = {p.dtype for p in chosen.values()}
        if len(kinds) > 1 or not next(iter(kinds)).is_floating_point:
            raise InputError(f"parameters have the types {sorted(map(str, kinds))}; one real floating type is needed")
        if memory is not None and (isinstance(memory, bool) or not isinstance(memory, int | float) or memory < 0):
            raise InputError(f"memory is {memory!r}; allowed: a number of bytes from 0, or None")
        self.parameter_shapes = {name: tuple(p.shape) for name, p in chosen.items()}
        size = sum(p.numel() for p in chosen.values())
        self.shape = (size, size)
        self._average = ExampleAverage(
            model, loss, batches, chosen, build, memory=memory, tf32=tf32, deterministic=deterministic, group=group
        )
        self.dtype, self.device = self._average.dtype, self._average.device
        self.examples = self._average.examples
        self.arithmetic = describe_arithmetic(tf32, deterministic)

    @property
    def batches_kept(self) -> int:
        """How many batches keep their graph between products."""
        return self._average.batches_kept

    @property
    def largest_batch(self) -> int | None:
        """Examples computed at once after a batch did not fit into memory and was halved; None if all fitted."""
        return self._average.largest_batch

    def _block(self, other: Tensor) -> Tensor:
        if not isinstance(other, Tensor) or other.dtype.is_complex:
            raise InputError("an operator multiplies real torch tensors; convert with torch.as_tensor")
        if other.ndim not in (1, 2) or other.shape[0] != self.shape[1]:
            raise InputError(
                f"cannot multiply an operator of shape {self.shape} with a tensor of shape {tuple(other.shape)}"
            )
        return other.detach().to(device=self.device, dtype=self.dtype).reshape(self.shape[1], -1)


class CurvatureOperator(_Averaged):
    """A symmetric (p, p) map on flat parameter vectors: the average over all examples.

    `operator @ v` takes a vector (p,) or a block of columns (p, k) and gives the same shape in the parameters' dtype
    and on their device. The order of the entries is that of `parameter_shapes`, each flattened row by row.

    Parameters
    ----------
    name : one of OPERATORS; `predictor` needs data of exactly one example
    model : any module in eval mode whose weights stay as they are while the operator is used
    loss : function of outputs and targets, twice differentiable in the outputs; one value an example (preferred), or
        the mean or sum over a batch as torch.nn's losses give it (which one is found out)
    batches : (inputs, targets) tuples: a list, a DataLoader (the same examples at each pass), or an iterator, which is
        read once into memory. Their size changes the speed and the memory, not the result
    parameters : name pattern or patterns; the operator is then the diagonal block of these parameters
    memory : bytes for what is kept of batches between products (it saves a third to a half of each product); default
        half of what is free, 0 keeps nothing
    tf32 : allow TF32 on a GPU: faster, three digits
    deterministic : only kernels that repeat bit by bit where they exist; see `arithmetic` for a record
    group : process group of torch.distributed over which the examples are spread; each process gives its own share,
        every product costs one all-reduce, and all processes must multiply the same vectors

    Raises InputError for a name, pattern, loss or data that make no sense, NotFiniteError for outputs that hold NaN.
    """

    def __init__(self, name: str, model: nn.Module, loss: Loss, batches: Batches, **options: Any):
        if name not in OPERATORS:
            raise InputError(f"operator {name!r} is unknown; allowed: {', '.join(OPERATORS)}{nearest(name, OPERATORS)}")
        self.name = name
        super().__init__(self._builders(PRODUCTS[_SAME_PRODUCT.get(name, name)]), model, loss, batches, **options)
        if name == "predictor" and self.examples != 1:
            raise InputError(f"a predictor Hessian belongs to one example, {self.examples} given; give a batch of one")
        self._mean_gradient = self._average.mean_gradient() if name == "gradient_covariance" else None

    @staticmethod
    def _builders(builders: Builders) -> Builders:
        return builders

    def __matmul__(self, other: Tensor) -> Tensor:
        return self._multiply(other, None)

    def _multiply(self, other: Tensor, blocks: Sequence[Sequence[int]] | None) -> Tensor:
        block = self._block(other)
        product = self._average.columns(block, blocks=blocks)[0]
        if self._mean_gradient is not None:
            along = column_dots(self._mean_gradient[:, None].expand_as(block), block)
            product = product - torch.outer(self._mean_gradient, along.to(block))
        return product.reshape(other.shape)


class BlockDiagonalOperator(CurvatureOperator):
    """The diagonal blocks of a curvature operator, everything between them zero.

    `blocks` are name patterns, one a block, or 'tensors' (one block a parameter tensor) or 'modules' (weight and bias
    together). A parameter in no block gets zero. A product costs up to one of the whole operator for each block.
    """

    def __init__(
        self, name: str, model: nn.Module, loss: Loss, batches: Batches, *, blocks: str | Sequence[str], **options: Any
    ):
        super().__init__(name, model, loss, batches, **options)
        if name == "gradient_covariance":
            raise InputError("gradient_covariance has no block-diagonal form here; take second_moment")
        names = list(self.parameter_shapes)
        if blocks in ("tensors", "modules"):
            of = [n if blocks == "tensors" else n.rpartition(".")[0] for n in names]
            self.blocks = [[n for n, b in zip(names, of, strict=True) if b == block] for block in dict.fromkeys(of)]
        else:
            patterns = [blocks] if isinstance(blocks, str) else blocks
            self.blocks = [list(select_parameters(model, pattern)) for pattern in patterns]
        flat = [n for block in self.blocks for n in block]
        if len(set(flat)) < len(flat) or not set(flat) <= set(names):
            raise InputError(f"blocks {blocks!r} overlap or name parameters outside the operator's")
        self._blocks = [[names.index(n) for n in block] for block in self.blocks]

    @staticmethod
    def _builders(builders: Builders) -> Builders:
        return for_blocks(builders)

    def __matmul__(self, other: Tensor) -> Tensor:
        return self._multiply(other, self._blocks)


class ComponentOperators(_Averaged):
    """Hessian, GGN and residual of the same vectors in one pass: for sketches, traces and tests.

    A pass costs less than a Hessian and a GGN product. Lanczos runs of the three need different vectors and gain
    nothing. Arguments as of `CurvatureOperator`, without the name.
    """

    def __init__(self, model: nn.Module, loss: Loss, batches: Batches, **options: Any):
        super().__init__(COMPONENTS_AT_ONCE, model, loss, batches, **options)

    def products(self, other: Tensor) -> dict[str, Tensor]:
        """The products of 'hessian', 'ggn' and 'residual' with a vector (p,) or a block (p, k)."""
        block = self._block(other)
        ggn, residual = (part.reshape(other.shape) for part in self._average.columns(block, outputs=2))
        return {"hessian": ggn + residual, "ggn": ggn, "residual": residual}


def hessian(model: nn.Module, loss: Loss, batches: Batches, **options: Any) -> CurvatureOperator:
    """Hessian of the mean loss over `batches` of (inputs, targets); see `CurvatureOperator`."""
    return CurvatureOperator("hessian", model, loss, batches, **options)


def ggn(model: nn.Module, loss: Loss, batches: Batches, **options: Any) -> CurvatureOperator:
    """Generalised Gauss-Newton matrix of the mean loss; see `CurvatureOperator`."""
    return CurvatureOperator("ggn", model, loss, batches, **options)


def residual(model: nn.Module, loss: Loss, batches: Batches, **options: Any) -> CurvatureOperator:
    """Hessian minus GGN: the averaged Hessian of predictions; see `CurvatureOperator`."""
    return CurvatureOperator("residual", model, loss, batches, **options)


def second_moment(model: nn.Module, loss: Loss, batches: Batches, **options: Any) -> CurvatureOperator:
    """Second moment of per-example gradients, the empirical Fisher matrix; see `CurvatureOperator`."""
    return CurvatureOperator("second_moment", model, loss, batches, **options)


def gradient_covariance(model: nn.Module, loss: Loss, batches: Batches, **options: Any) -> CurvatureOperator:
    """Covariance of per-example gradients (mean removed, divided by n); see `CurvatureOperator`."""
    return CurvatureOperator("gradient_covariance", model, loss, batches, **options)


def predictor(model: nn.Module, loss: Loss, inputs: Tensor, targets: Tensor, **options: Any) -> CurvatureOperator:
    """Prediction term of one example's Hessian, from a batch of one; see `CurvatureOperator`."""
    return CurvatureOperator("predictor", model, loss, [(inputs, targets)], **options)
