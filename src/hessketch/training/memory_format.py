"""The memory format that a network trains in."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

_KNOWN = ("torch.nn.", "hessketch.networks.")


def of_known_modules(model: nn.Module) -> bool:
    """Whether all modules are torch's or the package's own.

    Others' code may view an activation in a shape that only one order of strides allows.
    """
    return all(type(module).__module__.startswith(_KNOWN) for module in model.modules())


def channels_last_pays(model: nn.Module, precision: str = "float32") -> bool:
    """Whether channels-last is faster: for the package's convolutional networks, but with group norm.

    On a GPU with bfloat16 alone, whose units take that format; float32 convolutions without TF32 use none of them. CPU
    time of a step at batch 128 in that of the usual format (one core of an EPYC with AVX-512): with batch norm
    ResNet18 0.84, 0.75 and 0.94 at widths 1/16, 1/4 and 1, VGG11 0.91, 0.77 and 0.85; without normalisation ResNet18
    0.62 and VGG11 0.65 at 1/16, 3c3d 0.72; with group norm 1.00 to 1.14, as it has no kernel for that format.
    """
    modules = list(model.modules())
    on_gpu = any(parameter.is_cuda for parameter in model.parameters())
    return (
        (precision == "bfloat16" or not on_gpu)
        and any(isinstance(module, nn.Conv2d) for module in modules)
        and not any(isinstance(module, nn.GroupNorm) for module in modules)
        and of_known_modules(model)
    )


@contextmanager
def laid_out(model: nn.Module, precision: str = "float32") -> Iterator[str]:
    """Keeps the weights in the faster format meanwhile, and says which: "channels_last" or "contiguous".

    Images need not be moved: convolutions take the format of their weights (measured: as fast).
    """
    if not channels_last_pays(model, precision):
        yield "contiguous"
        return
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch leaves out this overload
    try:
        yield "channels_last"
    finally:
        model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
