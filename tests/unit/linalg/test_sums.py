"""Sums over spectra against dense matrices and random vectors."""

import numpy as np
import pytest

from hessketch.linalg.lanczos import Ritz
from hessketch.linalg.sums import Sum, spectral_sum, spectral_sums

VALUES = np.concatenate([np.linspace(-1, 2, 37), [5.0, -6.0, 20.0]])


def exact_measure(values, rng) -> Ritz:
    """The spectral measure of a random unit vector: every eigenvalue with the square of its component."""
    squares = rng.standard_normal(len(values)) ** 2
    return Ritz(values, squares / squares.sum(), np.zeros(len(values)))


def equal_measure(values) -> Ritz:
    return Ritz(np.asarray(values), np.full(len(values), 1 / len(values)), np.zeros(len(values)))


@pytest.mark.parametrize("function", [np.array, np.square, np.abs, lambda x: x > 0])
def test_equal_weights_give_the_sum_over_all(function):
    assert spectral_sum(function, [equal_measure(VALUES)], 40, np.empty(0)).value == pytest.approx(
        function(VALUES).sum(), rel=1e-12
    )


@pytest.mark.parametrize("function", [np.array, np.square, np.abs])
@pytest.mark.parametrize("known", [0, 3])
@pytest.mark.parametrize("vectors", [1, 4])
def test_the_formula_for_the_variance_is_that_of_random_vectors(function, known, vectors):
    rng, trials = np.random.default_rng(1), 4000
    rest, exact = VALUES[: 40 - known], VALUES[40 - known :]
    found = [
        spectral_sum(function, [exact_measure(rest, rng) for _ in range(vectors)], 40, exact)
        for _ in range(trials // vectors)
    ]
    sums = np.array([f.value for f in found])
    d = len(rest)
    variance = d**2 * 2 / (d + 2) * function(rest).var() / vectors
    assert sums.var(ddof=1) == pytest.approx(variance, rel=5 * np.sqrt(2 / len(sums)) + 0.05)
    assert abs(sums.mean() - function(VALUES).sum()) < 4 * np.sqrt(variance / len(sums))
    # The stated variance needs the spectrum's, for which it takes the measures: right in the mean but for 1 / d.
    stated = np.mean([f.standard_error**2 for f in found])
    assert stated == pytest.approx(variance, rel=0.1)


def test_known_eigenvalues_are_summed_exactly():
    every = spectral_sum(np.square, [], 3, np.array([1.0, 2.0, -3.0]))
    assert every == Sum(14.0, 0.0)
    assert spectral_sum(np.square, [equal_measure([9.0])], 3, np.array([1.0, 2.0, -3.0])) == Sum(14.0, 0.0)
    most = spectral_sum(np.square, [equal_measure([0.5])], 5, np.array([1.0, 2.0, -3.0]))
    assert most.value == pytest.approx(14 + 2 * 0.25)
    assert most.standard_error == 0  # a rest of one value does not vary


def test_taking_the_outliers_out_makes_the_error_as_small_as_the_rest_is():
    rng = np.random.default_rng(2)
    plain = spectral_sum(np.square, [exact_measure(VALUES, rng)], 40, np.empty(0))
    known = spectral_sum(np.square, [exact_measure(VALUES[:37], rng)], 40, VALUES[37:])
    assert known.standard_error < plain.standard_error / 10


def test_the_three_sums_are_trace_squares_and_magnitudes():
    sums = spectral_sums([equal_measure(VALUES[:37])], 40, VALUES[37:])
    assert sums.trace.value == pytest.approx(VALUES.sum())
    assert sums.frobenius_squared.value == pytest.approx((VALUES**2).sum())
    assert sums.absolute.value == pytest.approx(np.abs(VALUES).sum())
    assert min(s.standard_error for s in (sums.trace, sums.frobenius_squared, sums.absolute)) > 0


def test_a_measure_that_holds_every_eigenvalue_alike_has_no_error():
    sums = spectral_sums([equal_measure(VALUES)], 40, exact=True)
    assert sums.trace.value == pytest.approx(VALUES.sum())
    assert (sums.trace.standard_error, sums.frobenius_squared.standard_error, sums.absolute.standard_error) == (0, 0, 0)
