"""Lanczos runs that were interrupted go on to the same numbers."""

import numpy as np
import pytest
import torch
from interruptions import Interrupted, MemoryStore
from known_spectra import Counted, rotated
from krylov_runs import PRECISIONS, SPECTRA, run, vectors


@PRECISIONS
@pytest.mark.parametrize("basis", ["same", torch.float64, None])
@pytest.mark.parametrize("name", ["spikes", "multiple"])
@pytest.mark.parametrize(("after", "every"), [(1, 1), (4, 1), (5, 1), (21, 1), (21, 3), (33, 3)])
def test_a_run_that_was_interrupted_goes_on_bit_for_bit(name, basis, dtype, after, every):
    matrix = rotated(SPECTRA[name], dtype=dtype)
    undisturbed, store = run(matrix, 40, basis=basis), MemoryStore(every)
    after = min(after, undisturbed.steps - 1)  # without a basis a run may end early
    with pytest.raises(KeyboardInterrupt):
        run(Interrupted(matrix, after), 40, basis=basis, store=store)
    operator = Counted(matrix)
    resumed = run(operator, 40, basis=basis, store=store)
    assert operator.products == undisturbed.steps - after // every * every
    assert (resumed.alphas, resumed.betas, resumed.leaks) == (undisturbed.alphas, undisturbed.betas, undisturbed.leaks)
    for got, expected in [(resumed.ritz(), undisturbed.ritz()), (resumed.measure(), undisturbed.measure())]:
        assert np.array_equal(got.values, expected.values)
        assert np.array_equal(got.weights, expected.weights)
        assert np.array_equal(got.residuals, expected.residuals)
    assert (resumed.asymmetry, resumed.rounding) == (undisturbed.asymmetry, undisturbed.rounding)
    if basis is not None:
        assert torch.equal(vectors(resumed), vectors(undisturbed))


@pytest.mark.parametrize("every", [1, 3, 50])
def test_a_store_receives_every_vector_once_and_in_order(every):
    store = MemoryStore(every)
    found = run(rotated(SPECTRA["multiple"]), 40, store=store)
    assert store.saves == 40 // every
    saved = torch.cat(store.blocks).T if store.blocks else torch.empty(60, 0)
    assert torch.equal(saved, vectors(found)[:, : 40 // every * every])


def test_a_resumed_run_with_locked_vectors_is_the_same():
    matrix = rotated(SPECTRA["spikes"])
    locked = torch.linalg.eigh(matrix).eigenvectors[:, -5:]
    undisturbed, store = run(matrix, 30, locked=locked, norm_known=100.0), MemoryStore(4)
    with pytest.raises(KeyboardInterrupt):
        run(Interrupted(matrix, 11), 30, locked=locked, norm_known=100.0, store=store)
    resumed = run(matrix, 30, locked=locked, norm_known=100.0, store=store)
    assert resumed.state()["scalars"].equal(undisturbed.state()["scalars"])
    assert np.array_equal(resumed.ritz().residuals, undisturbed.ritz().residuals)


def test_a_finished_run_that_is_resumed_takes_no_product():
    matrix, store = rotated(SPECTRA["spikes"]), MemoryStore()
    finished = run(matrix, 10, store=store)
    operator = Counted(matrix)
    assert run(operator, 10, store=store).alphas == finished.alphas
    assert operator.products == 0
