"""Block Lanczos against spectra that are known, multiple eigenvalues above all."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from interruptions import Interrupted, MemoryStore
from known_spectra import Counted, generator, rotated

from hessketch.errors import InputError, NotFiniteError
from hessketch.linalg.basis import Basis
from hessketch.linalg.block_krylov import block_run

PRECISIONS = pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
DECAYING = 10.0 / np.arange(1, 201) * np.resize([1, 1, -1], 200)
MULTIPLE = np.r_[np.repeat([9.0, -7, 4], 5), np.linspace(-1, 1, 105)]


def run_of(operator, block, products=10_000, stop=lambda run: False, seed=3, **options):
    basis = Basis(operator.shape[0], operator.dtype, "cpu")
    return block_run(operator, block, products, stop=stop, generator=generator(seed), basis=basis, **options)


def pairs_of(run):
    """Values, residual bounds and vectors, by descending magnitude."""
    pairs, y = run.eigenpairs()
    order = np.argsort(-np.abs(pairs.values), kind="stable")
    return pairs.values[order], pairs.residuals[order], run.basis.combine(y[:, order]).double()


def true_residuals(matrix, values, vectors):
    return (matrix.double() @ vectors - vectors * torch.from_numpy(values)).norm(dim=0).numpy()


@PRECISIONS
@pytest.mark.parametrize("block", [1, 4, 7])
@pytest.mark.parametrize(
    "values",
    [DECAYING, MULTIPLE, np.r_[np.zeros(55), 1, 2, 3], np.zeros(20), np.ones(20), np.geomspace(1e-6, 1e3, 60), [-2.5]],
    ids=["decaying", "multiple", "rank deficient", "zero", "identity", "geometric", "one by one"],
)
def test_the_whole_space_gives_every_eigenvalue_as_often_as_it_is_there(values, block, dtype):
    operator = Counted(rotated(values, dtype=dtype))
    p, eps = len(values), torch.finfo(dtype).eps
    found, residuals, vectors = pairs_of(run_of(operator, min(block, p)))
    exact = np.linalg.eigvalsh(operator.matrix.double().numpy())
    norm = np.abs(exact).max()
    assert operator.products == p == len(found)
    assert np.sort(found) == pytest.approx(exact, abs=20 * eps * norm)
    assert (vectors.T @ vectors - torch.eye(p)).abs().max().item() < 20 * eps
    true = true_residuals(operator.matrix, found, vectors)
    assert (true <= residuals + 1e-14 * norm).all()
    assert (residuals <= true + 100 * eps * norm).all()


@PRECISIONS
def test_bounds_hold_before_anything_has_converged_and_are_no_larger_than_they_must(dtype):
    operator = Counted(rotated(DECAYING, dtype=dtype))
    for products in (8, 24, 48):
        found, residuals, vectors = pairs_of(run_of(operator, 8, products))
        true = true_residuals(operator.matrix, found, vectors)
        assert len(found) == products
        assert (true <= residuals).all()
        assert (residuals <= true + 100 * torch.finfo(dtype).eps * 10).all()


@pytest.mark.parametrize(("block", "products", "copies"), [(1, 15, 1), (3, 45, 3), (5, 80, 5), (8, 112, 5)])
def test_a_multiple_eigenvalue_is_found_as_often_as_the_block_is_wide(block, products, copies):
    """The Krylov space of b vectors holds b directions of each eigenspace; rounding adds others much later."""
    found, residuals, _ = pairs_of(run_of(rotated(MULTIPLE), block, products))
    for value in (9, -7, 4):
        converged = np.abs(found[residuals < 1e-3] - value) < 1e-6
        assert converged.sum() == copies, f"{value}: {found[:20]}"


def test_blocks_multiply_their_columns_at_once():
    operator = Counted(rotated(DECAYING))
    run = run_of(operator, 8, 50)
    assert (operator.calls, operator.products, run.products) == (6, 48, 48)


def test_a_run_stops_where_it_is_told_to():
    seen = []
    run = run_of(rotated(DECAYING), 4, stop=lambda run: seen.append(run.products) or run.products >= 20)
    assert run.products == 20
    assert seen == [4, 8, 12, 16, 20]


def test_a_low_rank_is_exhausted_after_two_blocks_and_the_run_goes_on_in_its_kernel():
    values = np.r_[np.zeros(90), np.arange(1.0, 11)]
    operator = Counted(rotated(values))
    found, residuals, _ = pairs_of(run_of(operator, 10, 60))
    assert found[:10] == pytest.approx(np.arange(10.0, 0, -1), abs=1e-12)
    assert (residuals[:10] < 1e-11).all()
    assert len(found) == 60
    assert np.abs(found[10:]).max() < 1e-12


def test_a_block_gets_narrower_where_its_products_hold_fewer_new_directions():
    """Rank 5: four random directions, four of the range, the fifth, and then nothing but fresh directions."""
    operator, widths = Counted(torch.diag(torch.tensor([5.0, 4, 3, 2, 1] + [0.0] * 25)).double()), []
    run = run_of(operator, 4, stop=lambda run: widths.append(run.width) or False)
    assert widths == [4, 4, 1, 4, 4, 4, 4, 4]
    assert run.products == operator.products == 30
    found, _, _ = pairs_of(run)
    assert found[:5] == pytest.approx([5, 4, 3, 2, 1], abs=1e-12)


@settings(max_examples=30, deadline=None)
@given(
    values=st.lists(st.integers(-5, 5), min_size=1, max_size=24),
    block=st.integers(1, 24),
    seed=st.integers(0, 5),
)
def test_integer_spectra_of_any_multiplicity_are_found_whole(values, block, seed):
    matrix = rotated(np.array(values, dtype=float), seed)
    found, _, _ = pairs_of(run_of(matrix, min(block, len(values)), seed=seed))
    assert np.sort(found) == pytest.approx(np.sort(values), abs=1e-10)


def test_a_run_that_was_interrupted_gives_the_same_numbers_bit_for_bit():
    matrix, store = rotated(np.r_[DECAYING, np.zeros(40)], dtype=torch.float32), MemoryStore(3)
    undisturbed = run_of(matrix, 8, 232)
    with pytest.raises(KeyboardInterrupt):
        run_of(Interrupted(matrix, 17), 8, 232, store=store)
    assert len(store.blocks) > 1
    resumed = run_of(operator := Counted(matrix), 8, 232, store=store, seed=99)
    assert operator.products < 232 - 8 * 10
    for first, second in zip(pairs_of(undisturbed), pairs_of(resumed), strict=True):
        assert np.array_equal(first, second)


def test_a_coarser_basis_is_told_by_its_bounds():
    matrix = rotated(DECAYING)
    run = block_run(
        matrix, 8, 96, stop=lambda run: False, generator=generator(), basis=Basis(200, torch.float32, "cpu")
    )
    found, residuals, vectors = pairs_of(run)
    assert (true_residuals(matrix, found, vectors) <= residuals).all()
    assert residuals[0] > 1e-7


def test_progress_counts_the_products():
    told = []
    run_of(rotated(DECAYING), 8, 24, progress=lambda *numbers: told.append(numbers))
    assert told == [(8, 24), (16, 24), (24, 24)]


def test_an_operator_that_is_not_symmetric_or_not_finite_is_refused():
    with pytest.raises(InputError, match="not symmetric"):
        run_of(torch.randn(30, 30, generator=generator()), 4)
    with pytest.raises(NotFiniteError, match="products 5 to 8"):
        run_of(Counted(torch.diag(torch.arange(9.0)), bad_from=2), 4)
    with pytest.raises(NotFiniteError, match="products 1 to 4"):
        run_of(Counted(torch.diag(torch.arange(9.0)), bad_from=1, bad=float("inf")), 4)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("place", ["cpu", "cuda"])
def test_a_gpus_run_keeps_its_basis_where_it_is_told(place):
    matrix = rotated(DECAYING).cuda()
    basis = Basis(200, torch.float64, place)
    run = block_run(matrix, 8, 200, stop=lambda run: False, generator=generator(), basis=basis)
    assert np.sort(run.eigenpairs()[0].values) == pytest.approx(np.sort(DECAYING), abs=1e-12)
