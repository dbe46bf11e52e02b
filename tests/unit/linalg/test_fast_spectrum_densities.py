"""Densities of the fast method against the exact spectrum, smoothed, and against the paper's method."""

import numpy as np
import pytest
import torch
from fast_spectra import DEFLATED, SPIKES, VALUES, diagonal, distribution, spectrum, sums_of
from known_spectra import generator, integral
from scipy.special import ndtr
from scipy.stats import wasserstein_distance

from hessketch.linalg.deflation import Eigenpairs, deflate
from hessketch.linalg.lanczos import ritz, slow_lanczos
from hessketch.linalg.paper_spectrum import PaperSettings, paper_spectrum


def exact_density(density, values) -> np.ndarray:
    distance = (density.eigenvalues[:, None] - values) / density.broadening
    return np.exp(-(distance**2) / 2).mean(axis=1) / (density.broadening * np.sqrt(2 * np.pi))


def test_kpm_uses_no_more_moments_than_the_runs_give():
    many = spectrum(VALUES, kpm_moments=1000, start_vectors=1)
    half_width = many.parts[0].bounds.half_width
    assert many.kpm.broadening == pytest.approx(np.pi * half_width / (2 * many.products))


@pytest.mark.parametrize("name", ["paper", "spacing"])
def test_densities_are_those_of_the_exact_spectrum_smoothed_within_their_standard_errors(name):
    found = spectrum(VALUES, 3, start_vectors=12, lanczos_steps=40, broadening=name)
    for part, values in zip(found.parts, (VALUES, DEFLATED), strict=True):
        assert integral(part.density) == pytest.approx(1, abs=1e-6)
        exact = exact_density(part.density, values)
        seen = exact > 0.05 * exact.max()
        # What the leading values alone make, at the far end of the axis, does not vary: no less than its rounding.
        error = np.maximum(part.density.standard_error, 1e-3 * exact.max())[seen]
        deviation = (part.density.density - exact)[seen] / error
        assert np.sqrt((deviation**2).mean()) < 1.7
        assert np.abs(deviation).max() < 5


def test_the_widths_are_those_asked_for():
    paper, spacing = (spectrum(VALUES, broadening=name, start_vectors=1).parts[1] for name in ("paper", "spacing"))
    nodes = len(paper.ritz[0].values)
    spread = np.ptp(paper.ritz[0].values)
    assert paper.density.broadening == pytest.approx(spread / (nodes - 1) / np.sqrt(8 * np.log(1.25)), rel=0.05)
    assert spacing.density.broadening == pytest.approx(spread / (nodes - 1), rel=0.05)


def test_the_deflated_density_is_that_of_the_exactly_deflated_matrix():
    points, width = np.linspace(-2.5, 2.5, 11), 0.15
    found = spectrum(VALUES, 5, start_vectors=12, lanczos_steps=40)
    matrix = diagonal(VALUES)
    pairs = Eigenpairs(SPIKES, torch.eye(200, dtype=torch.float64)[:, 190:], np.zeros(10), np.abs(SPIKES))
    measures = [ritz(slow_lanczos(deflate(matrix, pairs), 40, generator(100 + seed))) for seed in range(12)]
    got, error = distribution(found.parts[1].ritz, points, width)
    expected, other = distribution(measures, points, width)
    deviation = (got - expected) / np.hypot(error, other)
    assert np.abs(deviation).max() < 4, deviation
    exact = ndtr((points[:, None] - DEFLATED) / width).mean(axis=1)
    assert np.abs((got - exact) / error).max() < 4.5


def test_taking_the_leading_values_out_brings_the_measure_three_times_nearer_to_the_spectrum():
    with_them, plain = [], []
    for seed in range(10):
        found = spectrum(VALUES, seed, lanczos_steps=40)
        other = generator(1000 + seed)
        steps = found.products // 2
        with_them.append(found.parts[0].ritz)
        plain.append([ritz(slow_lanczos(diagonal(VALUES), steps, other)) for _ in range(2)])

    def distance(measures) -> float:
        nodes, weights = (np.concatenate([getattr(m, name) for m in measures]) for name in ("values", "weights"))
        return wasserstein_distance(nodes, VALUES, weights)

    near, far = (np.mean([distance(measures) for measures in found]) for found in (with_them, plain))
    assert 3 * near <= far, f"{near:.3f} with the leading values taken out, {far:.3f} as usual"


def test_the_papers_method_and_this_one_agree():
    points = np.array([-2.0, -1, -0.5, 0, 0.5, 1, 2, 11, 15, 20, 30, 50, 90])
    matrix = diagonal(VALUES)
    paper = paper_spectrum(
        matrix,
        PaperSettings(
            lanczos_steps=60, start_vectors=10, deflation_rank=10, deflation_iterations=60, rayleigh_ritz=True,
            reorthogonalize=True,
        ),
        generator(1),
    )  # fmt: skip
    fast = spectrum(VALUES, 2, start_vectors=10, lanczos_steps=60)
    assert np.abs(fast.pairs.values) == pytest.approx(np.abs(paper.pairs.values), rel=1e-6)
    assert (np.abs(fast.pairs.values - paper.pairs.values) <= fast.pairs.residuals + paper.pairs.residuals).all()
    for one, other in zip(paper.parts, fast.parts, strict=True):
        assert one.deflated == other.deflated
        (a, error), (b, small) = (distribution(part.ritz, points, 0.15) for part in (one, other))
        known = np.hypot(error, small) > 1e-9  # beyond the deflated spectrum both are 1
        deviation = (a - b)[known] / np.hypot(error, small)[known]
        assert np.abs(deviation).max() < 4.5, deviation
        assert np.abs((a - b)[~known]).max(initial=0.0) < 1e-9
    got, error = sums_of(fast)
    expected, other = sums_of(paper)
    assert (np.abs(got - expected) <= 4 * np.hypot(error, other)).all()
    assert (error[:2] < other[:2] / 3).all()


@pytest.mark.parametrize("points", [48, 64, 100])
def test_a_coarse_grid_still_resolves_the_kernel(points):
    found = spectrum(np.random.default_rng(3).standard_normal(60), lanczos_steps=48, grid_points=points)
    for part in found.parts:
        assert integral(part.density) == pytest.approx(1, abs=1e-6)
        assert part.density.broadening >= np.diff(part.density.eigenvalues)[0] * 0.999
