"""Every operator of a network, the whole list in one place: linear, symmetric, and the same on a block of columns."""

from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from hessketch.curvature.class_mean_operators import PARTS, part_operator
from hessketch.curvature.class_means import class_means
from hessketch.curvature.class_terms import TermsOperator, class_terms
from hessketch.curvature.losses import loss_function
from hessketch.curvature.operators import OPERATORS, BlockDiagonalOperator, ComponentOperators, CurvatureOperator
from hessketch.curvature.points import ParameterSpace
from hessketch.data.examples import Examples
from hessketch.dynamics.step_moments import GradientNoise, NoiseCurvature

N, CLASSES = 12, 3


@cache
def setting() -> tuple[nn.Module, Examples, list]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, CLASSES)).double().eval()
    data = Examples(torch.randn(N, 4, dtype=torch.float64), torch.arange(N) % CLASSES, CLASSES)
    return model, data, [(data.inputs[:7], data.targets[:7]), (data.inputs[7:], data.targets[7:])]


@cache
def noise() -> GradientNoise:
    model, data, _ = setting()
    return GradientNoise(ParameterSpace(model), loss_function("cross_entropy"), data, 5)


class Component:
    """One of the three products that `ComponentOperators` takes together."""

    def __init__(self, name: str):
        model, _, batches = setting()
        self._name, self._all = name, ComponentOperators(model, nn.CrossEntropyLoss(), batches)
        self.shape = self._all.shape

    def __matmul__(self, other):
        return self._all.products(other)[self._name]


@cache
def operator(name: str):
    model, data, batches = setting()
    loss = nn.CrossEntropyLoss()
    kind, _, which = name.partition(" ")
    if kind == "part":
        return part_operator(which, model, batches, class_means(model, data))
    if kind == "terms":
        return TermsOperator(which, class_terms(model, data))
    if kind == "blocks":
        return BlockDiagonalOperator(which, model, loss, batches, blocks="tensors")
    if kind == "together":
        return Component(which)
    if kind == "noise":
        return NoiseCurvature(noise(), CurvatureOperator("hessian", model, loss, batches), None, N)
    one = [(data.inputs[:1], data.targets[:1])]
    return CurvatureOperator(name, model, loss, one if name == "predictor" else batches)


NAMES = [
    *OPERATORS,
    *(f"blocks {name}" for name in OPERATORS if name not in ("predictor", "gradient_covariance")),
    *(f"together {name}" for name in ("hessian", "ggn", "residual")),
    *(f"part {part}" for part in PARTS),
    *(f"terms {part}" for part in ("G", "G0", "others")),
    "noise curvature",
]
numbers = st.floats(-10, 10)


def vectors(size: int, count: int, seed: int) -> torch.Tensor:
    return torch.randn(size, count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=8)
@given(seed=st.integers(0, 2**31), a=numbers, b=numbers)
def test_an_operator_is_linear_and_symmetric(name, seed, a, b):
    made = operator(name)
    x, y = vectors(made.shape[0], 2, seed).T
    of_x, of_y = made @ x, made @ y
    torch.testing.assert_close(made @ (a * x + b * y), a * of_x + b * of_y, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(x @ of_y, y @ of_x, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_a_block_of_columns_is_multiplied_column_by_column_and_the_matrix_is_symmetric(name):
    made = operator(name)
    matrix = made @ torch.eye(made.shape[0], dtype=torch.float64)
    torch.testing.assert_close(matrix, matrix.T, rtol=1e-10, atol=1e-10)
    block = vectors(made.shape[0], 3, 1)
    torch.testing.assert_close(
        made @ block, torch.stack([made @ column for column in block.T], 1), rtol=1e-9, atol=1e-9
    )
    torch.testing.assert_close(made @ block, matrix @ block, rtol=1e-9, atol=1e-9)


@settings(max_examples=8)
@given(seed=st.integers(0, 2**31))
def test_spreading_gradient_noise_and_going_along_it_are_transposes(seed):
    model, _, _ = setting()
    weights = vectors(N, 1, seed)[:, 0]
    direction = vectors(sum(p.numel() for p in model.parameters()), 1, seed + 1)[:, 0]
    torch.testing.assert_close(noise().spread(weights) @ direction, weights @ noise().along(direction))
