"""A small network, examples of it, and what the log of a job would say."""

import pytest
import torch
from torch import nn

from hessketch.data.examples import Examples
from hessketch.progress import notes_said


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3)).double().eval()


@pytest.fixture(scope="module")
def examples():
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(23, 5, generator=generator, dtype=torch.float64)
    return Examples(inputs, torch.randint(0, 3, (23,), generator=generator), 3)


@pytest.fixture
def said():
    """What the log of a job would say."""
    texts = []
    with notes_said(texts.append):
        yield texts
