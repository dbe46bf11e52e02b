"""Vectors for sketches, and what is common to the tests of Count-Sketch."""

import pytest
import torch
from known_spectra import generator

from hessketch.linalg.count_sketch import PLACEMENTS

BLOCK = 2**16
sketches = pytest.mark.parametrize("placement", PLACEMENTS)


def random_vector(dimension, seed=0, dtype=torch.float64):
    return torch.randn(dimension, generator=generator(seed), dtype=torch.float64).to(dtype)
