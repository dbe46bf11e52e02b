"""Losses along lines: against networks whose weights are set by hand, and against parabolas."""

import copy
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from hessketch.curvature.losses import LOSSES, mean_loss_and_accuracy
from hessketch.data.examples import Examples
from hessketch.errors import InputError, NotFiniteError
from hessketch.landscape import lines
from hessketch.landscape.lines import MEASURED, barrier, line, measured_along, weights_space

ALPHAS = torch.arange(-4, 9, dtype=torch.float64) / 4


def examples(count: int, seed: int, classes: int = 3) -> Examples:
    generator = torch.Generator().manual_seed(seed)
    targets = torch.randint(0, classes, (count,), generator=generator)
    inputs = torch.randn(count, 5, generator=generator, dtype=torch.float64) + targets[:, None]
    return Examples(inputs, targets, classes)


def network(seed: int = 0, outputs: int = 3, middle: tuple = (), dtype: torch.dtype = torch.float64) -> nn.Module:
    model = nn.Sequential(nn.Linear(5, 6), *middle, nn.Tanh(), nn.Linear(6, outputs))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.7)
    return model.to(dtype).eval()


def between(first: nn.Module, second: nn.Module, alpha: float) -> nn.Module:
    """The network with every tensor of the state on the line, one by one."""
    model = copy.deepcopy(first)
    start, end = first.state_dict(), second.state_dict()
    model.load_state_dict({name: start[name] + alpha * (end[name] - start[name]) for name in start})
    return model


def along(first, second, t=ALPHAS, loss="cross_entropy", train=None, test=None):
    space, end = weights_space(first), weights_space(second).theta
    train, test = train or examples(40, 0), test or examples(17, 1)
    return measured_along(space, lambda part: line(space.theta, end, part), t, loss, train, test)


@pytest.mark.parametrize(
    ("loss", "classes", "outputs"),
    [
        ("cross_entropy", 3, 3),
        ("mean_squared_error", 3, 3),
        ("binary_cross_entropy", 2, 1),
        ("mean_squared_error", 2, 1),
    ],
)
def test_losses_and_accuracies_are_those_of_networks_put_on_the_line_by_hand(loss, classes, outputs):
    first, second = network(0, outputs), network(1, outputs)
    train, test = examples(40, 0, classes), examples(17, 1, classes)
    found = along(first, second, loss=loss, train=train, test=test)
    assert list(found) == ["t", *MEASURED] and found["t"].tolist() == ALPHAS.tolist()
    for _, row in found.iterrows():
        model = between(first, second, row["t"])
        for split, of_split in (("train", train), ("test", test)):
            wanted = mean_loss_and_accuracy(model, LOSSES[loss], of_split.batches(7))
            assert row[f"{split}_loss"] == pytest.approx(wanted[0], rel=1e-12)
            assert row[f"{split}_accuracy"] == pytest.approx(wanted[1], rel=1e-12)
    assert found["train_loss"].nunique() == len(found) and 0 < found["train_accuracy"].mean() < 1


def test_a_linear_network_with_squared_errors_has_a_parabola_along_every_line():
    first, second = (nn.Sequential(nn.Linear(5, 3)).double().eval() for _ in range(2))
    losses = torch.tensor(along(first, second, loss="mean_squared_error")["train_loss"].to_numpy())
    third_differences = losses.diff().diff().diff()
    assert losses.diff().diff().min() > 1e-3  # it is curved
    assert third_differences.abs().max() < 1e-10 * losses.max()


def test_networks_in_float32_stay_so_and_their_losses_are_summed_in_float64():
    """Of a million equal losses a sum in float32 is off in the fourth digit."""
    first, second = network(0, dtype=torch.float32), network(1, dtype=torch.float32)
    one = examples(1, 3)
    many = Examples(one.inputs.expand(10**6, -1), one.targets.expand(10**6), 3)
    found, single = (along(first, second, ALPHAS[4:5] + 0.3, train=part) for part in (many, one))
    assert found["train_loss"][0] == pytest.approx(single["train_loss"][0], rel=1e-6)
    exact = along(first.double(), second.double(), ALPHAS[4:5] + 0.3, train=one)["train_loss"][0]
    assert single["train_loss"][0] == pytest.approx(exact, rel=1e-5) and single["train_loss"][0] != exact


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_ends_of_a_line_are_the_points_given_to_the_last_bit(dtype):
    generator = torch.Generator().manual_seed(0)
    first, second = (torch.randn(1000, generator=generator, dtype=torch.float64).to(dtype) for _ in range(2))
    found = line(first, second, torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64))
    assert found.dtype == dtype and torch.equal(found[0], first) and torch.equal(found[2], second)
    torch.testing.assert_close(found[1], (first + second) / 2)


def test_points_are_taken_in_parts_that_change_nothing(monkeypatch):
    whole = along(network(0), network(1))
    parts, original = [], lines.means_at
    monkeypatch.setattr(lines, "means_at", lambda s, points, *a: parts.append(len(points)) or original(s, points, *a))
    monkeypatch.setattr(lines, "_NUMBERS_HELD", 5 * (5 * 6 + 6 + 6 * 3 + 3))
    again = along(network(0), network(1))
    assert set(parts) == {5, 3}
    for name in MEASURED:
        assert again[name].tolist() == pytest.approx(whole[name].tolist(), rel=1e-12)


def test_batch_norm_is_refused_and_group_norm_is_not():
    with pytest.raises(InputError, match=r"batch norm, whose statistics .*; take norm none or group"):
        weights_space(network(0, middle=(nn.BatchNorm1d(6),)))
    assert len(along(*(network(seed, middle=(nn.GroupNorm(2, 6),)) for seed in range(2)))) == len(ALPHAS)


def test_a_network_in_train_mode_and_an_unknown_loss_are_refused():
    with pytest.raises(InputError, match="frozen and dropout off"):
        weights_space(network().train())
    with pytest.raises(InputError, match="loss 'hinge' is unknown"):
        along(network(0), network(1), loss="hinge")


def test_a_loss_that_is_not_finite_is_named_with_its_place():
    first, second = network(0), network(1)
    with torch.no_grad():
        second[0].weight.fill_(math.nan)
    with pytest.raises(NotFiniteError, match=r"the train loss at t = -1 is not finite"):
        along(first, second)
    inputs = examples(4, 0).inputs.clone()
    inputs[2, 1] = math.nan
    broken = Examples(inputs, examples(4, 0).targets, 3)
    with pytest.raises(NotFiniteError, match=r"the test loss at t = 0\.25 is not finite"):
        along(first, network(1), ALPHAS[5:], test=broken)


def test_a_barrier_is_the_highest_rise_above_the_line_between_the_ends():
    t = torch.tensor([-1.0, 0.0, 0.25, 0.5, 1.0, 2.0], dtype=torch.float64)
    losses = torch.tensor([9.0, 1.0, 2.5, 2.75, 3.0, 50.0], dtype=torch.float64)
    assert barrier(t, losses) == pytest.approx(1.0)  # at 0.25: 2.5 above 1.5, though 2.75 and 3 are higher
    assert barrier(t, (t - 0.4).square()) == 0


@given(
    st.lists(st.floats(-5, 5), min_size=5, max_size=5),
    st.floats(-5, 5),
    st.floats(-5, 5),
)
def test_a_barrier_knows_no_slope_is_never_negative_and_the_same_from_either_end(values, level, slope):
    t = torch.linspace(0, 1, 5, dtype=torch.float64)
    losses = torch.tensor(values, dtype=torch.float64)
    found = barrier(t, losses)
    assert found >= 0
    assert barrier(t, losses + level + slope * t) == pytest.approx(found, abs=1e-12)
    assert barrier(t, losses.flip(0)) == pytest.approx(found, abs=1e-12)


@pytest.mark.parametrize("part", [slice(1, None), slice(None, -1)], ids=["no start", "no end"])
def test_a_barrier_without_its_ends_is_refused(part):
    t = torch.linspace(0, 1, 5, dtype=torch.float64)[part]
    with pytest.raises(InputError, match="between t = 0 and t = 1; give the losses there too"):
        barrier(t, t)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_the_same_losses():
    expected, found = along(network(0), network(1)), along(network(0).cuda(), network(1).cuda())
    for name in MEASURED:
        assert found[name].tolist() == pytest.approx(expected[name].tolist(), rel=1e-10)
