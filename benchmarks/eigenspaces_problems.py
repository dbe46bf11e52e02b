"""Operators that many eigenpairs are asked of: dense matrices of known spectra, and Hessians of trained networks."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from hessketch.curvature.dense import dense_hessian
from hessketch.curvature.losses import cross_entropy
from hessketch.curvature.operators import CurvatureOperator
from hessketch.data.catalog import local_files
from hessketch.data.examples import load_examples
from hessketch.data.prepared import prepare_dataset
from hessketch.linalg.vectors import Operator, ProgressCallback
from hessketch.networks.registry import build_network

Batch = tuple[Tensor, Tensor]

_DATA_SEED = 0
_STEPS, _RATE, _BATCH = 300, 0.3, 500  # plain SGD, as Fernandez et al. 2025 train their smallest network


@dataclass(frozen=True)
class Solved:
    """An operator with its exact eigenpairs of largest magnitude."""

    name: str
    operator: Operator
    pairs: int  # asked for
    values: np.ndarray  # (p,) float64, by descending magnitude
    vectors: Tensor  # (p, pairs) float64


def spectra(p: int, pairs: int) -> dict[str, np.ndarray]:
    """Eigenvalues (p,) by descending magnitude, of kinds that a sketch finds easy and hard, for so many pairs of each.

    The clusters are multiple eigenvalues, each a quarter of the pairs; the low rank is half of the pairs.
    """
    index, random = np.arange(1, p + 1), np.random.default_rng(0)
    noise = 0.1 * random.standard_normal(p)
    kinds = {
        "exponential": 10.0 ** (-2 * index / pairs),
        "polynomial": 10.0 / index,
        "clustered": np.r_[np.repeat([10.0, 9.0, 5.0, 4.9], pairs // 4), 1e-3 * random.random(p - pairs // 4 * 4)],
        "indefinite": 10.0 / index * random.choice([1, 1, -1], p),
        "low rank and noise": noise + np.where(index <= pairs // 2, np.linspace(10, 20, p), 0),
    }
    return {name: values[np.argsort(-np.abs(values), kind="stable")] for name, values in kinds.items()}


def matrix(name: str, values: np.ndarray, pairs: int, dtype: torch.dtype = torch.float32) -> Solved:
    """A dense symmetric matrix of this spectrum (p,) by descending magnitude, eigenvectors in general position."""
    generator = torch.Generator().manual_seed(1)
    basis = torch.linalg.qr(torch.randn(len(values), len(values), generator=generator, dtype=torch.float64)).Q
    dense = (basis * torch.from_numpy(values)) @ basis.T
    return Solved(name, ((dense + dense.T) / 2).to(dtype), pairs, values, basis[:, :pairs].clone())


@dataclass(frozen=True)
class Network:
    """A float32 network in eval mode, trained for some hundred steps, and the examples its Hessian averages over."""

    model: nn.Module
    batches: Sequence[Batch]

    def operator(self) -> CurvatureOperator:
        return CurvatureOperator("hessian", self.model, cross_entropy, self.batches)


def network(name: str, width: float, steps: int = _STEPS, per_class: int = 50) -> Network:
    """`mlp_tanh` or another network of vectors, on 16x16 Fashion-MNIST where it is installed, else on 8x8 digits.

    Its Hessian averages over `per_class` training images of each class.
    """
    dataset = "fashion_mnist-16x16" if local_files("fashion_mnist", ".") else "digits-8x8"
    prepared = prepare_dataset(dataset, ".")
    train = load_examples(prepared, dataset, "train", None, 0.0, _DATA_SEED)
    measured = load_examples(prepared, dataset, "train", per_class, 0.0, _DATA_SEED)
    shape = tuple(train.inputs.shape[1:])
    model = build_network(name, input_shape=shape, classes=train.classes, width=width, norm="none", seed=0)
    optimizer = torch.optim.SGD(model.parameters(), lr=_RATE)
    generator = torch.Generator().manual_seed(2)
    for _ in range(steps):
        chosen = torch.randint(len(train), (min(_BATCH, len(train)),), generator=generator)
        optimizer.zero_grad()
        functional.cross_entropy(model(train.inputs[chosen]), train.targets[chosen]).backward()
        optimizer.step()
    optimizer.zero_grad()
    return Network(model.eval(), measured.batches(len(measured)))


def solved(name: str, of: Network, pairs: int, progress: ProgressCallback | None = None) -> Solved:
    """A network's Hessian with its exact decomposition, dense in float64."""
    values, vectors = torch.linalg.eigh(dense_hessian(of.model, cross_entropy, of.batches, progress=progress))
    order = values.abs().argsort(descending=True, stable=True)
    return Solved(name, of.operator(), pairs, values[order].numpy(), vectors[:, order[:pairs]].contiguous())
