"""The squared norm of a mean gradient, whatever the batches."""

import pytest
import torch
from torch import nn

from hessketch.curvature.gradients import squared_gradient_norm
from hessketch.curvature.losses import cross_entropy, mean_squared_error
from hessketch.errors import InputError


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double().eval()


@pytest.fixture
def data():
    generator = torch.Generator().manual_seed(1)
    return torch.randn(30, 4, generator=generator, dtype=torch.float64), torch.arange(30) % 3


@pytest.mark.parametrize("size", [1, 7, 30])
def test_it_is_that_of_the_mean_loss(model, data, size):
    inputs, targets = data
    nn.functional.cross_entropy(model(inputs), targets).backward()
    expected = sum(float(parameter.grad.square().sum()) for parameter in model.parameters())
    batches = list(zip(inputs.split(size), targets.split(size), strict=True))
    assert squared_gradient_norm(model, cross_entropy, batches) == pytest.approx(expected, rel=1e-12)


def test_it_vanishes_at_a_minimum():
    """Squared error of a linear layer at the least-squares solution."""
    inputs = torch.randn(20, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    targets = torch.arange(20) % 2
    layer = nn.Linear(3, 2, bias=False).double().eval()
    labels = nn.functional.one_hot(targets, 2).double()
    with torch.no_grad():
        layer.weight.copy_(torch.linalg.lstsq(inputs, labels).solution.T)
    assert squared_gradient_norm(layer, mean_squared_error, [(inputs, targets)]) < 1e-28


def test_a_parameter_that_is_not_used_counts_as_zero(model, data):
    model.unused = nn.Parameter(torch.ones(2, dtype=torch.float64))
    model.forward = lambda inputs: model[2](model[1](model[0](inputs)))
    assert squared_gradient_norm(model, cross_entropy, [data]) > 0


def test_no_examples_and_a_training_network_are_refused(model, data):
    with pytest.raises(InputError, match="no examples given"):
        squared_gradient_norm(model, cross_entropy, [])
    with pytest.raises(InputError, match=r"call model.eval\(\)"):
        squared_gradient_norm(model.train(), cross_entropy, [data])
