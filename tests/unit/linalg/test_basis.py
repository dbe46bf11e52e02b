"""The growing basis against dense products."""

import numpy as np
import pytest
import torch
from known_spectra import generator

from hessketch.linalg.basis import Basis

SIZE = 90
PRECISIONS = pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-14), (torch.float32, 1e-6)])


def orthonormal(count: int, dtype=torch.float64) -> torch.Tensor:
    """Orthonormal rows (count, SIZE)."""
    return torch.linalg.qr(torch.randn(SIZE, count, generator=generator(), dtype=torch.float64)).Q.T.to(dtype)


def filled(rows, **options) -> Basis:
    basis = Basis(SIZE, options.pop("dtype", rows.dtype), "cpu", **options)
    for row in rows:
        basis.append(row)
    return basis


def random_vector(dtype=torch.float64) -> torch.Tensor:
    return torch.randn(SIZE, generator=generator(1), dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("count", [1, 15, 16, 17, 40])
def test_rows_are_what_was_appended_from_any_number_on(count):
    rows = orthonormal(count)
    basis = filled(rows)
    assert len(basis) == count
    for first in {0, 1, 15, 16, 17, 32, count - 1, count} & set(range(count + 1)):
        got = list(basis.rows(first))
        assert all(len(block) > 0 for block in got)
        assert sum(len(block) for block in got) == count - first
        if got:
            assert torch.equal(torch.cat(got), rows[first:])


def test_what_was_read_stays_when_the_basis_grows():
    rows = orthonormal(40)
    basis = filled(rows[:5])
    before = list(basis.rows())
    for row in rows[5:]:
        basis.append(row)
    assert torch.equal(torch.cat(before), rows[:5])


@PRECISIONS
@pytest.mark.parametrize("count", [1, 16, 40])
def test_what_is_left_of_a_vector_is_orthogonal_and_the_components_are_its_products(dtype, tolerance, count):
    rows, vector = orthonormal(count, dtype), random_vector(dtype)
    copy = vector.clone()
    left, components = filled(rows).project_out(vector)
    assert left.dtype == dtype and components.dtype == np.float64
    assert torch.equal(vector, copy)
    length = vector.norm().item()
    assert (rows @ left).abs().max().item() <= tolerance * length
    assert components == pytest.approx((rows.double() @ vector.double()).numpy(), abs=tolerance * length)
    whole = left.double() + rows.double().T @ torch.from_numpy(components)
    assert (whole - vector.double()).abs().max().item() <= tolerance * length


@PRECISIONS
def test_a_vector_almost_inside_leaves_a_small_rest_that_is_orthogonal_for_its_own_size(dtype, tolerance):
    rows = orthonormal(41)
    outside = 1e3 * tolerance  # one pass would leave components of about a thousandth of it
    vector = (rows[:40].T @ torch.linspace(-1, 1, 40).double() + outside * rows[40]).to(dtype)
    left, _ = filled(rows[:40].to(dtype)).project_out(vector)
    assert left.norm().item() == pytest.approx(outside, rel=0.01)
    assert (rows[:40].to(dtype) @ left).abs().max().item() <= tolerance * outside


def test_an_empty_basis_takes_nothing_out_and_combines_to_zero():
    basis, vector = filled(orthonormal(1)[:0]), random_vector()
    left, components = basis.project_out(vector)
    assert torch.equal(left, vector)
    assert components.shape == (0,)
    assert torch.equal(basis.combine(np.empty((0, 2))), torch.zeros(SIZE, 2, dtype=torch.float64))
    assert list(basis.rows()) == []


@PRECISIONS
@pytest.mark.parametrize("columns", [0, 1, 3])
def test_combinations_are_the_dense_product(dtype, tolerance, columns):
    rows, weights = orthonormal(40, dtype), np.random.default_rng(0).standard_normal((40, columns))
    combined = filled(rows).combine(weights)
    assert combined.dtype == dtype
    assert combined.shape == (SIZE, columns)
    exact = rows.double().T @ torch.from_numpy(weights)
    assert torch.allclose(combined.double(), exact, rtol=0, atol=10 * tolerance)


def test_chosen_columns_of_a_matrix_are_combined_whatever_their_order_in_memory():
    rows, weights = orthonormal(40), np.random.default_rng(0).standard_normal((40, 40))
    found = np.array([7, 3, 39])
    for layout in (weights, np.asfortranarray(weights)):
        combined = filled(rows).combine(layout[:, found])
        assert torch.allclose(combined, rows.T @ torch.from_numpy(weights[:, found]), rtol=0, atol=1e-13)


def test_a_float64_basis_serves_float32_vectors_in_its_own_precision():
    rows, vector = orthonormal(40), random_vector(torch.float32)
    basis = filled(rows.float(), dtype=torch.float64)
    kept = rows.float().double()
    left, components = basis.project_out(vector)
    assert left.dtype == torch.float32
    assert basis.combine(np.ones((40, 1))).dtype == torch.float64
    gram = kept @ kept.T
    # The rows are orthogonal to 1e-7 only; the second pass leaves the square of that.
    assert components == pytest.approx(torch.linalg.solve(gram, kept @ vector.double()).numpy(), abs=1e-12)
    assert (kept @ left.double()).abs().max().item() < 1e-6


@pytest.mark.parametrize("most", [1, 16, 20, 40])
def test_memory_is_taken_for_no_more_vectors_than_agreed(most):
    basis = filled(orthonormal(most), most=most)
    taken = sum(block.untyped_storage().nbytes() for block in basis.rows())
    assert taken == most * SIZE * 8
