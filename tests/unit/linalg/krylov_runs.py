"""Spectra for Lanczos runs, and a run on one from a random vector."""

import numpy as np
import pytest
import torch
from known_spectra import generator

from hessketch.linalg.basis import Basis
from hessketch.linalg.krylov import krylov_run
from hessketch.linalg.krylov_space import KrylovRun
from hessketch.linalg.vectors import random_unit_vector

SPECTRA = {
    "spread": np.linspace(-3, 7, 60),
    "spikes": np.r_[np.linspace(-1, 1, 70), np.geomspace(10, 100, 10)],
    "geometric": np.geomspace(1e-6, 1e3, 60),
    "multiple": np.repeat([1.0, 2, 5, -5], 15),
    "rank deficient": np.r_[np.zeros(40), np.arange(1.0, 21)],
}
LARGE = {
    "spikes": np.r_[np.linspace(-1, 1, 190), np.geomspace(10, 100, 10)],
    "wide": np.r_[np.linspace(-1, 1, 190), np.geomspace(2, 1000, 10)],
    "indefinite": np.r_[np.linspace(-1, 1, 192), 50, -50, 20, -20, 10, -10, 5, -5],
    "geometric": np.geomspace(1e-6, 1e3, 200),
}
PRECISIONS = pytest.mark.parametrize("dtype", [torch.float64, torch.float32])


def run(operator, steps, seed=0, *, basis="same", stop=lambda run: False, start=None, **options) -> KrylovRun:
    """A run from a random vector; basis: None, 'same' precision as the operator's, or a dtype."""
    g = generator(seed)
    start = random_unit_vector(operator, g) if start is None else start
    kept = None
    if basis is not None:
        kept = Basis(operator.shape[0], operator.dtype if basis == "same" else basis, "cpu")
    return krylov_run(operator, start, steps, stop=stop, generator=g, basis=kept, **options)


def vectors(found: KrylovRun) -> torch.Tensor:
    """The Lanczos vectors as columns, float64."""
    return torch.cat(list(found.basis.rows())).double().T


def true_residuals(matrix, found: KrylovRun) -> np.ndarray:
    pairs, y = found.eigenpairs()
    ritz_vectors = vectors(found) @ torch.from_numpy(y)
    return (matrix.double() @ ritz_vectors - ritz_vectors * torch.from_numpy(pairs.values)).norm(dim=0).numpy()
