"""A network at many parameter vectors, vectorised: means over a data set, such as losses or errors."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from hessketch.curvature.averages import require_frozen
from hessketch.curvature.batch import require_finite
from hessketch.curvature.dense import converted
from hessketch.curvature.halving import BatchLimit
from hessketch.curvature.losses import Loss, as_loss, loss_function, loss_of_each
from hessketch.curvature.operators import select_parameters
from hessketch.curvature.per_example import spread
from hessketch.curvature.precision import arithmetic
from hessketch.data.examples import Examples
from hessketch.errors import InputError

# Numbers of the widest layer computed at once. Measured on one core (milliseconds a parameter vector, 1 / 16 / 64 /
# 1000 vectors at once, float64): MLP of 730 parameters, 500 examples 0.29 / 0.27 / 0.17 / 0.32; of 7,150, 1000
# examples 0.98 / 0.89 / 1.27 / -. Convolutions gain nothing side by side (ResNet18 of 45 thousand, 100 images: 113
# alone, 134 to 181 in chunks), and their images exceed the limit by themselves: they go one after the other.
_NUMBERS_AT_ONCE = {"cpu": 2**19, "cuda": 2**27}


def require_examples(**given: Any) -> None:
    """Raises InputError for the first argument, by its name, that is not Examples."""
    for name, examples in given.items():
        if not isinstance(examples, Examples):
            raise InputError(
                f"{name} is {type(examples).__name__}; give hessketch.data.examples.Examples(inputs, targets, classes)"
            )


def in_dtype_of(model: nn.Module, examples: Examples) -> Examples:
    """The examples with floating-point inputs in the dtype of the network's weights, where they are."""
    dtype = next(iter(select_parameters(model).values())).dtype
    return replace(examples, inputs=converted(examples.inputs, dtype))


def example_loss(model: nn.Module, loss: str | Loss, examples: Examples) -> Loss:
    """A loss, given by name or as a function, as one value an example; a function is tried on some of the examples.

    Raises as `as_loss` and `loss_of_each`, and for a model in train mode.
    """
    if isinstance(loss, str):
        return loss_function(loss)
    space = ParameterSpace(model)
    some = [space.converted(spread(t)) for t in (examples.inputs, examples.targets)]
    with torch.no_grad():
        outputs = require_finite(space.outputs(space.theta, some[0]))
    return loss_of_each(as_loss(loss), outputs, some[1])


class ParameterSpace:
    """outputs(theta, inputs) of a frozen network, for theta (p,) in the order in which the operators hold parameters.

    Computed in `dtype` (default: the parameters') on copies; the module itself only lends its structure. `theta` (p,)
    are its own weights. Raises InputError for a model in train mode.
    """

    def __init__(self, model: nn.Module, dtype: torch.dtype | None = None):
        require_frozen(model)
        chosen = select_parameters(model)
        first = next(iter(chosen.values()))
        self.dtype, self.device = dtype or first.dtype, first.device
        self._model = model
        self.limit = BatchLimit()  # of everything that is computed in this space
        self._shapes = {name: parameter.shape for name, parameter in chosen.items()}
        self._sizes = [shape.numel() for shape in self._shapes.values()]
        others = [*model.named_parameters(), *model.named_buffers()]
        self._fixed = {name: self.converted(tensor) for name, tensor in others if name not in chosen}
        self.theta = torch.cat([self.converted(parameter).reshape(-1) for parameter in chosen.values()])

    def converted(self, tensor: Tensor) -> Tensor:
        """On the network's device; floating-point numbers in its dtype, whole numbers as they are."""
        return converted(tensor.to(self.device), self.dtype)

    def named(self, vector: Tensor) -> dict[str, Tensor]:
        """The pieces of a flat vector (p,) by parameter."""
        pieces = zip(self._shapes.items(), vector.split(self._sizes), strict=True)
        return {name: piece.view(shape) for (name, shape), piece in pieces}

    def outputs(self, theta: Tensor, inputs: Tensor) -> Tensor:
        outputs: Tensor = functional_call(self._model, self._fixed | self.named(theta), (inputs,))
        return outputs

    @property
    def at_once(self) -> int:
        """Numbers of the widest layer that are computed at once on this device."""
        return _NUMBERS_AT_ONCE["cuda" if self.device.type == "cuda" else "cpu"]

    def widest(self, inputs: Tensor) -> int:
        """Numbers that the widest layer gives for one example, looked up with the first of the inputs."""
        found = [1]

        def look(_module: nn.Module, _inputs: object, output: object) -> None:
            if isinstance(output, Tensor):
                found.append(output.numel())

        hooks = [module.register_forward_hook(look) for module in self._model.modules()]
        try:
            with torch.no_grad():
                self.outputs(self.theta, self.converted(inputs[:1]))
        finally:
            for hook in hooks:
                hook.remove()
        return max(found)


def means_at(
    space: ParameterSpace, points: Tensor, examples: Examples, value: Callable[[Tensor, Tensor], Tensor]
) -> Tensor:
    """Mean over all examples of value(outputs (m, C), targets (m,)) -> (m,) at each of the points (k, p); (k,) float64.

    `value` is given float64 outputs, so that only the network itself is rounded to the space's dtype. Points and
    examples are taken in chunks that bound memory and do not change the result beyond rounding.
    """
    if points.ndim != 2 or points.shape[1] != len(space.theta):
        raise InputError(f"points have shape {tuple(points.shape)}; give (k, {len(space.theta)}), one a row")
    points = space.converted(points)
    at_once = max(1, min(len(examples) * len(points), space.at_once // space.widest(examples.inputs)))
    sums = space.limit.run(lambda size: _sums_at(space, points, examples, value, size), at_once)
    return sums / len(examples)


def _sums_at(
    space: ParameterSpace,
    points: Tensor,
    examples: Examples,
    value: Callable[[Tensor, Tensor], Tensor],
    at_once: int,
) -> Tensor:
    """The sums over all examples; `at_once` are examples times points."""
    batch = min(len(examples), at_once)
    chunk = max(1, at_once // batch)

    def total(theta: Tensor, inputs: Tensor, targets: Tensor) -> Tensor:
        return value(space.outputs(theta, inputs).double(), targets).sum(dtype=torch.float64)

    sums = torch.zeros(len(points), dtype=torch.float64, device=space.device)
    with torch.no_grad(), arithmetic():
        for inputs, targets in examples.batches(batch):
            inputs, targets = space.converted(inputs), space.converted(targets)
            for rows, thetas in zip(sums.split(chunk), points.split(chunk), strict=True):
                if len(thetas) == 1:
                    rows += total(thetas[0], inputs, targets)
                else:
                    rows += vmap(total, in_dims=(0, None, None))(thetas, inputs, targets)
    return sums
