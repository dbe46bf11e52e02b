"""Stochastic Lanczos quadrature against spectra that are known, and the floor that smoothing puts under its sums."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hessketch.errors import InputError, NotFiniteError
from hessketch.linalg.lanczos import Ritz
from hessketch.linalg.quadrature import (
    absolute_sum,
    kernel_density,
    kernel_deviation,
    lower_absolute_sum,
    smoothed_absolute_sum,
    smoothing_floor,
    stochastic_lanczos_quadrature,
)
from hessketch.linalg.traces import rademacher_vector


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def symmetric(eigenvalues, seed=0, dtype=torch.float64):
    """A dense matrix with these eigenvalues in random directions."""
    values = torch.as_tensor(eigenvalues, dtype=torch.float64)
    q, _ = torch.linalg.qr(torch.randn(len(values), len(values), generator=generator(seed), dtype=torch.float64))
    return ((q * values) @ q.T).to(dtype)


class Diagonal:
    """A large diagonal matrix, known by its products."""

    def __init__(self, entries):
        self.entries, self.shape, self.dtype, self.device = entries, (len(entries),) * 2, entries.dtype, entries.device

    def __matmul__(self, other):
        return self.entries * other


def quadrature(matrix, steps, starts, seed=1):
    return stochastic_lanczos_quadrature(matrix, steps, starts, generator(seed))


def point(*values):
    """A measure of equal weights."""
    return Ritz(np.array(values, float), np.full(len(values), 1 / len(values)), np.zeros(len(values)))


def test_ritz_values_of_as_many_steps_as_dimensions_are_the_eigenvalues():
    eigenvalues = np.array([-3.0, -0.5, 0.0, 0.1, 2.0, 7.0])
    for measure in quadrature(symmetric(eigenvalues), 6, 3):
        assert measure.values == pytest.approx(eigenvalues, abs=1e-10)
        assert measure.weights.sum() == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_absolute_sum_is_that_of_the_spectrum_within_its_standard_error(dtype):
    eigenvalues = np.concatenate([np.linspace(-2, 3, 30), np.zeros(30), [10, -8]])
    found = absolute_sum(quadrature(symmetric(eigenvalues, dtype=dtype), 62, 400), 62)
    assert 0 < found.standard_error < 0.05 * np.abs(eigenvalues).sum()
    assert abs(found.value - np.abs(eigenvalues).sum()) < 4 * found.standard_error


def test_absolute_sum_of_equal_magnitudes_is_exact_from_any_start_vector():
    signs = np.array([1.0, -1, 1, 1, -1, 1, -1])
    for matrix, expected in ((2.5 * torch.eye(9, dtype=torch.float64), 22.5), (symmetric(3 * signs), 21.0)):
        found = absolute_sum(quadrature(matrix, 9, 4), len(matrix))
        assert found.value == pytest.approx(expected, rel=1e-12)
        assert found.standard_error == pytest.approx(0, abs=1e-10)


def test_signs_as_start_vectors_make_diagonal_matrices_exact():
    entries = torch.tensor([5.0, -3, 2, 0, 0, 0, 1], dtype=torch.float64)
    found = absolute_sum(quadrature(torch.diag(entries), 7, 2), 7)
    assert found.value == pytest.approx(11, rel=1e-12)


def test_standard_error_is_the_spread_over_start_vectors():
    measures = [point(1.0), point(-2.0), point(6.0)]
    found = absolute_sum(measures, 10)
    assert found.value == pytest.approx(30)
    assert found.standard_error == pytest.approx(10 * np.std([1, 2, 6], ddof=1) / np.sqrt(3))
    assert np.isnan(absolute_sum(measures[:1], 10).standard_error)


def test_a_run_ends_when_its_krylov_space_is_exhausted():
    entries = torch.zeros(50, dtype=torch.float64)
    entries[:2] = torch.tensor([4.0, -1.0])
    done = []
    measures = stochastic_lanczos_quadrature(
        Diagonal(entries), 20, 2, generator(), lambda n, total: done.append((n, total))
    )
    for measure in measures:
        assert measure.values == pytest.approx([-1, 0, 4], abs=1e-12)
        assert measure.weights == pytest.approx([0.02, 0.96, 0.02])
    assert done[-1] == (40, 40) and (21, 40) in done


def exact_form(matrix, seed, starts):
    """Mean of v^T |A| v over the start vectors that a quadrature with this seed takes, as a sum over p."""
    values, vectors = np.linalg.eigh(matrix.double().numpy())
    signs = [rademacher_vector(matrix, g) for g in [generator(seed)] for _ in range(starts)]
    return np.mean([np.abs(values) @ (vectors.T @ v.double().numpy()) ** 2 for v in signs])


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(-5, 5, allow_subnormal=False), min_size=2, max_size=12), st.integers(1, 12), st.booleans())
def test_a_node_at_zero_makes_the_sum_a_lower_bound_for_each_start_vector(eigenvalues, steps, many_zeros):
    eigenvalues = [*eigenvalues, *[1e-3 * x for x in range(8 * many_zeros)]]
    matrix = symmetric(eigenvalues)
    lower = lower_absolute_sum(quadrature(matrix, steps, 1), len(matrix))
    assert lower <= exact_form(matrix, 1, 1) * (1 + 1e-8) + 1e-8


def test_the_lower_bound_grows_with_the_steps_to_the_exact_sum():
    eigenvalues = np.concatenate([np.linspace(-2, 3, 15), np.linspace(-0.1, 0.1, 25)])
    matrix = symmetric(eigenvalues)
    lower = [lower_absolute_sum(quadrature(matrix, steps, 2), 40) for steps in (3, 6, 12, 24, 40)]
    assert np.all(np.diff(lower) > -1e-9)
    assert lower[0] < 0.95 * lower[-1]
    assert lower[-1] == pytest.approx(exact_form(matrix, 1, 2), rel=1e-9)
    assert lower[-1] == pytest.approx(absolute_sum(quadrature(matrix, 40, 2), 40).value, rel=1e-9)


@pytest.mark.parametrize("steps", [1, 2])
def test_a_rule_with_a_node_at_zero_is_that_of_its_moments(steps):
    """With a node at zero and weight w on x: w x and w x^2 are the first moments; |x| then sums to |w x|."""
    matrix = torch.diag(torch.tensor([1.0, 2.0, 6.0], dtype=torch.float64))
    expected = {1: 9.0, 2: 9.0}[steps]  # all eigenvalues positive: the trace, whatever the nodes
    assert lower_absolute_sum(quadrature(matrix, steps, 1), 3) == pytest.approx(expected, rel=1e-12)
    two_sided = torch.diag(torch.tensor([-1.0, 2.0, 6.0], dtype=torch.float64))
    one = lower_absolute_sum(quadrature(two_sided, 1, 1), 3)
    assert one == pytest.approx(7.0, rel=1e-12)  # nodes 0 and 41 / 7: the trace


def test_known_eigenvalues_are_added_to_the_lower_sum_of_the_others():
    inner = torch.tensor([-2.0, -0.5, 0.25, 1.0], dtype=torch.float64)
    measures = quadrature(symmetric(inner), 2, 3)
    alone = lower_absolute_sum(measures, 4)
    assert lower_absolute_sum(measures, 6, [5.0, -7.0]) == pytest.approx(alone + 12.0, rel=1e-12)
    assert lower_absolute_sum([], 2, [5.0, -7.0]) == 12.0


def test_zeros_and_one_eigenvalue_have_a_smoothed_sum_of_a_four_hundredth_each():
    p = 20_000
    entries = torch.zeros(p, dtype=torch.float64)
    entries[7] = 0.5
    measures = quadrature(Diagonal(entries), 10, 2)
    assert absolute_sum(measures, p).value == pytest.approx(0.5, rel=1e-9)
    assert smoothing_floor(measures, p) == pytest.approx(2.5e-3 * p, rel=0.02)
    assert smoothed_absolute_sum(measures, p) == pytest.approx(smoothing_floor(measures, p) + 0.5, rel=5e-3)


@pytest.mark.parametrize("largest", [1.0, 50.0, 220.0, -50.0])
def test_zeros_beside_one_eigenvalue_of_any_size_sum_to_the_floor_and_its_magnitude(largest):
    """The grid ends just beyond zero on one side, and cuts the kernel there in both."""
    p = 40_000
    entries = torch.zeros(p, dtype=torch.float64)
    entries[7] = largest
    measures = quadrature(Diagonal(entries), 10, 2)
    assert smoothed_absolute_sum(measures, p) == pytest.approx(smoothing_floor(measures, p) + abs(largest), rel=0.02)


@pytest.mark.parametrize(("values", "deviation"), [((-0.2, 0.3), 1e-5), ((-1.0, 98.98), 1e-3)])
def test_kernel_variance_follows_a_range_above_one_alone(values, deviation):
    assert kernel_deviation([point(*values)]) == pytest.approx(deviation**0.5, rel=1e-9)


def test_smoothing_leaves_the_sum_of_eigenvalues_far_from_zero():
    measure = Ritz(np.array([-4.0, -2, 3, 5]), np.array([0.0005, 0.4995, 0.4995, 0.0005]), np.zeros(4))
    found = smoothed_absolute_sum([measure, measure], 100)
    assert found == pytest.approx(absolute_sum([measure, measure], 100).value, rel=1e-3)


@pytest.mark.parametrize("values", [(0.0,), (-0.3, 0.0, 0.4), (-50.0, 0.0, 0.0, 900.0)])
def test_the_density_holds_all_mass_whether_the_grid_resolves_its_kernel_or_not(values):
    found = kernel_density([point(*values), point(*values)], 1024)
    spacing = found.eigenvalues[1] - found.eigenvalues[0]
    assert found.density.sum() * spacing == pytest.approx(1, abs=1e-8)
    assert (found.density * found.eigenvalues).sum() * spacing == pytest.approx(np.mean(values), abs=spacing / 2)
    assert found.broadening == pytest.approx(kernel_deviation([point(*values)]))
    assert found.standard_error == pytest.approx(0)


def test_a_resolved_density_is_the_gaussian_in_both_tails():
    found = kernel_density([point(0.0)], 2001)
    expected = np.exp(-((found.eigenvalues / found.broadening) ** 2) / 2) / (found.broadening * np.sqrt(2 * np.pi))
    assert found.density == pytest.approx(expected, rel=1e-3)
    assert found.density == pytest.approx(found.density[::-1], rel=1e-9)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.floats(-5, 5, allow_subnormal=False), min_size=1, max_size=8),
    st.floats(1e-6, 1e6),
    st.sampled_from([1, -1]),
)
def test_the_sum_scales_with_the_matrix_whatever_the_sign(eigenvalues, scale, sign):
    matrix, p = symmetric(eigenvalues), len(eigenvalues)
    one, other = (absolute_sum(quadrature(a, p, 3), p).value for a in (matrix, sign * scale * matrix))
    assert other == pytest.approx(scale * one, rel=1e-6, abs=1e-12 * scale)


def test_bad_input_is_refused():
    with pytest.raises(InputError, match="starts is 0"):
        stochastic_lanczos_quadrature(torch.eye(3), 2, 0, generator())
    with pytest.raises(InputError, match="steps is 0"):
        stochastic_lanczos_quadrature(torch.eye(3), 0, 2, generator())
    with pytest.raises(InputError, match="no Ritz values"):
        absolute_sum([], 3)
    with pytest.raises(NotFiniteError, match="step 1 of 2"):
        stochastic_lanczos_quadrature(torch.full((3, 3), torch.nan), 2, 1, generator())
