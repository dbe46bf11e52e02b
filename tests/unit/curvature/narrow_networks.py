"""A small network, examples, and a device with little memory for them."""

import torch
from torch import nn

from hessketch.curvature.losses import LOSSES

LOSS = LOSSES["cross_entropy"]
FAILURES = {
    "CUDA": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    "host": RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory: 8 bytes."),
    "cuBLAS": RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    "oneDNN": RuntimeError("could not create a primitive"),
    "Python": MemoryError(),
}


class Narrow(nn.Module):
    """A network on a device without room for more than so many examples at once."""

    def __init__(self, inner, room, failure=FAILURES["CUDA"]):
        super().__init__()
        self.inner, self.room, self.failure, self.refused = inner, room, failure, 0

    def forward(self, inputs):
        if len(inputs) > self.room:
            self.refused += 1
            raise self.failure
        return self.inner(inputs)


def narrow(model, room, failure=FAILURES["CUDA"]):
    return Narrow(model, room, failure).eval()


def assert_same(found, expected):
    """Up to the rounding of float64."""
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-13)


def vectors_of_size(model):
    p = sum(q.numel() for q in model.parameters())
    return torch.randn(p, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
