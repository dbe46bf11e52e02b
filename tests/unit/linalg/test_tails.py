"""Tail laws recovered from densities written out and from samples."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hessketch.errors import InputError
from hessketch.linalg.tails import fit_marchenko_pastur, fit_power_law

GRID = np.linspace(-100, 100, 20001)


def _power_density(exponent: float, coefficient: float = 0.1, sign: int = 1) -> np.ndarray:
    """coefficient |x|^-exponent where sign x > 0.5, nothing elsewhere."""
    x = sign * GRID
    return np.where(x > 0.5, coefficient * np.maximum(x, 0.5) ** -exponent, 0.0)


def _marchenko_pastur(x: np.ndarray, ratio: float, mass: float = 1.0) -> np.ndarray:
    """Density of covariance eigenvalues of unit variance with p / n = ratio; the edges are returned by `_edges`."""
    a, b = _edges(ratio)
    inside = (x > a) & (x < b)
    root = np.sqrt(np.where(inside, (b - x) * (x - a), 0.0))
    return mass * root / (2 * np.pi * ratio * np.where(inside, x, 1.0))


def _edges(ratio: float) -> tuple[float, float]:
    return (1 - math.sqrt(ratio)) ** 2, (1 + math.sqrt(ratio)) ** 2


def _smoothed(values: np.ndarray, grid: np.ndarray, sigma: float) -> np.ndarray:
    kernel = np.exp(-(((grid[:, None] - values) / sigma) ** 2) / 2) / (sigma * math.sqrt(2 * math.pi))
    return kernel.mean(axis=1)


@settings(max_examples=20, deadline=None)
@given(st.floats(1.1, 3.0), st.floats(0.01, 0.2), st.sampled_from([1, -1]))
def test_an_exact_power_law_comes_back_on_either_side(exponent, coefficient, sign):
    density = _power_density(exponent, coefficient, sign)
    fit = fit_power_law(GRID, density, broadening=0.1, dimension=10**6, sign=sign)
    assert fit.exponent == pytest.approx(exponent, abs=1e-3)
    assert fit.coefficient == pytest.approx(coefficient, rel=1e-3)
    assert fit.r_squared > 1 - 1e-6
    assert fit.reason == ""


def test_the_range_runs_from_six_broadenings_to_ten_eigenvalues_beyond():
    fit = fit_power_law(GRID, _power_density(3.0), broadening=0.1, dimension=4000, sign=1)
    # 4000 * 0.1 / 2 * (u^-2 - 100^-2) = 10
    assert fit.lower == pytest.approx(0.6)
    assert fit.upper == pytest.approx((10 / 200 + 1e-4) ** -0.5, rel=1e-3)
    assert fit.points == 64


def test_what_lies_outside_the_range_has_no_influence():
    density = _power_density(2.0)
    spoilt = np.where(np.abs(GRID) < 0.55, 50.0, density)
    clean, other = (fit_power_law(GRID, phi, 0.1, 10**4, 1) for phi in (density, spoilt))
    assert (clean.lower, clean.upper) == (other.lower, other.upper)
    assert clean.exponent == other.exponent


def test_a_smoothed_sample_gives_its_exponent():
    rng = np.random.default_rng(0)
    values = rng.uniform(size=20000) ** (-1 / 3) * rng.choice([-1, 1], size=20000)  # phi ~ |x|^-4 from 1
    grid, sigma = np.linspace(-15, 15, 512), 0.2
    density = _smoothed(values, grid, sigma)
    for sign in (1, -1):
        fit = fit_power_law(grid, density, sigma, 20000, sign)
        assert fit.exponent == pytest.approx(4, abs=0.4)
        assert fit.r_squared > 0.97


@pytest.mark.parametrize(("ratio", "mass"), [(0.25, 1.0), (0.5, 0.3), (0.9, 0.7)])
def test_an_exact_marchenko_pastur_law_comes_back_and_beats_the_power_law(ratio, mass):
    grid = np.linspace(-1, 5, 12001)
    density = _marchenko_pastur(grid, ratio, mass)
    broadening = max(_edges(ratio)[0] * 1.05, 0.05) / 6  # the range begins inside the law
    arguments = (grid, density, broadening, 10**4, 1)
    pastur, power = fit_marchenko_pastur(*arguments), fit_power_law(*arguments)
    assert (pastur.lower_edge, pastur.upper_edge) == pytest.approx(_edges(ratio), abs=0.01)
    assert pastur.mass == pytest.approx(mass, rel=0.02)
    assert pastur.r_squared > 0.999 > power.r_squared
    assert (pastur.lower, pastur.upper, pastur.points) == (power.lower, power.upper, power.points)


def test_a_sample_covariance_matrix_fits_marchenko_pastur_better_than_a_power_law():
    data = np.random.default_rng(1).standard_normal((1600, 400))
    values = np.linalg.eigvalsh(data.T @ data / 1600)
    grid, sigma = np.linspace(-1, 3, 1024), 0.05
    arguments = (grid, _smoothed(values, grid, sigma), sigma, 400, 1)
    pastur, power = fit_marchenko_pastur(*arguments), fit_power_law(*arguments)
    assert pastur.r_squared > 0.98
    assert pastur.r_squared > power.r_squared + 0.05
    assert pastur.upper_edge == pytest.approx(_edges(0.25)[1], rel=0.05)


def test_a_power_law_fits_itself_better_than_marchenko_pastur():
    arguments = (GRID, _power_density(2.2), 0.1, 10**6, 1)
    assert fit_power_law(*arguments).r_squared > fit_marchenko_pastur(*arguments).r_squared + 0.01


def test_the_sides_are_told_apart():
    both = _power_density(2.0, 0.1) + _power_density(3.0, 0.05, sign=-1)
    right, left = (fit_power_law(GRID, both, 0.1, 10**6, sign) for sign in (1, -1))
    assert (right.exponent, left.exponent) == pytest.approx((2, 3), abs=1e-3)
    mirrored = fit_marchenko_pastur(-GRID[::-1], both[::-1], 0.1, 10**6, -1)
    direct = fit_marchenko_pastur(GRID, both, 0.1, 10**6, 1)
    assert mirrored.upper_edge == pytest.approx(direct.upper_edge, rel=1e-9)


@pytest.mark.parametrize(
    ("grid", "density", "broadening", "dimension", "reason"),
    [
        (GRID, _power_density(2.0, sign=-1), 0.1, 10**6, "fewer than 10 eigenvalues"),
        (GRID, _power_density(2.0), 0.1, 20, "fewer than 10 eigenvalues"),
        (GRID, _power_density(2.0), 10.0, 10**4, "spans less than a factor of 2"),
        (GRID[::100], _power_density(2.0)[::100], 0.3, 500, "grid points in the range"),
        (GRID, np.where(GRID > 90, 0.01, 0.0), 0.1, 10**4, "the density is zero in nearly all"),
    ],
)
@pytest.mark.parametrize("fit", [fit_power_law, fit_marchenko_pastur])
def test_without_a_range_there_is_a_reason_and_no_number(fit, grid, density, broadening, dimension, reason):
    found = fit(grid, density, broadening, dimension, 1)
    assert reason in found.reason
    assert np.isnan(found.r_squared)
    assert found.points == 0


@pytest.mark.parametrize(
    ("grid", "density", "sign", "message"),
    [
        (GRID, _power_density(2.0), 2, "sign is 2"),
        (GRID[::-1], _power_density(2.0), 1, "ascending"),
        (GRID[:-1], _power_density(2.0), 1, "ascending"),
        (GRID, np.where(GRID == 0, np.nan, 1.0), 1, "NaN"),
    ],
)
@pytest.mark.parametrize("fit", [fit_power_law, fit_marchenko_pastur])
def test_bad_arguments_are_refused(fit, grid, density, sign, message):
    with pytest.raises(InputError, match=message):
        fit(grid, density, 0.1, 1000, sign)
