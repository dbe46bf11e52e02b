"""Bounds of the spectrum."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from known_spectra import Counted, generator, rotated

from hessketch.errors import InputError, NotFiniteError
from hessketch.linalg.lanczos import Ritz
from hessketch.linalg.normalization import Bounds, bounds_of_ritz, spectral_bounds


def test_bounds_are_the_outer_ritz_values_moved_by_residual_and_margin():
    pairs = Ritz(np.array([-1.0, 0.0, 2.0]), np.full(3, 1 / 3), np.array([0.5, 9.0, 0.25]))
    bounds = bounds_of_ritz(pairs, margin=0.1)
    assert (bounds.lower, bounds.upper) == pytest.approx((-1.5 - 0.375, 2.25 + 0.375))


def test_an_exhausted_krylov_space_leaves_the_margin_only():
    bounds = spectral_bounds(rotated([-2.0, 0.0, 1.0, 8.0]), generator(), margin=0.05)
    assert (bounds.lower, bounds.upper) == pytest.approx((-2.5, 8.5), abs=1e-10)
    assert (bounds.center, bounds.half_width) == pytest.approx((3.0, 5.5), abs=1e-10)


@pytest.mark.parametrize(
    "values",
    [
        np.linspace(-1, 1, 500),
        np.linspace(0, 1, 500) ** 4,
        np.concatenate([np.zeros(490), np.geomspace(1, 100, 10)]),
        np.concatenate([np.linspace(-0.1, 0.1, 498), [-30.0, 40.0]]),
        np.random.default_rng(0).standard_t(2, size=500),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_bounds_contain_a_large_spectrum_and_are_not_much_wider(values, dtype):
    bounds = spectral_bounds(rotated(values, dtype=dtype), generator(1))
    assert bounds.lower <= values.min() and values.max() <= bounds.upper
    assert bounds.half_width <= 1.2 * np.ptp(values) / 2


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(-100, 100).filter(lambda x: x == 0 or abs(x) > 1e-100), min_size=1, max_size=12),
       st.integers(0, 99))  # fmt: skip
def test_bounds_contain_a_spectrum_smaller_than_the_steps(values, seed):
    bounds = spectral_bounds(rotated(values, seed), generator(seed))
    assert bounds.lower <= min(values) and max(values) <= bounds.upper


@pytest.mark.parametrize(("value", "half_width"), [(0.0, 1e-6), (1.0, 1e-6), (-500.0, 5e-4), (1e-9, 1e-15)])
def test_a_multiple_of_the_identity_gets_a_small_interval_around_it(value, half_width):
    bounds = spectral_bounds(value * torch.eye(7, dtype=torch.float64), generator())
    assert bounds.half_width == pytest.approx(half_width, rel=1e-6)
    assert bounds.lower < value < bounds.upper


@settings(max_examples=30, deadline=None)
@given(st.floats(-50, 50), st.floats(0.01, 50), st.floats(-100, 100))
def test_the_maps_to_and_from_the_unit_interval_undo_each_other(lower, width, value):
    bounds = Bounds(lower, lower + width)
    assert bounds.to_unit(np.array([bounds.lower, bounds.center, bounds.upper])) == pytest.approx([-1, 0, 1], abs=1e-9)
    assert bounds.from_unit(bounds.to_unit(value)) == pytest.approx(value, rel=1e-9, abs=1e-9)


@settings(max_examples=20, deadline=None)
@given(st.floats(-5, 5), st.floats(0.1, 10), st.integers(0, 99))
def test_bounds_move_with_shift_and_scale(shift, scale, seed):
    matrix = rotated(np.linspace(-1, 3, 40), seed)
    before = spectral_bounds(matrix, generator(seed), steps=6)
    after = spectral_bounds(scale * matrix + shift * torch.eye(40, dtype=torch.float64), generator(seed), steps=6)
    expected = (scale * before.lower + shift, scale * before.upper + shift)
    assert (after.lower, after.upper) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("margin", [-0.1, float("nan"), float("inf")])
def test_a_margin_below_zero_or_not_finite_is_refused(margin):
    with pytest.raises(InputError, match="margin"):
        spectral_bounds(torch.eye(3), generator(), margin=margin)


def test_products_that_are_not_finite_name_the_step():
    with pytest.raises(NotFiniteError, match="step 2 of 64"):
        spectral_bounds(Counted(rotated(np.arange(9.0)), bad_from=2), generator())


def test_progress_runs_to_the_number_of_steps():
    told = []
    spectral_bounds(rotated(np.arange(9.0)), generator(), steps=5, progress=lambda *numbers: told.append(numbers))
    assert told == [(i, 5) for i in range(1, 6)]
