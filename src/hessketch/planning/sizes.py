"""What the cost of a run follows from: the size of its network, and how many examples it has; both may be scaled."""

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from hessketch.curvature.losses import outputs_of
from hessketch.data.catalog import describe
from hessketch.networks.registry import build_network
from hessketch.runs import Run

FAMILIES = ("convolutions", "matrices")


@dataclass(frozen=True)
class NetworkSize:
    """One network on one kind of input."""

    label: str
    family: str  # one of FAMILIES: what most of its operations are
    parameters: int
    flops: float  # floating-point operations of a pass forwards of one example, two for each multiplication
    activations: int  # numbers that all layers together give for one example
    widest: int  # numbers of the largest of these
    layers: int  # calls of layers in a pass forwards
    inputs: int  # numbers of one example
    outputs: int


@dataclass(frozen=True)
class Scale:
    """By how much a profile is enlarged in a plan: numbers of examples, and widths of hidden layers."""

    examples: int = 1
    width: int = 1

    def network(self, run: Run) -> NetworkSize:
        """The size of a run's network."""
        return network_size(run.network, run.norm, run.width * self.width, run.dataset, run.loss)

    def examples_of(self, dataset: str, per_class: int | str | None, split: str = "train") -> int:
        """Examples of a split: so many of each class, or every one (None or 'all')."""
        described = describe(dataset)
        if isinstance(per_class, int):
            found = per_class * described.classes
        else:
            found = sum(described.train_per_class if split == "train" else described.test_per_class)
        return found * self.examples

    def trained_on(self, run: Run) -> int:
        """Training examples of a run."""
        return self.examples_of(run.dataset, run.examples_per_class)


def network_size(name: str, norm: str, width: float, dataset: str, loss: str) -> NetworkSize:
    """The size of a network of the registry on a data set; raises InputError as `build_network`."""
    described = describe(dataset)
    return _measured(name, norm, float(width), tuple(described.input_shape), outputs_of(loss, described.classes))


@lru_cache
def _measured(name: str, norm: str, width: float, shape: tuple[int, ...], outputs: int) -> NetworkSize:
    model = build_network(name, input_shape=shape, classes=outputs, width=min(width, 16), norm=norm)
    # On the meta device a pass through it computes nothing but shapes.
    return size_of(model.to("meta"), shape, f"{name}-{norm}-w{width:g}")


def size_of(model: nn.Module, shape: tuple[int, ...], label: str) -> NetworkSize:
    """The size of a network for inputs (1, *shape), on any device; its mode is eval afterwards."""
    found: list[Tensor] = []

    def look(_module: nn.Module, _inputs: object, output: object) -> None:
        if isinstance(output, Tensor):
            found.append(output)

    leaves = [module for module in model.modules() if not list(module.children())]
    hooks = [leaf.register_forward_hook(look) for leaf in leaves]
    example = torch.empty(1, *shape, device=next(model.parameters()).device)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        outputs = model.eval()(example)
    for hook in hooks:
        hook.remove()
    sizes = [output.numel() for output in found]
    return NetworkSize(
        label=label,
        family=FAMILIES[0] if any(isinstance(leaf, nn.Conv2d) for leaf in leaves) else FAMILIES[1],
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        flops=float(counter.get_total_flops()),
        activations=sum(sizes),
        widest=max(sizes),
        layers=len(sizes),
        inputs=example.numel(),
        outputs=outputs.numel(),
    )
