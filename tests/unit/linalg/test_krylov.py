"""The Lanczos run behind all else: its recurrence, its bounds, and its way on after a breakdown."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from known_spectra import Counted, generator, rotated
from krylov_runs import PRECISIONS, SPECTRA, run, true_residuals, vectors

from hessketch.errors import InputError, NotFiniteError
from hessketch.linalg.krylov_space import leading
from hessketch.linalg.lanczos import Ritz


@pytest.mark.parametrize("name", SPECTRA)
@pytest.mark.parametrize("steps", [1, 7, 40, 60])
def test_products_of_the_basis_are_its_tridiagonal_and_one_vector_more(name, steps):
    matrix = rotated(SPECTRA[name])
    found = run(matrix, steps)
    assert found.steps == len(found.basis) == steps
    v, scale = vectors(found), np.abs(SPECTRA[name]).max()
    off = np.array(found.betas[:-1])
    t = torch.from_numpy(np.diag(found.alphas) + np.diag(off, 1) + np.diag(off, -1))
    rest = matrix @ v - v @ t
    assert (v.T @ v - torch.eye(steps)).abs().max() < 1e-13
    assert (rest[:, :-1].norm(dim=0) < 1e-12 * scale).all()
    assert rest[:, -1].norm().item() == pytest.approx(found.betas[-1], abs=1e-12 * scale)
    assert (v.T @ rest[:, -1]).abs().max().item() < 1e-12 * scale


@PRECISIONS
@pytest.mark.parametrize("name", SPECTRA)
@pytest.mark.parametrize("steps", [6, 25, 60])
def test_bounds_are_the_true_residuals_and_a_little_rounding(name, dtype, steps):
    matrix = rotated(SPECTRA[name], dtype=dtype)
    exact = np.linalg.eigvalsh(matrix.double().numpy())
    for basis in {dtype, torch.float64}:
        found = run(matrix, steps, basis=basis)
        pairs, _ = found.eigenpairs()
        excess = (pairs.residuals - true_residuals(matrix, found)) / found.rounding
        assert excess.min() >= 0 and excess.max() <= 1.2
        assert found.rounding <= (20 * torch.finfo(dtype).eps + steps * 2.3e-16) * found.scale
        nearest = np.abs(pairs.values[:, None] - exact).min(axis=1)
        assert (nearest <= pairs.residuals).all()


@PRECISIONS
def test_a_slight_asymmetry_is_within_the_bounds(dtype):
    matrix = rotated(SPECTRA["spikes"])
    skew = torch.randn(80, 80, generator=generator(3), dtype=torch.float64)
    size = 0.5 * torch.finfo(dtype).eps ** 0.5 * 100 / torch.linalg.matrix_norm(skew - skew.T, 2)
    matrix = (matrix + size * (skew - skew.T)).to(dtype)
    found = run(matrix, 30)
    pairs, _ = found.eigenpairs()
    true = true_residuals(matrix, found)
    assert found.asymmetry > 100 * torch.finfo(dtype).eps
    assert (true <= pairs.residuals).all()
    # What is measured of it counts as part of the residual; the whole of it stands once more under rounding.
    assert (pairs.residuals - true <= 1.1 * found.rounding).all()


@pytest.mark.parametrize("name", SPECTRA)
def test_as_many_steps_as_dimensions_give_every_eigenvalue_as_often_as_it_occurs(name):
    values = np.sort(SPECTRA[name])
    found = run(rotated(values), len(values) + 30)
    assert found.steps == len(values)
    pairs = found.ritz()
    assert np.abs(pairs.values - values).max() < 1e-12 * np.abs(values).max()
    assert pairs.weights.sum() == pytest.approx(1, abs=1e-12)


def test_in_float32_as_well_to_its_rounding():
    values = np.sort(SPECTRA["multiple"])
    found = run(rotated(values, dtype=torch.float32), 60)
    assert np.abs(found.ritz().values - values).max() < 1e-6 * 5


def test_a_breakdown_goes_on_in_a_fresh_direction_decoupled_and_finds_further_eigenvalues():
    values = np.arange(1.0, 21)
    start = torch.zeros(20, dtype=torch.float64)
    start[:3] = 3**-0.5
    found = run(torch.diag(torch.from_numpy(values)), 9, start=start)
    assert found.steps == 9 and not found.exhausted
    assert found.betas[2] == 0
    pairs = found.ritz()
    heavy = pairs.weights > 1e-20
    assert pairs.values[heavy] == pytest.approx([1, 2, 3])
    assert pairs.weights[heavy] == pytest.approx([1 / 3] * 3)
    assert (pairs.values[~heavy] > 3.5).all()  # the fresh direction is orthogonal to the space found before
    assert (vectors(found)[:3, 3:].abs() < 1e-14).all()


@pytest.mark.parametrize("value", [0.0, 2.0])
@PRECISIONS
def test_a_multiple_of_the_identity_is_exhausted_after_as_many_steps_as_dimensions(value, dtype):
    found = run(value * torch.eye(7, dtype=dtype), 20)
    assert found.steps == 7 and found.exhausted
    pairs = found.ritz()
    assert pairs.values == pytest.approx([value] * 7, rel=1e-6)
    assert (np.abs(pairs.values - value) <= pairs.residuals).all()


def test_the_run_ends_where_it_is_told_to_and_takes_a_product_a_step():
    operator, told = Counted(rotated(np.arange(40.0))), []
    found = run(operator, 30, stop=lambda run: run.steps >= 12, progress=lambda *numbers: told.append(numbers))
    assert found.steps == operator.products == operator.calls == 12
    assert told == [(step, 30) for step in range(1, 13)]


def test_long_runs_are_looked_at_more_and_more_seldom():
    looked = []
    run(rotated(np.linspace(0, 1, 200)), 200, stop=lambda run: looked.append(run.steps))
    assert looked[:47] == list(range(1, 48))
    assert 60 < len(looked) < 110


@PRECISIONS
@pytest.mark.parametrize("kind", ["general", "skew", "nearly"])
def test_an_operator_that_is_not_symmetric_is_refused(kind, dtype):
    noise = torch.randn(50, 50, generator=generator(1), dtype=torch.float64)
    matrix = {
        "general": noise,
        "skew": noise - noise.T,
        "nearly": rotated(np.linspace(-1, 1, 50)) + 10 * torch.finfo(dtype).eps ** 0.5 * noise,
    }[kind]
    with pytest.raises(InputError, match="not symmetric, or gives another product each time: step"):
        run(matrix.to(dtype), 50)


def test_an_operator_that_gives_another_product_each_time_is_refused():
    class Random(Counted):
        def __matmul__(self, other):
            product = super().__matmul__(other)
            return product + 0.01 * torch.randn(50, generator=generator(self.calls), dtype=torch.float64)

    with pytest.raises(InputError, match="give a symmetric operator on fixed data"):
        run(Random(rotated(np.linspace(-1, 1, 50))), 50)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e200])
@pytest.mark.parametrize("basis", ["same", None])
def test_a_number_that_is_not_finite_or_too_large_names_the_step(bad, basis):
    with pytest.raises(NotFiniteError, match="Lanczos, step 3:"):
        run(Counted(rotated(np.arange(10.0)), bad_from=3, bad=bad), 9, basis=basis)


@PRECISIONS
def test_the_run_sees_the_operator_on_the_complement_of_locked_vectors(dtype):
    matrix = rotated(np.linspace(-1, 3, 20))
    q = torch.linalg.qr(torch.randn(20, 20, generator=generator(4), dtype=torch.float64)).Q
    locked, complement = q[:, :4], q[:, 4:]
    compressed = np.linalg.eigvalsh((complement.T @ matrix @ complement).numpy())
    found = run(matrix.to(dtype), 30, locked=locked.to(dtype))
    assert found.steps == 16
    tolerance = 20 * torch.finfo(dtype).eps
    assert found.ritz().values == pytest.approx(compressed, abs=tolerance)
    assert (locked.T @ vectors(found)).abs().max().item() < tolerance


@PRECISIONS
@pytest.mark.parametrize("steps", [5, 12, 16])
def test_bounds_hold_for_the_whole_operator_with_locked_vectors_that_are_nearly_eigenvectors(dtype, steps):
    values = np.r_[np.linspace(-1, 1, 16), 10.0, 20, -30, 40]
    matrix = rotated(values, dtype=dtype)
    eigenvectors = torch.linalg.eigh(matrix.double()).eigenvectors
    order = torch.argsort(torch.linalg.eigvalsh(matrix.double()).abs())[-4:]
    disturbed = eigenvectors[:, order] + 1e-3 * torch.randn(20, 4, generator=generator(5), dtype=torch.float64)
    locked = torch.linalg.qr(disturbed).Q.to(dtype)
    found = run(matrix, steps, locked=locked, norm_known=45.0)
    true, bounds = true_residuals(matrix, found), found.ritz().residuals
    assert true.max() > 1e-4  # the locked vectors' error shows
    assert (true <= bounds).all()


def test_eigenvectors_locked_leave_the_other_eigenvalues():
    values = np.r_[np.linspace(-1, 1, 40), 10.0, 20, -30]
    matrix = rotated(values)
    found = run(matrix, 60, locked=torch.linalg.eigh(matrix).eigenvectors[:, [0, 41, 42]])
    assert found.ritz().values == pytest.approx(values[:40], abs=1e-12)


def test_leading_values_are_ordered_by_magnitude_up_to_the_first_that_has_not_converged():
    pairs = Ritz(np.array([-9.0, 1, 5, 7, 8]), np.full(5, 0.2), np.array([1e-4, 1e-9, 0.1, 1e-3, 1e-4]))
    assert pairs.values[leading(pairs, 2, 1e-3, 0.0)].tolist() == [-9, 8]
    assert pairs.values[leading(pairs, 5, 1e-3, 0.0)].tolist() == [-9, 8, 7]
    assert pairs.values[leading(pairs, 5, 0.1, 0.0)].tolist() == [-9, 8, 7, 5, 1]
    assert pairs.values[leading(pairs, 5, 1e-3, 0.05)].tolist() == [-9, 8, 7, 5, 1]  # as good as rounding lets it be
    assert len(leading(pairs, 0, 1e-3, 0.0)) == 0


matrices = st.lists(st.floats(-10, 10), min_size=1, max_size=12)


@settings(max_examples=25, deadline=None)
@given(matrices, st.integers(1, 15), st.booleans(), st.integers(0, 99))
def test_ritz_values_lie_in_the_spectrums_hull_and_eigenvalues_within_their_bounds(values, steps, keep, seed):
    found = run(rotated(values, seed), steps, seed, basis="same" if keep else None)
    pairs, values = found.ritz(), np.array(values)
    rounding = found.rounding + 1e-14 * (1 + np.abs(values).max())
    assert values.min() - rounding <= pairs.values[0] and pairs.values[-1] <= values.max() + rounding
    nearest = np.abs(pairs.values[:, None] - values).min(axis=1)
    assert (nearest <= pairs.residuals + rounding).all()
    assert found.measure().weights.sum() == pytest.approx(1, abs=1e-12)


@settings(max_examples=20, deadline=None)
@given(st.floats(0.01, 100), st.booleans(), st.sampled_from(["same", None]), st.integers(0, 99))
def test_a_factor_scales_values_and_bounds(factor, negate, basis, seed):
    factor, matrix = -factor if negate else factor, rotated(np.linspace(-1, 2, 15), seed)
    before, after = (run(m, 6, seed, basis=basis).ritz() for m in (matrix, factor * matrix))
    order = slice(None, None, -1 if negate else 1)
    assert after.values == pytest.approx((factor * before.values)[order], rel=1e-10, abs=1e-10 * abs(factor))
    assert after.residuals == pytest.approx((abs(factor) * before.residuals)[order], rel=1e-8)
    assert after.weights == pytest.approx(before.weights[order], abs=1e-8)


@settings(max_examples=20, deadline=None)
@given(st.floats(-5, 5), st.sampled_from(["same", None]), st.integers(0, 99))
def test_a_shift_moves_values_and_leaves_residuals(shift, basis, seed):
    matrix = rotated(np.linspace(-1, 2, 15), seed)
    shifted = matrix + shift * torch.eye(15, dtype=torch.float64)
    before, after = (run(m, 6, seed, basis=basis).ritz() for m in (matrix, shifted))
    assert after.values == pytest.approx(before.values + shift, abs=1e-10)
    assert after.residuals == pytest.approx(before.residuals, abs=1e-10)
