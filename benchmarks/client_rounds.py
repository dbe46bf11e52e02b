"""The round that is timed: data, networks, and the plain way to compute it, one client after the other."""

import copy
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from hessketch.data.clusters import gaussian_clusters
from hessketch.data.examples import Examples
from hessketch.linalg.count_sketch import CountSketch
from hessketch.networks.registry import build_network

NETWORKS = ("mlp", "cnn")

_CLASSES = 10
_SHAPE = (1, 32, 32)
_SEPARATION = 4.0


def small_cnn(classes: int) -> nn.Sequential:
    """9,098 parameters for images (1, 32, 32)."""
    return nn.Sequential(
        *(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(8, 16, 3), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(16 * 7 * 7, classes)),
    )


@dataclass(frozen=True)
class Task:
    """Clients with as many images each, who take full-batch steps and send a Count-Sketch with hashes of the round."""

    network: str
    clients: int = 100
    examples: int = 50
    steps: int = 5
    rate: float = 0.05
    reduction: int = 10
    seed: int = 0
    device: str = "cpu"

    @property
    def label(self) -> str:
        return f"{self.network}, {self.clients} clients x {self.examples} images x {self.steps} steps"

    @property
    def facts(self) -> dict:
        """What makes the same task in another process, for JSON."""
        return asdict(self)

    def model(self) -> nn.Module:
        """The network that the first round starts from, on the device."""
        name, norm = {"mlp": ("mlp", "none"), "cnn": (f"{__name__}:small_cnn", "none")}[self.network]
        model = build_network(name, input_shape=_SHAPE, classes=_CLASSES, width=1 / 16, norm=norm, seed=self.seed)
        return model.to(self.device)

    def data(self) -> Examples:
        """Images of random clusters in random order, on the device: each client has the next `examples` of them."""
        count = self.clients * self.examples
        size = torch.Size(_SHAPE).numel()
        inputs, targets = gaussian_clusters(_CLASSES, size, _SEPARATION, -(-count // _CLASSES), self.seed, "train")
        order = torch.randperm(len(targets), generator=torch.Generator().manual_seed(self.seed))[:count]
        return Examples(inputs[order].view(count, *_SHAPE), targets[order], _CLASSES).to(self.device)

    def parts(self) -> list[Tensor]:
        """Example indices of each client."""
        return list(torch.arange(self.clients * self.examples).split(self.examples))

    def sketch(self, dimension: int, number: int) -> CountSketch:
        """The sketch of a round, counted from 0."""
        return CountSketch(dimension, 1, dimension // self.reduction, self.seed, number, device=self.device)


def difference(model: nn.Module, images: Tensor, targets: Tensor, task: Task) -> Tensor:
    """Trains a client's model and returns its weights before less those after, (p,)."""
    start = parameters_to_vector(model.parameters()).detach()
    optimizer = torch.optim.SGD(model.parameters(), lr=task.rate)
    for _ in range(task.steps):
        optimizer.zero_grad()
        cross_entropy(model(images), targets).backward()
        optimizer.step()
    return start - parameters_to_vector(model.parameters()).detach()


class PlainLoop:
    """Rounds as one writes them at first: a copy of the model and an optimizer for each client, a sketch of each."""

    def __init__(self, task: Task):
        self._task, self._model = task, task.model()
        self._clients = task.data().batches(task.examples)
        self._number = 0

    @property
    def weights(self) -> Tensor:
        return parameters_to_vector(self._model.parameters()).detach()

    def round(self) -> None:
        weights = self.weights
        sketch = self._task.sketch(len(weights), self._number)
        tables = [sketch.apply(difference(copy.deepcopy(self._model), *c, self._task)) for c in self._clients]
        vector_to_parameters(weights - sketch.lift(torch.stack(tables).mean(0)), self._model.parameters())
        self._number += 1
