"""The arithmetic of curvature products: full float32 unless asked otherwise, repeatable on request."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel


@contextlib.contextmanager
def arithmetic(tf32: bool = False, deterministic: bool = False) -> Iterator[None]:
    """Within it, float32 products on a GPU are exact float32, or TF32 (10-bit mantissa) where `tf32` allows it.

    PyTorch takes TF32 for convolutions unless told otherwise, which leaves three digits. `deterministic` adds
    repeatable kernels where they exist (a few, such as max pooling backward on CUDA, have none and warn). Attention is
    computed by plain matrix products, since its fused kernels have no second derivative, and inference mode, which
    would make every derivative zero, is off. What the process had set before holds again afterwards.
    """
    cuda: Any = torch.backends.cuda  # torch puts objects with settings in place of these modules as it is imported
    cudnn: Any = torch.backends.cudnn
    backends = (cuda.matmul, cudnn.conv, cudnn.rnn)
    before = [backend.fp32_precision for backend in backends]
    was = torch.get_deterministic_debug_mode()
    try:
        for backend in backends:
            backend.fp32_precision = "tf32" if tf32 else "ieee"
        if deterministic and not was:
            torch.set_deterministic_debug_mode("warn")
        with torch.inference_mode(False), sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        for backend, precision in zip(backends, before, strict=True):
            backend.fp32_precision = precision
        torch.set_deterministic_debug_mode(was)


def describe_arithmetic(tf32: bool, deterministic: bool) -> dict[str, bool | str]:
    """How products are computed, for a record."""
    return {
        "float32_products": "tf32 allowed" if tf32 else "ieee float32",
        "deterministic": deterministic or torch.are_deterministic_algorithms_enabled(),
    }
