"""One thread a test process: the tensors here are small, and threads that wait for each other are slower."""

import torch

torch.set_num_threads(1)
