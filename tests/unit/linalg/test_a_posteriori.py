import math

import numpy as np
import pytest
import torch
from known_spectra import generator, rotated

from hessketch.errors import InputError
from hessketch.linalg.a_posteriori import (
    ErrorEstimate,
    error_estimate,
    interval_factors,
    joined,
    scree_bounds,
)

SPECTRUM = np.array([9.0, -5.0, 3.0, -1.0, *np.linspace(-0.5, 0.5, 36)])


def estimate(matrix, probes: int, seed: int, kept: int = 3) -> ErrorEstimate:
    values, vectors = torch.linalg.eigh(matrix)
    order = values.abs().argsort(descending=True)[:kept]
    w = torch.randn(len(matrix), probes, generator=generator(seed), dtype=torch.float64)
    return error_estimate(w, matrix @ w, values[order].numpy(), vectors[:, order])


def test_squared_norms_are_estimated_without_bias_within_four_standard_errors():
    matrix, probes = rotated(SPECTRUM), 20_000
    found = estimate(matrix, probes, 1)
    for value, spectrum in (
        (found.frobenius_squared, SPECTRUM),
        (found.approximation_squared, SPECTRUM[:3]),
        (found.residual_squared, SPECTRUM[3:]),
    ):
        deviation = math.sqrt(2 * np.sum(spectrum**4) / probes)  # of a weighted sum of chi-square variables
        assert abs(value - np.sum(spectrum**2)) < 4 * deviation
    assert found.residual_share == pytest.approx(np.sum(SPECTRUM[3:] ** 2) / np.sum(SPECTRUM**2), rel=0.1)


def failure_probabilities(probes: int, error: float) -> tuple[float, float]:
    """Chernoff's bounds on estimates below (1 - error) and above (1 + error) times what they estimate, as published."""
    below = math.exp(probes / 2 * (error + math.log1p(-error))) if error < 1 else 0.0
    return below, math.exp(-probes / 2 * (error - math.log1p(error)))


@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.999])
@pytest.mark.parametrize("probes", [1, 7, 30, 500])
def test_intervals_invert_the_bounds(probes, confidence):
    low, high = interval_factors(probes, confidence)
    assert 0 < low < 1 < high
    below, above = failure_probabilities(probes, 1 - 1 / high)[0], failure_probabilities(probes, 1 / low - 1)[1]
    assert below == pytest.approx((1 - confidence) / 2, rel=1e-6)
    assert above == pytest.approx((1 - confidence) / 2, rel=1e-6)


@pytest.mark.parametrize("spectrum", [[1.0, 0.0, 0.0], [3.0, -2.0, 1.0]])
def test_intervals_cover_the_truth_at_least_as_often_as_they_say(spectrum):
    draws, probes = 20_000, 8
    squares = np.random.default_rng(0).standard_normal((draws, probes, 3)) ** 2
    means = (squares * np.square(spectrum)).sum(axis=2).mean(axis=1)
    low, high = interval_factors(probes, 0.9)
    covered = (low * means <= np.sum(np.square(spectrum))) & (np.sum(np.square(spectrum)) <= high * means)
    assert 0.9 <= covered.mean() < 1


def test_residual_bounds_scale_the_estimate():
    found = ErrorEstimate(30, 10.0, 8.0, 2.0)
    low, high = interval_factors(30, 0.9)
    assert found.residual_bounds(0.9) == (2 * low, 2 * high)


def test_blocks_of_probes_join_to_the_mean_over_all():
    matrix = rotated(SPECTRUM)
    values, vectors = torch.linalg.eigh(matrix)
    w = torch.randn(40, 7, generator=generator(3), dtype=torch.float64)
    whole = error_estimate(w, matrix @ w, values[-3:].numpy(), vectors[:, -3:])
    parts = [error_estimate(x, matrix @ x, values[-3:].numpy(), vectors[:, -3:]) for x in w.split(4, dim=1)]
    both = joined(parts)
    assert both.probes == 7
    assert both.residual_squared == pytest.approx(whole.residual_squared, rel=1e-12)
    assert both.frobenius_squared == pytest.approx(whole.frobenius_squared, rel=1e-12)


def test_scree_bounds_hold_the_true_tail_energies():
    total = np.sum(SPECTRUM**2)
    ordered = np.sort(np.abs(SPECTRUM))[::-1]
    kept, rest = ordered[:5], np.sum(ordered[5:] ** 2)
    lower, upper = scree_bounds(kept, ErrorEstimate(30, total, np.sum(kept**2), rest))
    true = [np.sum(ordered[r:] ** 2) / total for r in range(6)]
    assert (lower <= np.array(true) + 1e-12).all() and (true <= upper + 1e-12).all()
    assert lower[0] == pytest.approx(np.sum(kept**2) / total) and lower[5] == 0
    assert upper[5] == pytest.approx(rest / total)


def test_a_zero_operator_has_no_residual():
    found = ErrorEstimate(4, 0.0, 0.0, 0.0)
    assert found.residual_share == 0 and not np.any(scree_bounds(np.zeros(2), found))


def test_confidences_without_sense_are_refused():
    with pytest.raises(InputError, match="confidence is 1"):
        interval_factors(30, 1)
    with pytest.raises(InputError, match="probes is 0"):
        interval_factors(0, 0.9)
