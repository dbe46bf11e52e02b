"""Lanczos runs that keep no basis: copies of eigenvalues are told from eigenvalues."""

import numpy as np
import pytest
import torch
from known_spectra import rotated
from krylov_runs import LARGE, PRECISIONS, run


def test_without_a_basis_a_breakdown_ends_the_run_with_the_distinct_eigenvalues():
    found = run(rotated([2.0] * 5 + [-1.0] * 4), 9, basis=None)
    assert found.exhausted and found.steps == 2
    assert found.ritz().values == pytest.approx([-1, 2])


@PRECISIONS
@pytest.mark.parametrize("name", LARGE)
@pytest.mark.parametrize("steps", [64, 128, 256])
def test_without_a_basis_no_eigenvalue_is_reported_twice(name, dtype, steps):
    matrix = torch.diag(torch.from_numpy(LARGE[name]).to(dtype))
    exact = matrix.diagonal().double().numpy()
    for seed in range(3):
        found = run(matrix, steps, seed, basis=None)
        pairs = found.ritz()
        known = pairs.residuals <= 1e-3 * np.abs(pairs.values)
        distance = np.abs(pairs.values[known, None] - exact)
        assert (distance.min(axis=1) <= pairs.residuals[known]).all()
        large = np.abs(pairs.values[known]) > 1.5
        reported, counts = np.unique(distance[large].argmin(axis=1), return_counts=True)
        assert len(reported) >= 3
        assert counts.max() == 1, f"seed {seed}: {exact[reported[counts > 1]]} reported {counts.max()} times"


@PRECISIONS
def test_without_a_basis_the_measure_keeps_all_weight_and_integrates_as_with_one(dtype):
    matrix = torch.diag(torch.from_numpy(np.r_[np.linspace(0, 0.02, 190), np.geomspace(10, 100, 10)]).to(dtype))
    bare, kept = (run(matrix, 100, basis=basis) for basis in (None, "same"))
    assert kept.measure().values.tolist() == kept.ritz().values.tolist()
    for function in (lambda x: x, np.square, lambda x: x < 1, lambda x: np.where(x < 1, x, 0)):
        with_ghosts, without = (m.weights @ function(m.values) for m in (bare.measure(), kept.measure()))
        assert with_ghosts == pytest.approx(without, rel=1e-6 if dtype == torch.float64 else 1e-4)
    assert bare.measure().weights.sum() == pytest.approx(1, abs=1e-12)
    assert len(bare.ritz().values) < len(bare.measure().values)


def test_without_a_basis_close_eigenvalues_are_told_apart_once_their_bounds_do():
    values = np.r_[np.linspace(-1, 1, 100), 100.0, 99.99]  # nearer than copies may be
    pairs = run(torch.diag(torch.from_numpy(values)), 80, basis=None).ritz()
    assert pairs.values[pairs.values > 50] == pytest.approx([99.99, 100])
