"""Diagonals and block traces from random signs against dense matrices."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from known_spectra import Counted, generator, rotated

from hessketch.errors import InputError, NotFiniteError
from hessketch.linalg.diagonals import estimate_block_traces, estimate_diagonal
from hessketch.linalg.traces import hutchinson_trace, rademacher_vector

INDEFINITE = np.linspace(-1, 2, 30)


@pytest.mark.parametrize("products", [2, 3, 7])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_diagonal_of_a_diagonal_operator_is_exact(products, dtype):
    diagonal = torch.tensor([3.0, -0.1, 0.0, 1e6, -1e-6], dtype=dtype)
    found = estimate_diagonal(torch.diag(diagonal), products, generator(products))
    assert torch.equal(found.diagonal, diagonal.double())
    assert torch.equal(found.standard_error, torch.zeros(5, dtype=torch.float64))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_diagonal_is_the_mean_over_probes_with_its_standard_error(dtype):
    matrix, draws = rotated(INDEFINITE, dtype=dtype), generator(3)
    probes = torch.stack([rademacher_vector(matrix, draws) for _ in range(9)]).double()
    samples = probes * (probes @ matrix.double())
    found = estimate_diagonal(matrix, 9, generator(3))
    tolerance = 1e-13 if dtype == torch.float64 else 1e-5
    assert found.diagonal.dtype == found.standard_error.dtype == torch.float64
    assert found.diagonal.numpy() == pytest.approx(samples.mean(0).numpy(), abs=tolerance)
    assert found.standard_error.numpy() == pytest.approx(samples.std(0).numpy() / 3, abs=tolerance)


def test_the_diagonal_is_unbiased_and_its_errors_cover_it_at_about_their_rate():
    matrix = rotated(INDEFINITE)
    found = [estimate_diagonal(matrix, 24, generator(seed)) for seed in range(200)]
    values = torch.stack([f.diagonal for f in found])
    errors = torch.stack([f.standard_error for f in found])
    deviation = values - torch.diagonal(matrix)
    assert (deviation.mean(0).abs() < 4.5 * values.std(0) / np.sqrt(200)).all()
    assert 0.9 < (deviation.abs() <= 1.96 * errors).double().mean() < 0.97


def test_every_entry_has_the_variance_of_its_row():
    matrix = rotated(INDEFINITE)
    rows = (matrix**2).sum(1) - torch.diagonal(matrix) ** 2
    errors = torch.stack([estimate_diagonal(matrix, 10, generator(seed)).standard_error for seed in range(200)])
    assert ((errors**2).mean(0) / (rows / 10)).numpy() == pytest.approx(np.ones(30), rel=0.15)


def test_the_diagonal_sums_to_the_trace_of_the_same_probes():
    matrix = rotated(INDEFINITE)
    diagonal = estimate_diagonal(matrix, 11, generator(1)).diagonal
    assert float(diagonal.sum()) == pytest.approx(hutchinson_trace(matrix, 11, generator(1)).value, rel=1e-12)


def test_an_operator_that_returns_its_argument_is_not_disturbed():
    class Identity:
        shape, dtype, device = (6, 6), torch.float32, torch.device("cpu")

        def __matmul__(self, other):
            return other

    assert estimate_diagonal(Identity(), 3, generator()).diagonal.tolist() == [1.0] * 6
    assert [e.value for e in estimate_block_traces(Identity(), [1, 5], 3, generator())] == [1.0, 5.0]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.integers(2, 12), st.integers(0, 99))
def test_block_traces_add_up_to_the_trace_of_the_same_probes(sizes, products, seed):
    matrix = rotated(np.linspace(-1, 2, sum(sizes)), seed=seed)
    blocks = estimate_block_traces(matrix, sizes, products, generator(seed))
    whole = hutchinson_trace(matrix, products, generator(seed))
    assert len(blocks) == len(sizes)
    assert sum(b.value for b in blocks) == pytest.approx(whole.value, rel=1e-10, abs=1e-10)


def test_one_block_is_the_trace():
    matrix = rotated(INDEFINITE)
    assert estimate_block_traces(matrix, (30,), 8, generator(6)) == [hutchinson_trace(matrix, 8, generator(6))]


def test_block_traces_are_unbiased_and_their_errors_cover_them_at_about_their_rate():
    matrix, sizes = rotated(INDEFINITE), [4, 1, 25]
    truth = np.array([float(block.sum()) for block in torch.diagonal(matrix).split(sizes)])
    found = [estimate_block_traces(matrix, sizes, 24, generator(seed)) for seed in range(200)]
    values = np.array([[b.value for b in blocks] for blocks in found])
    errors = np.array([[b.standard_error for b in blocks] for blocks in found])
    assert (np.abs(values.mean(0) - truth) < 4 * values.std(0, ddof=1) / np.sqrt(200)).all()
    covered = (np.abs(values - truth) <= 1.96 * errors).mean(0)
    assert ((covered >= 0.85) & (covered <= 1.0)).all(), covered


def test_blocks_of_a_block_diagonal_operator_do_not_see_each_other():
    first, second = rotated([1.0, 2.0, -4.0]), rotated([1e3, 2e3], seed=1)
    together = estimate_block_traces(torch.block_diag(first, second), [3, 2], 6, generator(2))
    changed = estimate_block_traces(torch.block_diag(first, -5 * second), [3, 2], 6, generator(2))
    assert together[0] == changed[0]
    assert changed[1].value == pytest.approx(-5 * together[1].value)


@pytest.mark.parametrize("p", [1, 8])
def test_zero_operators_give_zero(p):
    found = estimate_diagonal(torch.zeros(p, p), 4, generator())
    assert not found.diagonal.any() and not found.standard_error.any()
    assert [(b.value, b.standard_error) for b in estimate_block_traces(torch.zeros(p, p), [1] * p, 4, generator())] == [
        (0.0, 0.0)
    ] * p


def test_as_many_products_are_taken_as_reported():
    for method in (estimate_diagonal, lambda a, *rest: estimate_block_traces(a, [10, 20], *rest)):
        operator, told = Counted(rotated(INDEFINITE)), []
        found = method(operator, 7, generator(), lambda *numbers, told=told: told.append(numbers))
        assert operator.products == 7
        assert {f.products for f in (found if isinstance(found, list) else [found])} == {7}
        assert told == [(i, 7) for i in range(1, 8)]


def test_a_seed_gives_the_same_result():
    matrix = rotated(INDEFINITE)
    first, second, other = (estimate_diagonal(matrix, 4, generator(seed)) for seed in (8, 8, 9))
    assert torch.equal(first.diagonal, second.diagonal) and torch.equal(first.standard_error, second.standard_error)
    assert not torch.equal(first.diagonal, other.diagonal)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_products_that_are_not_finite_are_named(bad):
    with pytest.raises(NotFiniteError, match="diagonal, product 3 of 6"):
        estimate_diagonal(Counted(rotated(INDEFINITE), bad_from=3, bad=bad), 6, generator())
    with pytest.raises(NotFiniteError, match="block traces, product 3 of 6"):
        estimate_block_traces(Counted(rotated(INDEFINITE), bad_from=3, bad=bad), [10, 20], 6, generator())


@pytest.mark.parametrize(
    ("sizes", "products", "message"),
    [
        ([10, 19], 4, "sum to 29; allowed: 30"),
        ([10, 21], 4, "sum to 31; allowed: 30"),
        ([], 4, "sum to 0; allowed: 30"),
        ([30, 0], 4, r"sizes\[1\] is 0"),
        ([-1, 31], 4, r"sizes\[0\] is -1"),
        ([10.0, 20.0], 4, r"sizes\[0\] is 10.0"),
        ([10, 20], 1, "products is 1; allowed: integers from 2"),
    ],
)
def test_bad_blocks_are_refused(sizes, products, message):
    with pytest.raises(InputError, match=message):
        estimate_block_traces(rotated(INDEFINITE), sizes, products, generator())


def test_a_single_product_gives_no_standard_error_and_is_refused():
    with pytest.raises(InputError, match="products is 1; allowed: integers from 2"):
        estimate_diagonal(rotated(INDEFINITE), 1, generator())
