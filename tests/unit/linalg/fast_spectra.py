"""A spectrum with ten leading eigenvalues, the fast method on it, and what is compared of the results."""

import dataclasses

import numpy as np
import pytest
import torch
from known_spectra import generator
from scipy.special import ndtr

from hessketch.linalg.fast_spectrum import FastSettings, fast_spectrum

BULK = np.random.default_rng(0).standard_normal(190)
SPIKES = np.geomspace(10, 100, 10) * np.r_[np.ones(7), -1, 1, -1]
VALUES = np.r_[BULK, SPIKES]
LEADING = SPIKES[::-1]
DEFLATED = np.r_[BULK, np.zeros(10)]
SHORT = FastSettings(lanczos_steps=24)
SEEDS = 60
PRECISIONS = pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
MEMORIES = pytest.mark.parametrize("memory", [None, 0])


def diagonal(values, dtype=torch.float64) -> torch.Tensor:
    """A random start vector sees the same in it as in a rotated one."""
    return torch.diag(torch.as_tensor(np.asarray(values, float)).to(dtype))


def spectrum(values, seed=0, memory=None, settings=SHORT, **changes):
    return fast_spectrum(diagonal(values), dataclasses.replace(settings, **changes), generator(seed), memory=memory)


def exact_sums(values) -> np.ndarray:
    return np.array([values.sum(), (values**2).sum(), np.abs(values).sum()])


def sums_of(found) -> tuple[np.ndarray, np.ndarray]:
    """Trace, squares and magnitudes, and their standard errors."""
    three = (found.sums.trace, found.sums.frobenius_squared, found.sums.absolute)
    return np.array([s.value for s in three]), np.array([s.standard_error for s in three])


def distribution(measures, points, width) -> tuple[np.ndarray, np.ndarray]:
    """Share of the spectrum below each point, steps smoothed to the width, and its standard error."""
    shares = np.array([[m.weights @ ndtr((x - m.values) / width) for x in points] for m in measures])
    return shares.mean(axis=0), shares.std(axis=0, ddof=1) / np.sqrt(len(shares))
