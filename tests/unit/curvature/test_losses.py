"""Losses against their formulas."""

import math

import pytest
import torch

from hessketch.curvature.losses import LOSSES, correct, loss_function, mean_loss_and_accuracy, outputs_of
from hessketch.errors import InputError

OUTPUTS = torch.tensor([[1.0, -2.0, 0.5], [0.0, 0.0, 3.0]], dtype=torch.float64)
TARGETS = torch.tensor([2, 0])


def _softplus(x: float) -> float:
    return math.log1p(math.exp(x))


def test_cross_entropy_is_the_log_sum_minus_the_true_logit():
    expected = [torch.logsumexp(o, 0).item() - o[t].item() for o, t in zip(OUTPUTS, TARGETS, strict=True)]
    assert LOSSES["cross_entropy"](OUTPUTS, TARGETS).tolist() == pytest.approx(expected)


def test_binary_cross_entropy_asks_each_output_whether_it_is_its_class():
    first = (_softplus(1.0) + _softplus(-2.0) + _softplus(-0.5)) / 3
    assert LOSSES["binary_cross_entropy"](OUTPUTS, TARGETS)[0].item() == pytest.approx(first)


def test_mean_squared_error_measures_the_distance_to_the_one_hot_target():
    first = (1.0**2 + 2.0**2 + 0.5**2) / 3
    assert LOSSES["mean_squared_error"](OUTPUTS, TARGETS)[0].item() == pytest.approx(first)


def test_a_single_output_takes_the_label_itself_as_target():
    output, target = torch.tensor([[0.3], [-0.2]], dtype=torch.float64), torch.tensor([1, 0])
    assert LOSSES["binary_cross_entropy"](output, target).tolist() == pytest.approx([_softplus(-0.3), _softplus(-0.2)])
    assert LOSSES["mean_squared_error"](output, target).tolist() == pytest.approx([0.49, 0.04])
    assert correct(output, target).tolist() == [True, True]


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_sigmoid_squared_error_measures_the_distance_of_probabilities_to_the_one_hot_target():
    first = (_sigmoid(1.0) ** 2 + _sigmoid(-2.0) ** 2 + (1 - _sigmoid(0.5)) ** 2) / 3
    second = ((1 - 0.5) ** 2 + 0.5**2 + _sigmoid(3.0) ** 2) / 3
    assert LOSSES["sigmoid_squared_error"](OUTPUTS, TARGETS).tolist() == pytest.approx([first, second])
    output, target = torch.tensor([[0.3], [-0.2]], dtype=torch.float64), torch.tensor([1, 0])
    expected = [(1 - _sigmoid(0.3)) ** 2, _sigmoid(-0.2) ** 2]
    assert LOSSES["sigmoid_squared_error"](output, target).tolist() == pytest.approx(expected)


def test_slope_and_curvature_of_the_sigmoid_squared_error_are_the_closed_forms():
    for x in (-3.0, -0.4, 0.0, 1.7):
        for y in (0, 1):
            output = torch.tensor([[x]], dtype=torch.float64, requires_grad=True)
            value = LOSSES["sigmoid_squared_error"](output, torch.tensor([y])).sum()
            (slope,) = torch.autograd.grad(value, output, create_graph=True)
            (curvature,) = torch.autograd.grad(slope, output)
            s = _sigmoid(x)
            steep = s * (1 - s)
            assert slope.item() == pytest.approx(2 * (s - y) * steep, rel=1e-12)
            assert curvature.item() == pytest.approx(2 * steep**2 + 2 * (s - y) * steep * (1 - 2 * s), rel=1e-12)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("outputs", [1, 2, 5])
def test_every_loss_has_the_first_and_second_differences_of_its_derivatives(name, outputs):
    if name == "cross_entropy" and outputs == 1:
        pytest.skip("a softmax of one output is 1: that loss is 0")
    generator = torch.Generator().manual_seed(outputs)
    point = torch.randn(4, outputs, generator=generator, dtype=torch.float64, requires_grad=True)
    targets = torch.tensor([0, 1, 1, 0])
    assert torch.autograd.gradcheck(lambda o: LOSSES[name](o, targets), point)
    assert torch.autograd.gradgradcheck(lambda o: LOSSES[name](o, targets), point)
    assert LOSSES[name](point, targets).shape == (4,)


@pytest.mark.parametrize("name", LOSSES)
def test_two_classes_take_a_single_output_where_the_loss_asks_for_no_softmax(name):
    assert outputs_of(name, 2) == (2 if name == "cross_entropy" else 1)
    assert [outputs_of(name, classes) for classes in (3, 10, 100)] == [3, 10, 100]


def test_the_number_of_outputs_of_an_unknown_loss_is_refused():
    with pytest.raises(InputError, match="loss 'hinge' is unknown; allowed: cross_entropy"):
        outputs_of("hinge", 2)


@pytest.mark.parametrize("name", ["binary_cross_entropy", "mean_squared_error", "sigmoid_squared_error"])
def test_a_single_output_is_right_where_its_own_label_costs_less_than_the_other(name):
    outputs = torch.tensor([[-2.0], [-0.1], [0.1], [0.4], [0.6], [3.0]], dtype=torch.float64)
    zeros, ones = torch.zeros(6, dtype=torch.int64), torch.ones(6, dtype=torch.int64)
    is_one = LOSSES[name](outputs, ones) < LOSSES[name](outputs, zeros)
    assert torch.equal(correct(outputs, ones, LOSSES[name]), is_one)
    assert torch.equal(correct(outputs, zeros, LOSSES[name]), ~is_one)
    model = torch.nn.Identity()
    share = mean_loss_and_accuracy(model, LOSSES[name], [(outputs[:4], zeros[:4]), (outputs[4:], zeros[4:])])[1]
    assert share == pytest.approx((~is_one).sum().item() / 6)


def test_mean_loss_weights_batches_by_their_size_and_restores_the_mode():
    model = torch.nn.Sequential(torch.nn.Identity(), torch.nn.Dropout(0.5)).train()
    batches = [(OUTPUTS[:1], TARGETS[:1]), (OUTPUTS.repeat(2, 1), TARGETS.repeat(2))]
    loss, accuracy = mean_loss_and_accuracy(model, LOSSES["cross_entropy"], batches)
    each = LOSSES["cross_entropy"](OUTPUTS, TARGETS)
    assert loss == pytest.approx(((3 * each[0] + 2 * each[1]) / 5).item())
    assert accuracy == 0.0
    assert model.training


def test_an_unknown_loss_lists_the_allowed_ones():
    with pytest.raises(InputError, match="allowed: cross_entropy, binary_cross_entropy, mean_squared_error"):
        loss_function("hinge")
