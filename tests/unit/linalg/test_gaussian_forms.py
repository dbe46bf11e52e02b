"""Moments and deviation bounds of Gaussian quadratic forms against chi-square, the exact cumulants and samples."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from known_spectra import Counted, generator, rotated
from scipy.stats import chi2

from hessketch.errors import InputError, NotFiniteError
from hessketch.linalg.gaussian_forms import (
    NO_FORM,
    FormSpectrum,
    GaussianForm,
    estimated_form_spectrum,
    exact_form_spectrum,
    gaussian_form,
)

OUTLIERS = np.concatenate([np.linspace(-0.2, 0.3, 194), [-2.0, 1.5, 3.0, 5.0, 7.0, 9.0]])


def test_moments_of_a_form_worked_out_by_hand():
    form = gaussian_form(3.0, exact_form_spectrum(torch.diag(torch.tensor([2.0, -1.0]))), linear_square=1.0)
    assert form == GaussianForm(mean=4.0, variance=11.0, largest=2.0, smallest=-1.0)
    assert form.standard_deviation == pytest.approx(math.sqrt(11))


@pytest.mark.parametrize("degrees", [1, 4, 50])
@pytest.mark.parametrize("probability", [0.5, 0.05, 1e-4])
def test_chi_square_has_the_bounds_of_laurent_and_massart(degrees, probability):
    x = -math.log(probability)
    lower, upper = gaussian_form(0.0, exact_form_spectrum(torch.eye(degrees)), 0.0).bounds(probability)
    assert upper == pytest.approx(degrees + 2 * math.sqrt(degrees * x) + 2 * x)
    assert lower == pytest.approx(degrees - 2 * math.sqrt(degrees * x))
    assert chi2.sf(upper, degrees) <= probability and chi2.cdf(lower, degrees) <= probability


def test_moments_and_bounds_hold_for_samples_of_an_indefinite_form_with_a_linear_part():
    matrix, linear = rotated([3.0, -2.0, 1.0, -0.5, 0.1, 0.0]), torch.tensor([1.0, -2.0, 0.5, 0.0, 0.0, 1.0]).double()
    z = torch.randn(200_000, 6, generator=generator(4), dtype=torch.float64)
    samples = -1.0 + ((z @ matrix) * z).sum(1) + z @ linear
    form = gaussian_form(-1.0, exact_form_spectrum(matrix), float(linear @ linear))
    assert abs(float(samples.mean()) - form.mean) < 4 * form.standard_deviation / math.sqrt(len(z))
    assert float(samples.var()) == pytest.approx(form.variance, rel=0.03)
    for probability in (0.3, 0.05, 0.01):
        lower, upper = form.bounds(probability)
        assert 0 < float((samples > upper).double().mean()) < probability
        assert 0 < float((samples < lower).double().mean()) < probability


numbers = st.floats(-5, 5).map(lambda x: round(x, 3))


@settings(max_examples=200, deadline=None)
@given(st.lists(numbers, min_size=1, max_size=5), st.lists(numbers, min_size=5, max_size=5), st.floats(0.01, 0.99))
def test_the_upper_bound_is_no_smaller_than_what_the_exact_cumulants_allow(values, linear, share):
    """Chernoff's bound from the exact log E exp(t (T - ET)): at the t of the proof it is at most exp(-x)."""
    a, b = np.array(values), np.array(linear[: len(values)])
    probability = 0.01 + 0.9 * share
    form = gaussian_form(0.0, exact_form_spectrum(torch.diag(torch.from_numpy(a))), float(b @ b))
    if form.variance < 1e-6:
        return
    deviation = form.bounds(probability)[1] - form.mean
    limit = 1 / (2 * form.largest) if form.largest > 0 else np.inf
    x = -math.log(probability)
    v, c = form.variance / 2, 2 * form.largest
    t = min(math.sqrt(x / v) / (1 + c * math.sqrt(x / v)), limit * (1 - 1e-9))
    cumulants = -a * t - np.log1p(-2 * a * t) / 2 + b**2 * t**2 / (2 * (1 - 2 * a * t))
    assert cumulants.sum() - t * deviation <= -x + 1e-9


@settings(max_examples=50, deadline=None)
@given(st.lists(numbers, min_size=1, max_size=6), st.floats(0, 3), st.floats(0.01, 10), st.floats(0.01, 0.9))
def test_negating_a_form_swaps_its_bounds_and_scaling_scales_its_spectrum(values, linear_square, factor, probability):
    matrix = torch.diag(torch.tensor(values, dtype=torch.float64))
    spectrum, negative = exact_form_spectrum(matrix), exact_form_spectrum(-matrix)
    lower, upper = gaussian_form(1.0, spectrum, linear_square).bounds(probability)
    below, above = gaussian_form(-1.0, negative, linear_square).bounds(probability)
    assert (-above, -below) == pytest.approx((lower, upper))
    scaled, expected = spectrum.scaled(factor), exact_form_spectrum(factor * matrix)
    assert vars(scaled) == pytest.approx(vars(expected), rel=1e-12, abs=1e-12)


def test_a_form_without_noise_is_its_constant():
    form = gaussian_form(-0.7, NO_FORM, 0.0)
    assert form.bounds(0.01) == (-0.7, -0.7) and form.standard_deviation == 0


def test_ends_of_a_definite_matrix_are_zero_on_the_other_side():
    assert exact_form_spectrum(torch.diag(torch.tensor([1.0, 2.0]))) == FormSpectrum(3.0, 5.0, 2.0, 0.0)
    assert exact_form_spectrum(-torch.eye(3)) == FormSpectrum(-3.0, 3.0, 0.0, -1.0)


@pytest.mark.parametrize("dimension", [2, 9, 20])
def test_an_estimate_with_as_many_steps_as_dimensions_is_exact(dimension):
    matrix = rotated(np.linspace(-1, 2, dimension))
    found = estimated_form_spectrum(matrix, 20, generator())
    assert vars(found) == pytest.approx(vars(exact_form_spectrum(matrix)), rel=1e-9, abs=1e-9)


def test_an_estimate_of_a_larger_form_is_near_and_its_ends_are_not_inside():
    matrix = rotated(OUTLIERS)
    for seed in range(5):
        operator = Counted(matrix)
        found, truth = estimated_form_spectrum(operator, 24, generator(seed)), exact_form_spectrum(matrix)
        assert operator.products <= 48
        assert found.squares == pytest.approx(truth.squares, rel=0.02)
        assert found.trace == pytest.approx(truth.trace, abs=5 * math.sqrt(2 * (OUTLIERS[:194] ** 2).sum() / 2))
        assert truth.largest <= found.largest + 1e-9 and found.largest < 1.05 * truth.largest
        assert truth.smallest >= found.smallest - 1e-9 and found.smallest > 1.2 * truth.smallest


def test_estimates_are_unbiased():
    matrix = rotated(OUTLIERS)
    truth = exact_form_spectrum(matrix)
    found = [estimated_form_spectrum(matrix, 16, generator(seed)) for seed in range(40)]
    for name in ("trace", "squares"):
        values = np.array([getattr(f, name) for f in found])
        assert abs(values.mean() - getattr(truth, name)) < 4 * values.std(ddof=1) / math.sqrt(40) + 1e-6, name


def test_the_zero_operator_has_no_form():
    assert estimated_form_spectrum(torch.zeros(30, 30), 8, generator()) == NO_FORM


def test_numbers_that_are_not_finite_are_refused():
    with pytest.raises(NotFiniteError, match="quadratic form"):
        exact_form_spectrum(torch.tensor([[math.nan]]))
    with pytest.raises(NotFiniteError, match="step 3"):
        estimated_form_spectrum(Counted(rotated(OUTLIERS), bad_from=3), 8, generator())


@pytest.mark.parametrize("probability", [0.0, 1.0, -0.1, math.nan])
def test_a_probability_that_is_none_is_refused(probability):
    with pytest.raises(InputError, match=r"probability is .*allowed: numbers between 0 and 1"):
        gaussian_form(0.0, NO_FORM, 1.0).bounds(probability)


def test_fewer_than_two_steps_are_refused():
    with pytest.raises(InputError, match="steps is 1; allowed: integers from 2"):
        estimated_form_spectrum(torch.eye(3), 1, generator())
