"""The memory of error feedback: no mass is lost, and it stays bounded exactly where the lift is a contraction."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hessketch.federated.error_feedback import ErrorMemory
from hessketch.federated.methods.count_sketch import SketchedAveraging
from hessketch.federated.methods.top_r import LocalTopR
from hessketch.linalg.count_sketch import PLACEMENTS

CPU = torch.device("cpu")
placements = pytest.mark.parametrize("placement", PLACEMENTS)


def random_vector(dimension, seed, dtype=torch.float64):
    return torch.randn(dimension, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def send(memory, method, update, step, holder=0):
    """One round of one client: what was due and what the others see of it."""
    due = memory.due(holder, update)
    sent = method.decode(method.encode(due, step), step)
    memory.keep(holder, due, sent)
    return due, sent


def test_a_new_memory_owes_nothing():
    memory, update = ErrorMemory(3, CPU), torch.tensor([1.0, -2.0, 3.0])
    assert torch.equal(memory.due(0, update), update)
    assert memory.norm() == 0
    assert memory.state() == {}


def test_what_was_not_sent_is_due_the_next_time_by_hand():
    memory = ErrorMemory(3, CPU)
    due = memory.due(4, torch.tensor([1.0, -2.0, 3.0]))
    memory.keep(4, due, torch.tensor([0.0, 0.0, 3.0]))
    assert memory.due(4, torch.tensor([1.0, 1.0, 1.0])).tolist() == [2, -1, 1]
    assert memory.due(5, torch.tensor([1.0, 1.0, 1.0])).tolist() == [1, 1, 1]
    memory.keep(4, torch.ones(3), torch.tensor([0.0, 1.0, 1.0]))
    assert memory.due(4, torch.zeros(3)).tolist() == [1, 0, 0]


def test_the_norm_is_the_root_of_the_mean_square_over_holders():
    memory = ErrorMemory(2, CPU)
    for holder, kept in enumerate([[3.0, 4.0], [0.0, 0.0], [0.0, 1.0]]):
        memory.keep(holder, torch.tensor(kept), torch.zeros(2))
    assert memory.norm() == pytest.approx(math.sqrt((25 + 0 + 1) / 3))


def test_the_norm_of_large_entries_does_not_overflow():
    memory = ErrorMemory(2, CPU)
    memory.keep(0, torch.tensor([3e30, 4e30]), torch.zeros(2))
    assert memory.norm() == pytest.approx(5e30)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_restored_memory_goes_on_bit_for_bit(dtype):
    memory, restored, method = ErrorMemory(50, CPU), ErrorMemory(50, CPU), LocalTopR(50, 7)
    for step in range(3):
        for holder in (0, 3, 11):
            send(memory, method, random_vector(50, 10 * step + holder, dtype), step, holder)
    state = {name: kept.clone() for name, kept in memory.state().items()}
    restored.load_state(state)
    assert sorted(restored.state()) == ["0", "11", "3"]
    assert restored.norm() == memory.norm()
    for step in range(3, 6):
        for holder in (0, 3, 7):
            update = random_vector(50, 10 * step + holder, dtype)
            pairs = zip(
                send(memory, method, update, step, holder), send(restored, method, update, step, holder), strict=True
            )
            assert all(torch.equal(a, b) for a, b in pairs)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.lists(st.floats(-1e6, 1e6, width=32), min_size=6, max_size=6), min_size=1, max_size=5),
    st.integers(1, 6),
)
def test_top_r_sends_or_keeps_every_entry_exactly(updates, count):
    memory, method = ErrorMemory(6, CPU), LocalTopR(6, count)
    for step, update in enumerate(updates):
        due, sent = send(memory, method, torch.tensor(update), step)
        kept = memory.state()["0"]
        assert torch.equal(sent + kept, due)
        assert torch.equal(sent == 0, (kept != 0) | (due == 0))


@placements
@pytest.mark.parametrize("dimension, columns, scale", [(257, 256, 0.5), (385, 128, 0.25)])
def test_a_sketch_sends_and_keeps_what_was_due_exactly(placement, dimension, columns, scale):
    """Whole numbers and a scale that is a power of 2: nothing is rounded, so that over all rounds not a bit is lost."""
    method = SketchedAveraging(dimension, 1, columns, 3, error_feedback=True, placement=placement)
    assert method.scale == scale
    memory, all_due, all_sent = ErrorMemory(dimension, CPU), 0, 0
    for step in range(5):
        update = (10 * random_vector(dimension, step)).round()
        due, sent = send(memory, method, update, step)
        all_due, all_sent = all_due + update, all_sent + sent
        assert torch.equal(sent + memory.state()["0"], due)
        assert not torch.equal(sent, due)
    assert torch.equal(all_sent + memory.state()["0"], all_due)


@placements
def test_sent_and_kept_are_what_was_due_up_to_a_rounding(placement):
    method = SketchedAveraging(1000, 1, 30, 3, error_feedback=True, placement=placement)
    memory = ErrorMemory(1000, CPU)
    for step in range(5):
        due, sent = send(memory, method, random_vector(1000, step, torch.float32), step)
        kept = memory.state()["0"]
        assert torch.equal(kept, due - sent)
        assert ((sent + kept) - due).abs().max() <= 2**-23 * (sent.abs() + kept.abs()).max()


# The lift as a contraction


def mean_error(method, x, draws):
    """|decode(encode(x)) - x|^2 / |x|^2 over fresh hashes."""
    missing = [(method.decode(method.encode(x, step), step) - x).square().sum() for step in range(draws)]
    return float(sum(missing) / draws / x.square().sum())


@placements
@pytest.mark.parametrize("rows, columns", [(1, 20), (3, 20), (1, 150)])
def test_the_scaled_lift_is_a_contraction_and_the_unscaled_is_not(placement, rows, columns):
    dimension, x = 200, random_vector(200, 7)
    scaled = SketchedAveraging(dimension, rows, columns, 5, error_feedback=True, placement=placement)
    plain = SketchedAveraging(dimension, rows, columns, 5, placement=placement)
    assert plain.scale == 1
    expansion = (dimension - 1) / (rows * columns)
    assert scaled.scale == pytest.approx(1 / (1 + expansion))
    scaled_error, plain_error = mean_error(scaled, x, 400), mean_error(plain, x, 400)
    assert scaled_error == pytest.approx(scaled.expected_error(x), rel=0.05)
    assert plain_error == pytest.approx(plain.expected_error(x), rel=0.05)
    if placement == "hash":
        assert scaled_error == pytest.approx(1 - scaled.scale, rel=0.05)
        assert plain_error == pytest.approx(expansion, rel=0.05)
    assert scaled.expected_error(x) <= 1 - scaled.scale + 1e-12


def test_no_other_scale_has_a_smaller_error():
    method, x = SketchedAveraging(200, 1, 40, 5, error_feedback=True), random_vector(200, 7)
    method.encode(x, 0)
    least, best = method.expected_error(x), method.scale
    for factor in (0.5, 0.9, 1.1, 2):
        method.scale = factor * best
        assert method.expected_error(x) > least


def norms_over_rounds(method, update, rounds):
    memory, norms = ErrorMemory(len(update), CPU), []
    for step in range(rounds):
        send(memory, method, update, step)
        norms.append(memory.norm())
    return torch.tensor(norms, dtype=torch.float64)


@placements
def test_the_memory_is_bounded_with_the_scaled_lift_and_grows_without_bound_with_the_unscaled(placement):
    """With E|e'|^2 <= (1 - scale) E|e + u|^2, the root mean square of |e| is at most q / (1 - q) |u|, q^2 = 1 - scale.

    The same update each round: the mean of e then goes to (1 - scale) / scale u, a good part of the bound.
    """
    update, rounds, seeds = random_vector(300, 1), 100, 20
    scaled, plain = [], []
    for seed in range(seeds):
        method = SketchedAveraging(300, 1, 30, seed, error_feedback=True, placement=placement)
        scaled.append(norms_over_rounds(method, update, rounds))
        method.scale = 1.0
        plain.append(norms_over_rounds(method, update, 40))
    contraction = math.sqrt(1 - 1 / (1 + 299 / 30))
    bound = contraction / (1 - contraction) * float(update.norm())
    root_mean_square = torch.stack(scaled).square().mean(0).sqrt()
    assert root_mean_square.max() <= bound
    assert root_mean_square[-1] >= 0.3 * bound
    assert (root_mean_square[-1] / root_mean_square[-20]) == pytest.approx(1, abs=0.1)
    for norms in plain:
        assert norms[-1] > 1e6 * bound
        assert (norms[10:] / norms[:-10]).min() > 10


@settings(max_examples=200, deadline=None)
@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=12), st.data())
def test_top_r_is_a_contraction_by_its_bound(values, data):
    x = torch.tensor(values, dtype=torch.float64)
    method = LocalTopR(len(values), data.draw(st.integers(1, len(values))))
    missing = (method.decode(method.encode(x, 0), 0) - x).square().sum()
    assert missing <= method.expected_error(x) * x.square().sum() * (1 + 1e-12)


def test_the_bound_of_top_r_is_reached_by_equal_magnitudes():
    x, method = torch.tensor([2.0, -2.0, 2.0, 2.0, -2.0]), LocalTopR(5, 2)
    assert method.expected_error(x) == 0.6
    assert (method.encode(x, 0) - x).square().sum() / x.square().sum() == pytest.approx(0.6)
