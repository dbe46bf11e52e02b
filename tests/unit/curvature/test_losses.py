"""Losses against their formulas."""

import math

import pytest
import torch

from hessketch.curvature.losses import LOSSES, correct, loss_function, mean_loss_and_accuracy
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
