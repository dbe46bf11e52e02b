"""Counting outliers: false alarms on bulks without any, detection of spikes put above them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hessketch.errors import InputError
from hessketch.linalg.outliers import count_outliers

EXAMINED = 50


def _pareto(rng: np.random.Generator, exponent: float) -> np.ndarray:
    return rng.uniform(size=2000) ** (-1 / exponent)


def _wigner(rng: np.random.Generator) -> np.ndarray:
    matrix = rng.standard_normal((200, 200))
    return np.linalg.eigvalsh((matrix + matrix.T) / 20)  # edges at -2 and 2


def _covariance(rng: np.random.Generator, rows: int) -> np.ndarray:
    data = rng.standard_normal((rows, 200))
    return np.linalg.eigvalsh(data.T @ data)


BULKS = {
    "Pareto 1.6": lambda rng: _pareto(rng, 1.6),
    "Pareto 3": lambda rng: _pareto(rng, 3.0),
    "exponential": lambda rng: rng.exponential(size=2000),
    "Wigner": _wigner,
    "Marchenko-Pastur, hard edge": lambda rng: _covariance(rng, 200),
    "Marchenko-Pastur, soft edge": lambda rng: _covariance(rng, 400),
}


def _spiked(bulk: np.ndarray, factor: float, spikes: int = 10) -> np.ndarray:
    """Leading values of a bulk under spikes that run from `factor` to five times `factor` its edge."""
    above = np.geomspace(factor, 5 * factor, spikes) * bulk.max()
    return np.sort(np.concatenate([above, bulk]))[::-1][:EXAMINED]


@pytest.mark.parametrize(
    ("name", "trials", "most"),
    [
        # At 1%, more than 20 alarms in 1000 trials have probability 0.1%; values that repel each other raise none.
        ("Pareto 3", 1000, 20),
        ("exponential", 1000, 10),
        ("Wigner", 25, 0),
        ("Marchenko-Pastur, hard edge", 25, 0),
        ("Marchenko-Pastur, soft edge", 25, 0),
    ],
)
def test_a_bulk_without_outliers_raises_few_false_alarms(name, trials, most):
    rng = np.random.default_rng(3)
    alarms = sum(count_outliers(np.sort(BULKS[name](rng))[::-1][:EXAMINED]) > 0 for _ in range(trials))
    assert alarms <= most


@pytest.mark.parametrize("power", [0.25, 4.0])
def test_a_power_of_all_values_leaves_the_count(power):
    values = _spiked(_pareto(np.random.default_rng(8), 3.0), 5.0)
    assert count_outliers(values**power) == count_outliers(values) == 10


@pytest.mark.parametrize(
    ("name", "factor", "share"),
    [
        ("Wigner", 1.5, 1.0),
        ("Marchenko-Pastur, hard edge", 1.5, 0.95),
        ("Marchenko-Pastur, soft edge", 1.5, 1.0),
        ("exponential", 2.0, 0.9),
        ("Pareto 3", 5.0, 0.85),
        ("Pareto 1.6", 5.0, 0.55),
    ],
)
def test_ten_spikes_above_a_bulk_are_counted(name, factor, share):
    rng, trials = np.random.default_rng(4), 20 if name.startswith(("Wigner", "Marchenko")) else 60
    counts = np.array([count_outliers(_spiked(BULKS[name](rng), factor)) for _ in range(trials)])
    assert (counts == 10).mean() >= share
    assert (counts >= 10).mean() >= 0.95  # behind true outliers a heavy tail's own first may be counted, none missed


@pytest.mark.parametrize("spikes", [1, 2, 5, 9, 20])
def test_any_number_of_spikes_in_the_upper_half_is_counted(spikes):
    bulk = _wigner(np.random.default_rng(5))
    assert count_outliers(_spiked(bulk, 2.0, spikes)) == spikes


@pytest.mark.parametrize("far", [100.0, 1e10])  # the lower or the upper gap is the clearer one
def test_two_groups_of_outliers_are_counted_together(far):
    bulk = _wigner(np.random.default_rng(6))
    values = np.concatenate([[far, 1.5 * far], np.linspace(3, 3.9, 7), np.sort(bulk)[::-1][:41]])
    assert count_outliers(values) == 9


def test_negative_outliers_are_counted_by_negation():
    values = np.concatenate([_wigner(np.random.default_rng(7)), [-6.0, -5.0, -9.0]])
    assert count_outliers(np.sort(-values)[::-1][:EXAMINED]) == 3
    assert count_outliers(np.sort(values)[::-1][:EXAMINED]) == 0


@pytest.mark.parametrize(
    "values",
    [[], [3.0], [1e9, 5.0, 4.0, 3.0, 2.0], [1e9, *range(1, 9)], [2.0] * 50, [0.0] * 50, [-1e9, *[-1.0] * 30]],
)
def test_too_few_or_equal_or_nonpositive_values_hold_no_outlier(values):
    assert count_outliers(np.array(values)) == 0


def test_ten_values_are_enough_for_one_clear_outlier():
    assert count_outliers(np.array([1e9, *range(1, 10)])) == 1


def test_outliers_above_equal_values_are_counted():
    assert count_outliers(np.array([100.0] * 5 + [1.0] * 30)) == 5


def test_evenly_spaced_values_hold_no_outlier():
    assert count_outliers(np.linspace(1, 2, 50)) == 0
    assert count_outliers(np.geomspace(1, 1000, 50)) == 0


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(1e-3, 1e6), min_size=0, max_size=40), st.floats(1e-3, 1e3), st.randoms(use_true_random=False))
def test_order_scale_and_nonpositive_values_do_not_matter_and_half_is_the_most(values, scale, random):
    count = count_outliers(np.array(values))
    assert isinstance(count, int)
    assert 0 <= count <= len(values) // 2
    changed = [*values, 0.0, -5.0]
    random.shuffle(changed)
    assert count_outliers(np.array(changed)) == count
    assert count_outliers(2.0 ** np.round(np.log2(scale)) * np.array(values)) == count


def test_a_smaller_significance_is_harder_to_reach():
    rng = np.random.default_rng(9)
    spectra = [_spiked(rng.exponential(size=2000), 8.0, spikes=1) for _ in range(50)]
    found = [sum(count_outliers(values, level) > 0 for values in spectra) for level in (0.3, 0.01, 1e-9)]
    assert found[0] > found[1] > found[2] == 0


@pytest.mark.parametrize(
    ("values", "significance", "message"),
    [
        ([1.0, np.nan], 0.01, "finite"),
        ([1.0, np.inf], 0.01, "finite"),
        ([[1.0]], 0.01, "vector"),
        ([1.0], 0.0, "significance"),
        ([1.0], 1.0, "significance"),
        ([1.0], np.nan, "significance"),
    ],
)
def test_bad_arguments_are_refused(values, significance, message):
    with pytest.raises(InputError, match=message):
        count_outliers(np.array(values), significance)
