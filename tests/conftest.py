"""What all tests share: threads of torch and the limits of hypothesis."""

import torch
from hypothesis import settings

# The tensors here are small, and threads that wait for each other are slower.
torch.set_num_threads(1)
# On a busy machine any example may take long: that is no failure.
settings.register_profile("hessketch", deadline=None)
settings.load_profile("hessketch")
