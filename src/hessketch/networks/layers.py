"""What the networks share: scaled widths, normalisation layers, initialisation from an explicit generator."""

import math

import torch
from torch import nn

from hessketch.errors import InputError

NORMS = ("batch", "group", "none")
_MOST_GROUPS = 32


def scaled(units: int, width: float) -> int:
    """Units or channels of a hidden layer at a width multiplier, at least 1."""
    return max(1, round(units * width))


def require_norm(norm: str) -> None:
    """Raises InputError for a normalisation that does not exist."""
    if norm not in NORMS:
        raise InputError(f"norm {norm!r} is unknown; allowed: {', '.join(NORMS)}")


def _groups(channels: int) -> int:
    """The largest divisor up to 32 that leaves at least two channels a group (one alone at 1x1 has no variance)."""
    return max(g for g in range(1, _MOST_GROUPS + 1) if channels % g == 0 and (channels >= 2 * g or g == 1))


def has_batch_norm(model: nn.Module) -> bool:
    """Whether any layer normalises over a batch, and so makes a difference of how examples are put together."""
    return any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules())


def norm_of_images(norm: str, channels: int) -> list[nn.Module]:
    """The normalisation after a convolution; nothing for 'none'."""
    if norm == "batch":
        return [nn.BatchNorm2d(channels)]
    return [nn.GroupNorm(_groups(channels), channels)] if norm == "group" else []


def norm_of_vectors(norm: str, features: int) -> list[nn.Module]:
    """The normalisation after a linear layer; 'group' is one group of all features, which is layer norm."""
    if norm == "batch":
        return [nn.BatchNorm1d(features)]
    return [nn.GroupNorm(1, features)] if norm == "group" else []


def initialise(model: nn.Module, generator: torch.Generator, linear: str = "small") -> None:
    """Sets every parameter and buffer from `generator`, the global one stays as it is.

    Convolutions: normal with variance 2 / (k^2 out channels), He et al. 2015 by fan out, as in the code of Papyan
    2018. Linear layers: 'small' is his N(0, 0.01^2); 'he' N(0, 2 / fan in), for networks without normalisation, whose
    signal the small one would extinguish; 'xavier' N(0, 2 / (fan in + fan out)), for tanh. Biases 0, scales 1.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels
            module.weight.data.normal_(0, math.sqrt(2 / fan_out), generator=generator)
        elif isinstance(module, nn.Linear):
            fan_in, fan_out = module.in_features, module.out_features
            spread = {"small": 0.01, "he": math.sqrt(2 / fan_in), "xavier": math.sqrt(2 / (fan_in + fan_out))}
            module.weight.data.normal_(0, spread[linear], generator=generator)
        elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.GroupNorm):
            module.weight.data.fill_(1)
            if not isinstance(module, nn.GroupNorm):
                module.reset_running_stats()
        if getattr(module, "bias", None) is not None:
            module.bias.data.zero_()
