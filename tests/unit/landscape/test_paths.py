"""Paths of low loss: curves against closed forms, gradients against autograd, searches where the answer is known."""

import copy
import math
from dataclasses import replace

import hypothesis
import numpy
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from hessketch.curvature.losses import LOSSES
from hessketch.data.examples import Examples
from hessketch.errors import InputError, NotFiniteError
from hessketch.landscape.lines import barrier, line, measured_along, weights_space
from hessketch.landscape.paths import KINDS, Curve, PathSettings, _draws, _Search, basis_weights, find_path

T = torch.linspace(0, 1, 61, dtype=torch.float64)


class Ring(nn.Module):
    """With a squared error and targets 1 the loss at theta is (|theta|^2 - 1)^2: its minima are a circle."""

    def __init__(self, dtype=torch.float64):
        super().__init__()
        self.theta = nn.Parameter(torch.zeros(2, dtype=dtype))

    def forward(self, inputs):
        return self.theta.square().sum() * inputs


RING = Examples(torch.ones(6, 1, dtype=torch.float64), torch.ones(6, dtype=torch.int64), 2)
FIRST = torch.tensor([1.0, 0.0], dtype=torch.float64)
SECOND = torch.tensor([-0.5, math.sqrt(0.75)], dtype=torch.float64)  # 120 degrees on
SETTINGS = PathSettings(steps=200, batch_size=0, learning_rate=0.03, bends=3)
SHORT = replace(SETTINGS, steps=102)


def found_on_ring(settings=SETTINGS, first=FIRST, second=SECOND, seed=0, model=None, data=RING, **options):
    return find_path(model or Ring().eval(), first, second, "mean_squared_error", data, settings, seed, **options)


def blobs(count: int, seed: int) -> Examples:
    """Four clusters in the plane, of two classes at opposite corners: a linear network cannot tell them apart."""
    generator = torch.Generator().manual_seed(seed)
    corners = torch.randint(0, 2, (count, 2), generator=generator)
    inputs = 2.0 * corners - 1 + 0.2 * torch.randn(count, 2, generator=generator)
    return Examples(inputs.double(), corners.sum(1) % 2, 2)


def network(units: int = 8, dtype=torch.float64) -> nn.Module:
    model = nn.Sequential(nn.Linear(2, units), nn.Tanh(), nn.Linear(units, 2))
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return model.to(dtype).eval()


def trained(model: nn.Module, data: Examples) -> nn.Module:
    adam = torch.optim.Adam(model.parameters(), 0.05)
    for _ in range(150):
        adam.zero_grad()
        LOSSES["cross_entropy"](model(data.inputs), data.targets).mean().backward()
        adam.step()
    return model


def permuted(model: nn.Module) -> nn.Module:
    """The same function, its hidden units in another order and every other one with its sign turned."""
    other, units = copy.deepcopy(model), model[0].out_features
    order = torch.arange(units).roll(3)
    sign = (-1.0) ** torch.arange(units)
    with torch.no_grad():
        other[0].weight.copy_(sign[:, None] * model[0].weight[order])
        other[0].bias.copy_(sign * model[0].bias[order])
        other[2].weight.copy_(sign * model[2].weight[:, order])
    return other


def de_casteljau(points: numpy.ndarray, t: float) -> numpy.ndarray:
    while len(points) > 1:
        points = (1 - t) * points[:-1] + t * points[1:]
    return points[0]


def interpolated(points: numpy.ndarray, t: float) -> numpy.ndarray:
    knots = numpy.linspace(0, 1, len(points))
    return numpy.array([numpy.interp(t, knots, column) for column in points.T])


@hypothesis.settings(max_examples=50, deadline=None)
@given(st.integers(1, 7), st.floats(0, 1), st.integers(0, 100))
def test_curves_are_those_of_de_casteljau_and_of_linear_interpolation(bends, t, seed):
    points = torch.randn(bends + 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    for kind, by_hand in (("bezier", de_casteljau), ("polyline", interpolated)):
        found = Curve(kind, points).at(torch.tensor([t], dtype=torch.float64))[0].numpy()
        assert found == pytest.approx(by_hand(points.numpy(), t), rel=1e-10, abs=1e-12)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bends", [1, 2, 6])
def test_weights_of_the_control_points_sum_to_1_and_are_all_on_the_ends_there(kind, bends):
    weights = basis_weights(kind, bends, T)
    torch.testing.assert_close(weights.sum(1), torch.ones_like(T), rtol=0, atol=1e-14)
    assert weights.min() >= 0
    ends = torch.zeros(2, bends + 2, dtype=torch.float64)
    ends[0, 0] = ends[1, -1] = 1
    assert torch.equal(weights[[0, -1]], ends)


def test_the_length_of_a_parabola_and_of_a_broken_line_are_known():
    parabola = Curve("bezier", torch.tensor([[0.0, 0.0], [0.5, 0.0], [1.0, 1.0]], dtype=torch.float64))
    assert parabola.length() == pytest.approx((2 * math.sqrt(5) + math.asinh(2)) / 4, rel=1e-5)
    broken = Curve("polyline", torch.tensor([[0.0, 0.0], [3.0, 4.0], [3.0, 16.0]], dtype=torch.float64))
    assert broken.length() == pytest.approx(17, rel=1e-12)
    points = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [2.0, 1.0]], dtype=torch.float64)
    assert Curve("polyline", points).length() == pytest.approx(3, rel=1e-12)  # no piece cuts a corner
    far = Curve("polyline", broken.points.float() + 1000)  # lengths are of differences, not of places
    assert far.length() == pytest.approx(17, rel=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_a_search_that_moves_nothing_leaves_the_straight_line(kind):
    path = found_on_ring(replace(SETTINGS, kind=kind, learning_rate=1e-30, steps=3))
    torch.testing.assert_close(path.at(T), line(FIRST, SECOND, T), rtol=0, atol=1e-14)
    assert path.length() == pytest.approx(float((SECOND - FIRST).norm()), rel=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_around_a_ring_the_line_has_its_known_barrier_and_the_found_path_none(kind):
    space = weights_space(Ring().eval())
    path = found_on_ring(replace(SETTINGS, kind=kind))
    losses = {}
    for name, place in (("line", lambda t: line(FIRST, SECOND, t)), ("found", path.at)):
        frame = measured_along(space, place, T, "mean_squared_error", RING, RING)
        losses[name] = barrier(T, torch.tensor(frame["train_loss"].to_numpy()))
    assert losses["line"] == pytest.approx(0.75**2, rel=1e-12)  # in its middle |theta|^2 is 1/4
    assert losses["found"] < 0.01 and path.length() == pytest.approx(2 * math.pi / 3, rel=0.03)


@pytest.mark.parametrize("kind", KINDS)
def test_two_orders_of_the_same_hidden_units_are_connected_though_not_by_the_line(kind):
    data = blobs(100, 0)
    first = trained(network(), data)
    second = permuted(first)
    torch.testing.assert_close(second(data.inputs), first(data.inputs))
    space, theta, end = weights_space(first), weights_space(first).theta, weights_space(second).theta
    path = find_path(first, theta, end, "cross_entropy", data, PathSettings(kind, steps=300, learning_rate=0.03), 0)
    rises = []
    for place in (lambda t: line(theta, end, t), path.at):
        frame = measured_along(space, place, T, "cross_entropy", data, data)
        rises.append(barrier(T, torch.tensor(frame["train_loss"].to_numpy())))
    assert rises[0] > 0.2 and rises[1] < 0.02, rises


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_ends_stay_where_they_are_to_the_last_bit(kind, dtype):
    data = blobs(30, 0)
    model = network(dtype=dtype)
    generator = torch.Generator().manual_seed(0)
    theta = weights_space(model).theta
    end = theta + torch.randn(len(theta), generator=generator).to(dtype)
    before = copy.deepcopy(model.state_dict())
    path = find_path(model, theta, end, "cross_entropy", data, PathSettings(kind, steps=30, batch_size=7), 0)
    found = path.at(torch.tensor([0.0, 1.0]))
    assert found.dtype == dtype and torch.equal(found[0], theta) and torch.equal(found[1], end)
    straight = line(theta, end, T[[30]])
    assert (path.at(T[[30]]) - straight).norm() > 1e-3  # while the rest moved
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_of_each_inner_point_is_its_weight_times_that_of_the_loss_there(kind):
    data, settings = blobs(20, 0), PathSettings(kind, bends=3)
    model = network()
    space = weights_space(model)
    ends = [space.theta, space.theta.flip(0)]
    search = _Search(space, ends, settings)
    for t in (0.1, 0.37, 0.8):
        at = torch.tensor([t], dtype=torch.float64)
        value = search.loss(basis_weights(kind, 3, at)[0], LOSSES["cross_entropy"], data.inputs, data.targets)
        (found,) = torch.autograd.grad(value, search._inner)
        point = search.curve().at(at)[0]
        with torch.no_grad():
            nn.utils.vector_to_parameters(point, model.parameters())
        wanted = LOSSES["cross_entropy"](model(data.inputs), data.targets).mean()
        gradient = torch.cat([g.reshape(-1) for g in torch.autograd.grad(wanted, list(model.parameters()))])
        assert value.item() == pytest.approx(wanted.item(), rel=1e-12)
        outer = basis_weights(kind, 3, at)[0, 1:-1, None] * gradient
        assert found.shape == (3, space.theta.numel()) and outer.abs().max() > 1e-3
        torch.testing.assert_close(found, outer, rtol=1e-10, atol=1e-13)


def test_the_seed_alone_fixes_the_path():
    settings = replace(SETTINGS, steps=40)
    torch.manual_seed(0)
    first = found_on_ring(settings).points
    torch.manual_seed(1)
    assert torch.equal(found_on_ring(settings).points, first)
    assert not torch.equal(found_on_ring(settings, seed=1).points, first)


def test_mini_batches_are_drawn_from_all_examples_and_all_of_them_are_the_full_batch():
    data, model = blobs(30, 0), network()
    theta = weights_space(model).theta

    def points(size, data=data):
        settings = PathSettings(steps=20, batch_size=size, learning_rate=0.1)
        return find_path(model, theta, theta.flip(0), "cross_entropy", data, settings, 0).points

    assert torch.equal(points(30), points(0)) and not torch.equal(points(29), points(0))
    last = Examples(data.inputs.clone(), torch.cat([data.targets[:-1], 1 - data.targets[-1:]]), 2)
    assert not torch.equal(points(10, last), points(10))


def test_every_block_of_steps_has_draws_of_its_own():
    settings = PathSettings("polyline", bends=1, steps=250, batch_size=2)
    like = torch.zeros(1, dtype=torch.float64)
    draws = [draw for start in (0, 100, 200) for draw in _draws(start, 1000, settings, 0, like)]
    assert [step for step, _, _ in draws] == list(range(250))
    assert len({tuple(weights.tolist()) for _, weights, _ in draws}) == 250
    assert len({tuple(chosen.tolist()) for _, _, chosen in draws}) > 245


def test_the_rate_falls_to_zero_over_the_second_half():
    settings = replace(SETTINGS, learning_rate=0.4, steps=8)
    assert [settings.rate_at(step) for step in range(8)] == pytest.approx([0.4] * 5 + [0.3, 0.2, 0.1])


class Killed(Exception):
    pass


def die_at(step):
    def progress(done, total):
        if done == step:
            raise Killed

    return progress


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_killed_search_ends_with_the_path_of_an_uninterrupted_one_to_the_last_bit(tmp_path, dtype):
    data, model = blobs(30, 0), network(dtype=dtype)
    theta = weights_space(model).theta
    settings = PathSettings(steps=210, batch_size=9)

    def points(**options):
        return find_path(model, theta, theta.flip(0), "cross_entropy", data, settings, 5, **options).points

    state, told = tmp_path / "search.safetensors", []
    for step in (100, 200):
        with pytest.raises(Killed):
            points(resume_file=state, save_every_seconds=0, progress=die_at(step))
    resumed = points(resume_file=state, save_every_seconds=0, progress=lambda done, total: told.append((done, total)))
    assert torch.equal(resumed, points()) and told == [(210, 210)]  # it went on after step 200


@pytest.mark.parametrize(
    "changes",
    [
        {"settings": replace(SHORT, kind="polyline")},
        {"seed": 1},
        {"second": SECOND.flip(0)},
        {"data": replace(RING, targets=0 * RING.targets)},
    ],
    ids=["settings", "seed", "end", "examples"],
)
def test_the_state_of_another_search_is_not_continued(tmp_path, changes):
    state = tmp_path / "search.safetensors"
    with pytest.raises(Killed):
        found_on_ring(SHORT, resume_file=state, save_every_seconds=0, progress=die_at(100))
    changes = {"settings": SHORT, **changes}
    again = found_on_ring(resume_file=state, save_every_seconds=1000, **changes)
    assert torch.equal(again.points, found_on_ring(**changes).points)


def test_a_damaged_state_is_not_continued_and_none_is_saved_before_it_is_time(tmp_path):
    state = tmp_path / "search.safetensors"
    expected = found_on_ring(SHORT, resume_file=state, save_every_seconds=1000)
    assert not state.exists()
    state.write_bytes(b"nothing")
    assert torch.equal(found_on_ring(SHORT, resume_file=state).points, expected.points)


def test_a_step_that_is_not_finite_is_named():
    """With this rate the second step's loss overflows; NaN among the examples is met by the first."""
    with pytest.raises(NotFiniteError, match=r"step 2 of the path's search: not finite; take a smaller learning_rate"):
        found_on_ring(replace(SETTINGS, learning_rate=1e100))
    with pytest.raises(NotFiniteError, match="step 1 of the path's search"):
        found_on_ring(data=replace(RING, inputs=RING.inputs * math.nan))
    with pytest.raises(NotFiniteError, match="step 1 of the path's search"):
        found_on_ring(replace(SETTINGS, learning_rate=1e308, steps=1), first=FIRST * 1e77)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"first": FIRST[:1]}, InputError, r"first has shape \(1,\), the network 2 parameters; give \(2,\)"),
        ({"second": SECOND[:, None]}, InputError, r"second has shape \(2, 1\)"),
        ({"second": SECOND / 0}, NotFiniteError, "the second end of the path is not finite"),
        ({"settings": replace(SETTINGS, batch_size=7)}, InputError, "mini-batches of 7 asked for, 6 examples given"),
        ({"model": Ring()}, InputError, "frozen and dropout off"),
        ({"model": nn.Sequential(Ring(), nn.BatchNorm1d(1)).eval()}, InputError, "batch norm, whose statistics"),
    ],
    ids=["short end", "column", "infinite end", "batch", "train mode", "batch norm"],
)
def test_what_cannot_be_searched_is_refused_in_words(changes, error, message):
    with pytest.raises(error, match=message):
        found_on_ring(**changes)


def test_bad_settings_are_all_named_at_once():
    with pytest.raises(InputError, match=r"bends: 0 given; .*steps: 0 given; .*momentum: 1 given; .*kind: 'bezir' is"):
        PathSettings(kind="bezir", bends=0, steps=0, momentum=1)
    for name, value in {"batch_size": -1, "learning_rate": math.inf}.items():
        with pytest.raises(InputError, match=f"{name}: {value} given"):
            PathSettings(**{name: value})


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_finds_the_same_path():
    on_gpu = find_path(
        Ring().cuda().eval(), FIRST.cuda(), SECOND.cuda(), "mean_squared_error", RING.to("cuda"), SETTINGS, 0
    )
    assert on_gpu.points.device.type == "cuda"
    torch.testing.assert_close(on_gpu.points.cpu(), found_on_ring().points, rtol=1e-8, atol=1e-10)
    assert on_gpu.length() == pytest.approx(found_on_ring().length(), rel=1e-8)
