"""Passes through networks, as the pipeline's jobs take them, each as a call to be timed."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from hessketch.curvature.dense import dense_hessian
from hessketch.curvature.gradients import squared_gradient_norm
from hessketch.curvature.losses import cross_entropy, mean_loss_and_accuracy
from hessketch.curvature.operators import COMPONENTS, CurvatureOperator
from hessketch.curvature.output_gradients import OutputGradients
from hessketch.curvature.points import ParameterSpace, means_at
from hessketch.data.examples import Examples
from hessketch.federated.clients import local_updates
from hessketch.federated.network import FlatNetwork
from hessketch.federated.settings import FederatedSettings
from hessketch.networks.registry import build_network
from hessketch.planning.sizes import FAMILIES, NetworkSize, size_of
from hessketch.training.settings import TrainingSettings
from hessketch.training.sgd import train

_CLASSES = 10
_STEPS = 8  # of a training that is timed; of a client's 4
_VECTORS = 64  # parameter vectors, rows of a matrix or clients side by side
_MOST_ROWS = 2000  # parameters up to which matrices are formed here


@dataclass(frozen=True)
class Case:
    """A network of the registry on random examples."""

    network: str
    norm: str
    width: float
    shape: tuple[int, ...]
    examples: int

    @cached_property
    def model(self) -> nn.Module:
        return build_network(
            self.network, input_shape=self.shape, classes=_CLASSES, width=self.width, norm=self.norm
        ).eval()

    @cached_property
    def size(self) -> NetworkSize:
        return size_of(self.model, self.shape, f"{self.network}-{self.norm}-w{self.width:g}")

    def data(self, count: int, device: torch.device) -> Examples:
        generator = torch.Generator().manual_seed(0)
        inputs = torch.randn(count, *self.shape, generator=generator)
        targets = torch.randint(_CLASSES, (count,), generator=generator)
        return Examples(inputs, targets, _CLASSES).to(device)


_GREY, _COLOUR, _SMALL = (1, 32, 32), (3, 32, 32), (1, 8, 8)
CASES = [
    *(Case("vgg11", "batch", 1 / 16, _GREY, n) for n in (1, 32, 260)),
    *(Case("resnet18", "batch", 1 / 16, _GREY, n) for n in (1, 32, 260)),
    *(Case("resnet18_smooth", "batch", 1 / 16, _GREY, n) for n in (1, 100)),
    *(Case(name, "batch", 1 / 4, _COLOUR, n) for name in ("vgg11", "resnet18") for n in (1, 64)),
    *(Case("3c3d", "none", 1, _COLOUR, n) for n in (1, 64)),
    *(Case(name, "batch", 1, _COLOUR, n) for name in ("vgg11", "resnet18") for n in (1, 8)),
    *(Case("mlp", "none", 0.02, _SMALL, n) for n in (1, 10, 100, 1000)),
    *(Case("mlp", "none", 0.04, _SMALL, n) for n in (10, 100, 1000)),
    *(Case("mlp", "none", 0.08, _SMALL, n) for n in (10, 300)),
    *(Case("mlp_tanh", "none", 0.5, _SMALL, n) for n in (50, 200)),
    *(Case("mlp_tanh", "none", 1, _SMALL, n) for n in (50, 500)),
    *(Case("mlp", "none", 1 / 16, _GREY, n) for n in (1, 50, 1000)),
    *(Case("mlp", "none", 1, _COLOUR, n) for n in (10, 500)),
]

Pass = tuple[str, int, int, int, Callable[[], object]]


def passes_of(case: Case, device: torch.device) -> Iterator[Pass]:
    """kind, passes in a call, examples and parameter vectors in a pass, and the call itself."""
    model, n = case.model.to(device), case.examples
    data = case.data(n, device)
    batches = data.batches(n)
    if n > 1:
        yield "train", _STEPS, n, 1, _training(case, device)
    model.eval()
    yield "forward", 1, n, 1, lambda: mean_loss_and_accuracy(model, cross_entropy, batches)
    yield "gradient", 1, n, 1, lambda: squared_gradient_norm(model, cross_entropy, batches)
    yield "graph", 1, n, 1, lambda: CurvatureOperator("hessian", model, cross_entropy, batches, memory=2**34)
    vector = torch.randn(case.size.parameters, generator=torch.Generator().manual_seed(0)).to(device)
    for name in COMPONENTS:
        operator = CurvatureOperator(name, model, cross_entropy, batches, memory=2**34)
        yield name, 1, n, 1, lambda operator=operator: operator @ vector
    if case.size.family == FAMILIES[1]:
        yield from _side_by_side(case, data, device)


def _training(case: Case, device: torch.device) -> Callable[[], object]:
    # A copy, so that the network that the curvature is taken of stays as it was initialised.
    model = build_network(case.network, input_shape=case.shape, classes=_CLASSES, width=case.width, norm=case.norm)
    settings = TrainingSettings(learning_rate=1e-4, epochs=1, batch_size=case.examples)
    examples, few = case.data(_STEPS * case.examples, device), case.data(2, device)
    model.to(device)
    return lambda: train(model, "cross_entropy", examples, few, settings, 0)


def _side_by_side(case: Case, data: Examples, device: torch.device) -> Iterator[Pass]:
    """What small networks do for many parameter vectors, rows or examples at once."""
    model, n, p = case.model, case.examples, case.size.parameters
    space = ParameterSpace(model, torch.float64)
    points = space.theta.expand(_VECTORS, -1).clone()
    yield "points", 1, n * _VECTORS, _VECTORS, lambda: means_at(space, points, data, cross_entropy)
    if p <= _MOST_ROWS and n > 1:
        calls = -(-p // _VECTORS)
        yield "rows", calls, n * _VECTORS, _VECTORS, lambda: dense_hessian(model, cross_entropy, data.batches(n))
        outputs = OutputGradients(model)
        share = n * _CLASSES
        yield "jacobians", 1, share, share, lambda: list(outputs.jacobians(data.inputs, _CLASSES))
    if 1 < n <= 100:
        yield "clients", 4, n * 20, 20, lambda: _local_steps(case, device)


def _local_steps(case: Case, device: torch.device) -> list[Tensor]:
    network = FlatNetwork(case.model)
    examples = case.data(20 * case.examples, device)
    parts = list(torch.arange(20 * case.examples, device=device).split(case.examples))
    settings = FederatedSettings(clients=20, local_steps=4, learning_rate=1e-4)
    found = local_updates(
        network, cross_entropy, examples, parts, range(20), network.theta(), network.buffers(), settings, 0, 0
    )
    updates = [chunk.updates for chunk in found]
    case.model.eval()
    return updates
