"""Lanczos against closed forms and dense float64 eigenvalues."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from known_spectra import Counted, generator, rotated

from hessketch.errors import InputError, NotFiniteError
from hessketch.linalg.lanczos import Ritz, Tridiagonal, fast_lanczos, merge_ghosts, ritz, slow_lanczos

BOTH = pytest.mark.parametrize("lanczos", [fast_lanczos, slow_lanczos])

SPECTRA = {
    "spread": np.linspace(-3, 7, 30),
    "outliers": np.concatenate([np.linspace(0, 1, 27), [5.0, 50.0, -20.0]]),
    "geometric": np.geomspace(1e-3, 1e3, 20),
    "clustered": np.concatenate([1 + 1e-3 * np.arange(10), 4 + 1e-3 * np.arange(10)]),
    "one": np.array([-2.5]),
}

eigenvalue_lists = st.lists(st.floats(-10, 10), min_size=1, max_size=12)


@BOTH
def test_three_equally_weighted_eigenvalues_give_the_textbook_recurrence(lanczos):
    # Orthonormal polynomials of the measure (1/3 at each of 1, 2, 3): alpha = 2, beta^2 = 2/3, 1/3.
    found = lanczos(torch.diag(torch.tensor([1.0, 2, 3]).double()), 3, generator(), start=torch.ones(3))
    assert found.diagonal == pytest.approx([2, 2, 2])
    assert found.off_diagonal[:2] == pytest.approx(np.sqrt([2 / 3, 1 / 3]))
    assert found.off_diagonal[2] == pytest.approx(0, abs=1e-13)


@pytest.mark.parametrize("name", SPECTRA)
def test_full_reorthogonalisation_finds_every_eigenvalue_in_p_steps(name):
    values = np.sort(SPECTRA[name])
    found = ritz(slow_lanczos(rotated(values), len(values), generator()))
    assert np.abs(found.values - values).max() < 1e-10 * np.abs(values).max()


def test_full_reorthogonalisation_holds_in_float32():
    values = np.concatenate([np.linspace(0, 1, 57), [20.0, 50.0, 100.0]])
    found = ritz(slow_lanczos(rotated(values, dtype=torch.float32), 60, generator()))
    assert np.abs(found.values - values).max() < 1e-6 * 100


@BOTH
@pytest.mark.parametrize(
    ("values", "distinct"),
    [([2.0] * 8, 1), ([0.0] * 8, 1), ([3.0], 1), ([0.0] * 9 + [1.0, 2.0], 3), ([-1.0] * 5 + [1.0] * 5, 2)],
)
def test_the_run_ends_with_the_distinct_eigenvalues(lanczos, values, distinct):
    found = ritz(lanczos(rotated(values), 20, generator(1)))
    assert found.values == pytest.approx(np.unique(values), abs=1e-12)
    assert len(found.values) == distinct


@BOTH
def test_an_eigenvector_as_start_ends_at_once_with_its_eigenvalue(lanczos):
    found = ritz(lanczos(torch.diag(torch.tensor([4.0, 5, 6]).double()), 3, generator(), start=torch.eye(3)[1]))
    assert found.values.tolist() == [5]
    assert found.weights.tolist() == [1]
    assert found.residuals.tolist() == [0]


@BOTH
def test_ritz_values_and_weights_are_the_gauss_quadrature_of_the_start(lanczos):
    matrix = rotated(np.linspace(-1, 2, 40))
    start = torch.randn(40, generator=generator(5), dtype=torch.float64)
    found = ritz(lanczos(matrix, 6, generator(), start=start))
    unit = start / start.norm()
    for power in range(12):  # six nodes integrate degrees to 11
        moment = (unit @ torch.linalg.matrix_power(matrix, power) @ unit).item()
        assert (found.weights * found.values**power).sum() == pytest.approx(moment, rel=1e-9)


def test_more_steps_than_dimensions_are_clipped_with_reorthogonalisation_only():
    matrix = rotated(np.concatenate([np.linspace(0, 1, 17), [10.0, 40.0, 90.0]]), dtype=torch.float32)
    slow, fast = (lanczos(matrix, 60, generator()) for lanczos in (slow_lanczos, fast_lanczos))
    assert len(slow.diagonal) == 20
    assert len(fast.diagonal) == 60


def test_without_reorthogonalisation_ghosts_appear_and_merging_removes_them():
    values = np.concatenate([np.linspace(0, 1, 190), np.linspace(10, 100, 10)])
    matrix = rotated(values, dtype=torch.float32)
    found = ritz(fast_lanczos(matrix, 120, generator(1)))
    merged = merge_ghosts(found)
    assert (found.values > 5).sum() > 20  # more than two copies of each
    known = (merged.values > 5) & (merged.residuals < 0.01)  # the others are ghosts on their way
    assert merged.values[known] == pytest.approx(values[values > 5], rel=1e-4)
    assert merged.weights.sum() == pytest.approx(1, abs=1e-12)
    ideal = ritz(slow_lanczos(matrix, 120, generator(1)))
    above = ideal.values > 5
    assert above.sum() == 10
    assert merged.weights[known] == pytest.approx(ideal.weights[above], rel=1e-2)


def test_merging_adds_weights_and_keeps_the_best_known_value():
    found = Ritz(np.array([0.5, 1.0, 1.0001, 1.0002]), np.array([0.4, 0.3, 0.2, 0.1]), np.array([0.5, 1e-5, 1e-9, 0.1]))
    merged = merge_ghosts(found, tolerance=1e-3)
    assert merged.values.tolist() == [0.5, 1.0001, 1.0002]  # the last is not converged: it stays
    assert merged.weights == pytest.approx([0.4, 0.5, 0.1])
    assert merged.residuals.tolist() == [0.5, 1e-9, 0.1]


def test_merging_leaves_a_spectrum_without_copies_as_it_is():
    found = ritz(slow_lanczos(rotated(np.linspace(1, 2, 20)), 20, generator()))
    merged = merge_ghosts(found)
    assert np.array_equal(merged.values, found.values)
    assert np.array_equal(merged.weights, found.weights)


def test_merging_nothing_gives_nothing():
    assert len(merge_ghosts(Ritz(*np.empty((3, 0)))).values) == 0


def test_a_single_step_gives_the_rayleigh_quotient_with_its_residual():
    found = ritz(Tridiagonal(np.array([3.0]), np.array([0.25])))
    assert (found.values.tolist(), found.weights.tolist(), found.residuals.tolist()) == ([3.0], [1.0], [0.25])


@settings(max_examples=40, deadline=None)
@given(eigenvalue_lists, st.integers(1, 15), st.sampled_from([fast_lanczos, slow_lanczos]), st.integers(0, 99))
def test_ritz_values_lie_within_the_spectrum_weights_are_shares_and_residuals_bound_the_error(
    values, steps, lanczos, seed
):
    found = ritz(lanczos(rotated(values, seed), steps, generator(seed)))
    rounding = 1e-12 * (1 + np.abs(values).max())
    assert (found.weights >= 0).all()
    assert found.weights.sum() == pytest.approx(1, abs=1e-12)
    assert (np.diff(found.values) >= 0).all()
    assert min(values) - rounding <= found.values[0] and found.values[-1] <= max(values) + rounding
    nearest = np.abs(found.values[:, None] - np.array(values)).min(axis=1)
    assert (nearest <= found.residuals + rounding).all()


@settings(max_examples=30, deadline=None)
@given(st.floats(-5, 5), st.floats(0.1, 10), st.booleans(), st.integers(0, 99))
def test_ritz_values_move_with_shift_and_scale(shift, scale, negate, seed):
    scale = -scale if negate else scale
    matrix = rotated(np.linspace(-1, 1, 15), seed)
    before = ritz(slow_lanczos(matrix, 5, generator(seed)))
    after = ritz(slow_lanczos(scale * matrix + shift * torch.eye(15, dtype=torch.float64), 5, generator(seed)))
    order = slice(None, None, -1 if negate else 1)
    assert after.values == pytest.approx((scale * before.values + shift)[order], abs=1e-10)
    assert after.weights == pytest.approx(before.weights[order], abs=1e-8)
    assert after.residuals == pytest.approx((abs(scale) * before.residuals)[order], abs=1e-8)


@BOTH
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e200])
def test_a_number_that_is_not_finite_or_too_large_names_algorithm_and_step(lanczos, bad):
    name = "fast Lanczos" if lanczos is fast_lanczos else "slow Lanczos"
    with pytest.raises(NotFiniteError, match=f"{name}, step 3 of 9"):
        lanczos(Counted(rotated(np.arange(10.0)), bad_from=3, bad=bad), 9, generator())


@BOTH
def test_progress_counts_the_products_taken(lanczos):
    operator, told = Counted(rotated(np.arange(10.0))), []
    lanczos(operator, 4, generator(), progress=lambda done, total: told.append((done, total)))
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert operator.products == 4


@BOTH
def test_a_seed_repeats_the_run_and_the_operator_stays_as_it_was(lanczos):
    matrix = rotated(np.arange(10.0))
    copy = matrix.clone()
    first, second = (lanczos(matrix, 5, generator(4)) for _ in range(2))
    assert np.array_equal(first.diagonal, second.diagonal)
    assert not np.array_equal(first.diagonal, lanczos(matrix, 5, generator(5)).diagonal)
    assert torch.equal(matrix, copy)


@BOTH
def test_an_operator_that_returns_its_argument_is_not_spoilt_by_the_recurrence(lanczos):
    class Identity:
        shape, dtype, device = (6, 6), torch.float64, torch.device("cpu")

        def __matmul__(self, other):
            return other

    start = torch.arange(1.0, 7.0, dtype=torch.float64)
    copy = start.clone()
    assert ritz(lanczos(Identity(), 3, generator(), start=start)).values == pytest.approx([1.0])
    assert torch.equal(start, copy)


@BOTH
@pytest.mark.parametrize(
    ("steps", "start", "message"),
    [
        (0, None, "steps is 0"),
        (3, torch.ones(4), r"start has shape \(4,\)"),
        (3, torch.zeros(5), "start is zero"),
        (3, torch.full((5,), float("nan")), "not finite"),
    ],
)
def test_bad_arguments_are_refused(lanczos, steps, start, message):
    with pytest.raises(InputError, match=message):
        lanczos(torch.eye(5), steps, generator(), start=start)
