"""What the networks share: scaled widths, normalisation layers, initialisation from an explicit generator."""

import math

import torch
from torch import Tensor, nn

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


INITIALISATIONS = ("small", "he", "xavier", "torch")


def initialise(model: nn.Module, generator: torch.Generator, scheme: str = "small") -> None:
    """Sets every parameter and buffer from `generator`, the global one stays as it is.

    'small' and 'he': convolutions normal with variance 2 / (k^2 out channels), He et al. 2015 by fan out, as in the
    code of Papyan 2018; linear layers by 'small' his N(0, 0.01^2), by 'he' N(0, 2 / fan in), for networks without
    normalisation, whose signal the small one would extinguish. 'xavier' (Glorot and Bengio 2010): both N(0, 2 / (fan in
    + fan out)). 'torch': weights and biases of both uniform within 1 / sqrt(fan in), torch's default. Otherwise biases
    are 0; scales are 1. Raises InputError for another scheme.
    """
    if scheme not in INITIALISATIONS:
        raise InputError(f"initialisation {scheme!r} is unknown; allowed: {', '.join(INITIALISATIONS)}")
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            _initialise_map(module, generator, scheme)
            continue
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.GroupNorm):
            module.weight.data.fill_(1)
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                module.reset_running_stats()
        bias = getattr(module, "bias", None)
        if isinstance(bias, Tensor):
            bias.data.zero_()


def _initialise_map(module: nn.Conv2d | nn.Linear, generator: torch.Generator, scheme: str) -> None:
    window = module.weight[0, 0].numel()
    fan_in, fan_out = module.weight.shape[1] * window, module.weight.shape[0] * window
    if scheme == "torch":
        for tensor in (module.weight, module.bias):
            if tensor is not None:
                tensor.data.uniform_(-1 / math.sqrt(fan_in), 1 / math.sqrt(fan_in), generator=generator)
        return
    spread = {"small": 0.01, "he": math.sqrt(2 / fan_in), "xavier": math.sqrt(2 / (fan_in + fan_out))}[scheme]
    if isinstance(module, nn.Conv2d) and scheme != "xavier":
        spread = math.sqrt(2 / fan_out)
    module.weight.data.normal_(0, spread, generator=generator)
    if module.bias is not None:
        module.bias.data.zero_()
