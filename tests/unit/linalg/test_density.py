"""LANCZOSAPPROXSPEC against Gaussians written out and dense eigenvalues."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from known_spectra import generator, integral, rotated

from hessketch.errors import InputError
from hessketch.linalg.density import kernel_width, lanczos_density
from hessketch.linalg.lanczos import Ritz, fast_lanczos, ritz, slow_lanczos
from hessketch.linalg.normalization import Bounds, bounds_of_ritz


def _gaussians(x: np.ndarray, centers, weights, sigma: float) -> np.ndarray:
    """The smoothed density in the operator's units, without truncation."""
    peaks = np.exp(-(((x[:, None] - np.asarray(centers)) / sigma) ** 2) / 2) / (sigma * math.sqrt(2 * math.pi))
    return peaks @ np.asarray(weights)


def _spikes(values, weights=None) -> Ritz:
    values = np.array(values, dtype=float)
    weights = np.full(len(values), 1 / len(values)) if weights is None else np.array(weights)
    return Ritz(values, weights, np.zeros(len(values)))


def test_the_kernel_falls_to_four_fifths_half_a_step_away():
    half_step = 1 / (64 - 1)
    assert math.exp(-((half_step / kernel_width(64)) ** 2) / 2) == pytest.approx(1 / 1.25)


def test_the_kernel_width_of_the_paper_is_that_of_256_steps():
    assert kernel_width(256) == pytest.approx(0.0058702, abs=1e-7)


def test_ritz_values_become_weighted_gaussians_on_the_original_axis():
    bounds = Bounds(-3.0, 5.0)
    density = lanczos_density([_spikes([-1.0, 2.0], [0.25, 0.75])], bounds, points=801, steps=50)
    assert density.eigenvalues[[0, 400, 800]] == pytest.approx([-3, 1, 5])
    assert density.broadening == pytest.approx(4 * kernel_width(50))
    expected = _gaussians(density.eigenvalues, [-1, 2], [0.25, 0.75], density.broadening)
    assert density.density == pytest.approx(expected, abs=2e-8 * expected.max())


def test_the_gaussian_is_cut_where_it_falls_below_one_part_in_a_hundred_million():
    density = lanczos_density([_spikes([0.0])], Bounds(-1.0, 1.0), points=4001, steps=50)
    positive = density.eigenvalues[density.density > 0]
    reach = density.broadening * math.sqrt(2 * math.log(1e8))
    assert positive.max() <= reach < positive.max() + 1 / 2000
    assert density.density[density.density > 0].min() >= 0.99e-8 * density.density.max()


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(-1, 1), min_size=1, max_size=20), st.floats(0.1, 100), st.floats(-50, 50), st.integers(0, 9))
def test_a_density_is_nonnegative_and_integrates_to_one(shape, scale, shift, seed):
    values = scale * np.array(shape) + shift
    found = ritz(slow_lanczos(rotated(values, seed), len(values), generator(seed)))
    wide = Bounds(shift - 1.2 * scale, shift + 1.2 * scale)  # the kernel reaches 0.036 half widths at 256 steps
    density = lanczos_density([found], wide)
    assert (density.density >= 0).all()
    assert integral(density) == pytest.approx(1, abs=1e-6)


def test_a_start_of_equal_shares_gives_the_exactly_smoothed_spectrum():
    values = np.linspace(-1, 1, 40) ** 3 * 7
    found = ritz(
        slow_lanczos(torch.diag(torch.from_numpy(values)), 40, generator(), start=torch.ones(40, dtype=torch.float64))
    )
    density = lanczos_density([found], bounds_of_ritz(found), steps=64)
    expected = _gaussians(density.eigenvalues, values, np.full(40, 1 / 40), density.broadening)
    assert density.density == pytest.approx(expected, abs=1e-6 * expected.max())


def test_densities_of_many_starts_converge_to_the_smoothed_spectrum():
    values = np.concatenate([np.random.default_rng(0).standard_normal(380), np.linspace(6, 9, 20)])
    matrix, source = rotated(values), generator(1)
    found = [ritz(fast_lanczos(matrix, 64, source)) for _ in range(30)]
    bounds = Bounds(values.min() - 1, values.max() + 1)

    def distance(count: int) -> float:
        """L1 distance to the exact density, between 0 and 2."""
        density = lanczos_density(found[:count], bounds, steps=64)
        expected = _gaussians(density.eigenvalues, values, np.full(400, 1 / 400), density.broadening)
        return np.abs(density.density - expected).sum() * np.diff(density.eigenvalues)[0]

    assert distance(30) < 0.1
    assert distance(30) < distance(1) / 2


def test_the_mean_over_starts_comes_with_its_standard_error():
    starts = [_spikes([-0.5, 0.5], [share, 1 - share]) for share in (0.2, 0.4, 0.6)]
    density = lanczos_density(starts, Bounds(-1.0, 1.0), points=801, steps=50)
    peak = 1 / (kernel_width(50) * math.sqrt(2 * math.pi))
    assert density.density[200] == pytest.approx(0.4 * peak)  # the grid point -0.5
    assert density.standard_error[200] == pytest.approx(0.2 * peak / math.sqrt(3))


def test_a_single_start_has_no_standard_error():
    assert np.isnan(lanczos_density([_spikes([0.0])], Bounds(-1.0, 1.0)).standard_error).all()


def test_a_zero_operator_gives_a_density_too():
    found = ritz(fast_lanczos(torch.zeros(5, 5), 10, generator()))
    density = lanczos_density([found], bounds_of_ritz(found))
    assert integral(density) == pytest.approx(1, abs=1e-6)
    assert density.eigenvalues[density.density.argmax()] == pytest.approx(0, abs=1e-8)


@pytest.mark.parametrize(
    ("pairs", "points", "steps", "message"),
    [
        ([], 1024, 256, "no Ritz values"),
        ([_spikes([0.0])], 100, 256, "do not resolve"),
        ([_spikes([0.0])], 100, 1, "steps is 1"),
        ([_spikes([0.0])], 1, 1, "points is 1"),
    ],
)
def test_bad_arguments_are_refused(pairs, points, steps, message):
    with pytest.raises(InputError, match=message):
        lanczos_density(pairs, Bounds(-1.0, 1.0), points, steps)
