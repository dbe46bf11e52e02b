"""What all tests share: threads of torch, one start of the global generator, the limits of hypothesis."""

import gc

import pytest
import torch
from hypothesis import settings

from hessketch import ledger

# The tensors here are small, and threads that wait for each other are slower.
torch.set_num_threads(1)
# On a busy machine any example may take long: that is no failure.
settings.register_profile("hessketch", deadline=None, max_examples=50)
settings.load_profile("hessketch")


@pytest.fixture(autouse=True)
def _own_ledger():
    """What other tests read is no input of this one's results."""
    ledger.begin()


@pytest.fixture(autouse=True)
def _same_draws():
    """Weights that torch's own layers draw are the same whichever test ran before."""
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def quick_collections():
    """For modules of many failures for want of memory, which collect garbage each: what was there before is none."""
    gc.freeze()
    yield
    gc.unfreeze()
