"""Small networks trained on scikit-learn's digits, whose Hessian is small enough to be computed and solved exactly."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.scratch import flat
from hessketch.data.sources import read_raw
from hessketch.linalg.vectors import Operator
from hessketch.networks.layers import initialise
from hessketch.networks.mlp import mlp

Batch = tuple[Tensor, Tensor]

TOP = 10
"""Eigenvalues of largest magnitude that a method has to find."""

_PIXELS = 64
_ROWS = 128  # rows of the dense Hessian computed at once


@dataclass(frozen=True)
class Recipe:
    """How a network comes to be: from easy to hard, by the share of the tenth eigenvalue that the eleventh has."""

    name: str
    hidden: tuple[int, ...]
    activation: Callable[[], nn.Module]
    initialisation: str
    classes: int  # digits are labelled by their remainder
    noisy_labels: float  # share of the labels drawn at random
    final_loss: float  # training ends when the mean loss is below


RECIPES = (
    Recipe("fitted", (36, 32), nn.ReLU, "he", 10, 0.0, 0.02),
    Recipe("deep", (24, 24, 24, 24, 24), nn.Tanh, "xavier", 10, 0.0, 0.1),
    Recipe("noisy labels", (24, 24, 24, 24, 24), nn.Tanh, "xavier", 10, 0.3, 0.5),
    Recipe("two classes, early", (24, 24, 24, 24, 24), nn.Tanh, "xavier", 2, 0.0, 0.6),  # negative ones among the top
)


@dataclass(frozen=True)
class Exact:
    """A trained float32 network and the spectrum of its Hessian, computed in float64."""

    name: str
    model: nn.Module
    batches: Sequence[Batch]
    spectrum: np.ndarray  # (p,) ascending

    @property
    def parameters(self) -> int:
        return len(self.spectrum)

    @property
    def top(self) -> np.ndarray:
        """The TOP eigenvalues of largest magnitude, ascending by value."""
        return np.sort(self.spectrum[np.argsort(-np.abs(self.spectrum))[:TOP]])

    @property
    def gap(self) -> float:
        """Magnitude of the first eigenvalue left out over that of the last one asked for: near 1 is hard."""
        magnitudes = np.sort(np.abs(self.spectrum))[::-1]
        return float(magnitudes[TOP] / magnitudes[TOP - 1])

    def in_float64(self) -> tuple[nn.Module, list[Batch]]:
        return copy.deepcopy(self.model).double(), [(inputs.double(), targets) for inputs, targets in self.batches]


def trained(recipe: Recipe, seed: int = 0) -> Exact:
    """Trains a recipe's network by full-batch Adam on scikit-learn's training digits and solves its Hessian."""
    generator = torch.Generator().manual_seed(seed)
    images, labels = read_raw("digits", ".")["train"]
    inputs = images.flatten(1).float() / 255
    noisy = torch.rand(len(labels), generator=generator) < recipe.noisy_labels
    random = torch.randint(recipe.classes, labels.shape, generator=generator)
    targets = torch.where(noisy, random, labels % recipe.classes)
    model = mlp(_PIXELS, recipe.classes, recipe.hidden, activation=recipe.activation)
    initialise(model, generator, recipe.initialisation)
    _fit(model, inputs, targets, recipe.final_loss)
    for parameter in model.parameters():
        parameter.grad = None
    batches = [(inputs, targets)]
    unsolved = Exact(recipe.name, model.eval(), batches, np.empty(0))
    return Exact(recipe.name, model, batches, np.linalg.eigvalsh(dense_hessian(*unsolved.in_float64())))


def _fit(model: nn.Module, inputs: Tensor, targets: Tensor, final_loss: float) -> None:
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(20_000):
        optimizer.zero_grad()
        loss = functional.cross_entropy(model(inputs), targets)
        if loss.item() < final_loss:
            return
        loss.backward()
        optimizer.step()
    raise RuntimeError(f"the loss is still {loss.item():.3g} after 20,000 steps; {final_loss:g} was asked for")


def dense_hessian(model: nn.Module, batches: Sequence[Batch]) -> np.ndarray:
    """The Hessian of the mean loss as a symmetric matrix (p, p), by double backward on rows of the identity."""
    parameters = list(model.parameters())
    ((inputs, targets),) = batches
    loss = functional.cross_entropy(model(inputs), targets)
    gradient = flat(torch.autograd.grad(loss, parameters, create_graph=True))
    rows = []
    for unit in torch.eye(len(gradient), dtype=gradient.dtype).split(_ROWS):
        parts = torch.autograd.grad(gradient, parameters, unit, retain_graph=True, is_grads_batched=True)
        rows.append(torch.cat([part.flatten(1) for part in parts], dim=1))
    matrix = torch.cat(rows).numpy()
    return (matrix + matrix.T) / 2


class Counting:
    """An operator that counts the vectors it is multiplied with, for whoever calls it as an operator or a function."""

    def __init__(self, operator: Operator):
        self.shape, self.dtype, self.device = operator.shape, operator.dtype, operator.device
        self.products = 0
        self._operator = operator

    def __matmul__(self, other: Tensor) -> Tensor:
        self.products += 1 if other.ndim == 1 else other.shape[1]
        return self._operator @ other
