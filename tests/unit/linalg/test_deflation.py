"""LOWRANKDEFLATION against dense eigenpairs."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from known_spectra import Counted, generator, rotated

from hessketch.errors import InputError, NotFiniteError
from hessketch.linalg.deflation import Eigenpairs, deflate, low_rank_deflation

BULK = np.linspace(-1, 1, 40)


def test_outliers_of_both_signs_are_found_with_their_sign_by_descending_magnitude():
    pairs = low_rank_deflation(rotated([9.0, -7.0, 5.0, -3.0, *BULK]), 4, 200, generator())
    assert pairs.values == pytest.approx([9, -7, 5, -3], abs=1e-9)
    assert pairs.paper_values == pytest.approx([9, 7, 5, 3], abs=1e-9)  # the paper's have lost it
    assert pairs.residuals.max() < 1e-8


def test_vectors_are_orthonormal_eigenvectors():
    matrix = rotated([9.0, -7.0, 5.0, *BULK])
    pairs = low_rank_deflation(matrix, 3, 200, generator())
    assert pairs.vectors.shape == (43, 3)
    assert torch.allclose(pairs.vectors.T @ pairs.vectors, torch.eye(3, dtype=torch.float64), atol=1e-12)
    assert torch.allclose(matrix @ pairs.vectors, pairs.vectors * torch.from_numpy(pairs.values), atol=1e-8)


@pytest.mark.parametrize("few", [4, 8])
def test_a_rayleigh_ritz_rotation_leaves_no_false_eigenvalue_after_few_iterations(few):
    """Two neighbours of the paper's iteration mix for long: taking them out unconverged makes a negative eigenvalue."""
    spectrum = np.concatenate([[10.0, 9.5, 9.0], np.linspace(0, 0.5, 40)])
    matrix = rotated(spectrum)
    paper, rotated_pairs = (low_rank_deflation(matrix, 3, few, generator(), None, ritz) for ritz in (False, True))
    errors = np.abs(rotated_pairs.values - [10, 9.5, 9])
    assert (errors <= (rotated_pairs.residuals**2).sum() / (9 - 0.5 - errors.max()) + 1e-12).all()  # quadratic
    assert rotated_pairs.residuals.max() < paper.residuals.max() / 2
    identity = torch.eye(3, dtype=torch.float64)
    assert torch.allclose(rotated_pairs.vectors.T @ rotated_pairs.vectors, identity, atol=1e-12)
    left = [torch.linalg.eigvalsh(deflate(matrix, pairs) @ torch.eye(43).double()) for pairs in (paper, rotated_pairs)]
    assert left[0].min() < -0.05
    assert abs(left[1].min()) < abs(left[0].min()) / 10


def test_float32_finds_the_same_outliers():
    pairs = low_rank_deflation(rotated([90.0, -70.0, 50.0, *BULK], dtype=torch.float32), 3, 40, generator())
    assert pairs.vectors.dtype == torch.float32
    assert pairs.values == pytest.approx([90, -70, 50], rel=1e-5)
    assert pairs.values.dtype == np.float64


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(-10, 10), min_size=3, max_size=12), st.integers(1, 3), st.integers(1, 8), st.integers(0, 99))
def test_the_residual_bounds_the_distance_to_an_eigenvalue_however_few_the_iterations(values, rank, iterations, seed):
    matrix = rotated(values, seed)
    pairs = low_rank_deflation(matrix, rank, iterations, generator(seed))
    rounding = 1e-12 * (1 + np.abs(values).max())
    nearest = np.abs(pairs.values[:, None] - np.array(values)).min(axis=1)
    assert (nearest <= pairs.residuals + rounding).all()
    assert (np.diff(np.abs(pairs.values)) <= 0).all()
    columns = torch.linalg.vector_norm(matrix @ pairs.vectors, dim=0).numpy()
    assert pairs.paper_values == pytest.approx(columns, abs=rounding)
    assert pairs.residuals**2 == pytest.approx(
        columns**2 - pairs.values**2, abs=1e-10 * (1 + np.abs(values).max()) ** 2
    )


def test_two_eigenvalues_of_equal_magnitude_and_opposite_sign_show_in_the_residual():
    pairs = low_rank_deflation(rotated([4.0, -4.0, *BULK]), 1, 50, generator())
    assert pairs.paper_values[0] == pytest.approx(4, abs=1e-9)
    assert pairs.residuals[0] == pytest.approx(np.sqrt(16 - pairs.values[0] ** 2), abs=1e-6)
    assert pairs.residuals[0] > 0.1


def test_a_rank_beyond_the_operators_own_gives_zeros():
    pairs = low_rank_deflation(rotated([5.0, -2.0, *np.zeros(8)]), 4, 60, generator())
    assert pairs.values == pytest.approx([5, -2, 0, 0], abs=1e-12)


def test_the_full_rank_gives_the_whole_spectrum():
    values = [8.0, -4.0, 2.0, -1.0]
    pairs = low_rank_deflation(rotated(values), 4, 80, generator())
    assert pairs.values == pytest.approx(values, abs=1e-10)


def test_deflation_puts_zero_in_place_of_the_found_eigenvalues():
    matrix = rotated([9.0, -7.0, *BULK])
    pairs = low_rank_deflation(matrix, 2, 200, generator())
    deflated = deflate(matrix, pairs) @ torch.eye(42, dtype=torch.float64)
    found = torch.linalg.eigvalsh(deflated).numpy()
    assert found == pytest.approx(np.sort([0.0, 0.0, *BULK]), abs=1e-9)


def test_the_deflated_operator_multiplies_vectors_and_blocks_like_the_dense_one():
    matrix = rotated(np.arange(6.0))
    q = torch.linalg.qr(torch.randn(6, 2, generator=generator(1), dtype=torch.float64)).Q
    operator = deflate(matrix, Eigenpairs(np.array([3.0, -2.0]), q, np.zeros(2), np.zeros(2)))
    dense = matrix - 3 * torch.outer(q[:, 0], q[:, 0]) + 2 * torch.outer(q[:, 1], q[:, 1])
    block = torch.randn(6, 4, generator=generator(2), dtype=torch.float64)
    assert (operator.shape, operator.dtype, operator.device) == (matrix.shape, matrix.dtype, matrix.device)
    assert torch.allclose(operator @ block, dense @ block, atol=1e-13)
    assert torch.allclose(operator @ block[:, 0], dense @ block[:, 0], atol=1e-13)


def test_a_block_counts_as_one_product_a_column():
    operator, told = Counted(rotated(np.arange(6.0))), []
    low_rank_deflation(operator, 2, 3, generator(), progress=lambda *numbers: told.append(numbers))
    assert told == [(2, 6), (4, 6), (6, 6)]
    assert operator.products == 6


def test_products_that_are_not_finite_name_the_iteration():
    with pytest.raises(NotFiniteError, match="low-rank deflation, iteration 2 of 5"):
        low_rank_deflation(Counted(rotated(np.arange(6.0)), bad_from=2), 2, 5, generator())


@pytest.mark.parametrize(
    ("rank", "iterations", "message"), [(0, 5, "rank is 0"), (2, 0, "iterations is 0"), (4, 5, "exceeds")]
)
def test_bad_arguments_are_refused(rank, iterations, message):
    with pytest.raises(InputError, match=message):
        low_rank_deflation(torch.eye(3), rank, iterations, generator())
