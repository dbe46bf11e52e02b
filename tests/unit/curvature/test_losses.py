"""Losses against their formulas."""

import math

import pytest
import torch
from torch import nn

from hessketch.curvature.losses import (
    LOSSES,
    as_loss,
    correct,
    cross_entropy,
    loss_function,
    loss_of_each,
    mean_loss_and_accuracy,
    outputs_of,
    summed_loss,
)
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


def test_a_loss_is_a_name_or_a_function_and_nothing_else():
    assert as_loss("cross_entropy") is cross_entropy and as_loss(cross_entropy) is cross_entropy
    plain = nn.CrossEntropyLoss()
    assert as_loss(plain) is plain
    for wrong in (3, None, nn.CrossEntropyLoss):
        with pytest.raises(InputError, match=r"give a function .* cross_entropy"):
            as_loss(wrong)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_module_with_weights_serves_both_precisions(dtype):
    weight, targets = torch.tensor([1.0, 3.0, 0.5]), torch.tensor([0, 1, 2, 1])
    outputs = torch.randn(4, 3, generator=torch.Generator().manual_seed(0)).to(dtype)
    found = as_loss(nn.CrossEntropyLoss(weight, reduction="none"))(outputs, targets)
    assert found.dtype == dtype
    torch.testing.assert_close(found, weight.to(dtype)[targets] * cross_entropy(outputs, targets))


@pytest.mark.parametrize("loss", [nn.CrossEntropyLoss(), nn.CrossEntropyLoss(reduction="sum"), cross_entropy])
def test_every_reduction_is_one_value_an_example(loss):
    outputs, targets = torch.randn(5, 3, dtype=torch.float64), torch.tensor([0, 1, 2, 1, 0])
    each = loss_of_each(loss, outputs, targets)
    torch.testing.assert_close(each(outputs[:4], targets[:4]), cross_entropy(outputs[:4], targets[:4]))


def test_a_loss_of_several_values_an_example_is_their_sum():
    outputs, targets = torch.randn(5, 3, dtype=torch.float64), torch.tensor([0, 1, 2, 1, 0])
    each = loss_of_each(lambda o, t: o.square(), outputs, targets)
    torch.testing.assert_close(each(outputs, targets), outputs.square().sum(1))


def test_a_mean_with_weights_has_no_value_an_example():
    outputs, targets = torch.randn(5, 3), torch.tensor([0, 1, 2, 1, 0])
    with pytest.raises(InputError, match="mean with weights"):
        loss_of_each(nn.CrossEntropyLoss(torch.tensor([1.0, 9.0, 0.1])), outputs, targets)


@pytest.mark.parametrize("targets", [torch.arange(120) % 5, torch.arange(120) // 24])
def test_a_mean_with_weights_is_found_out_in_data_of_equal_or_sorted_classes(targets):
    outputs = torch.randn(120, 5, generator=torch.Generator().manual_seed(0))
    with pytest.raises(InputError, match="mean with weights"):
        summed_loss(nn.CrossEntropyLoss(torch.arange(1.0, 6.0)), outputs, targets)
    for reduction in ("mean", "sum"):
        found = summed_loss(nn.CrossEntropyLoss(reduction=reduction), outputs, targets)(outputs, targets)
        torch.testing.assert_close(found, cross_entropy(outputs, targets).sum())


def test_by_a_function_a_single_output_is_right_where_its_label_costs_less():
    outputs, targets = torch.tensor([[0.2], [0.4], [0.9]]), torch.tensor([0, 1, 1])
    own = lambda o, t: (o[:, 0] - 0.6 * t).square()  # noqa: E731 (the border is 0.3)
    assert correct(outputs, targets, own).tolist() == [True, True, True]
    assert correct(outputs, 1 - targets, own).tolist() == [False, False, False]
    assert correct(outputs, targets, LOSSES["mean_squared_error"]).tolist() == [True, False, True]
