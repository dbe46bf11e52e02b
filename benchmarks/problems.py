"""Networks and data to measure on."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hessketch.networks.registry import build_network

Batch = tuple[Tensor, Tensor]

_CLASSES = 10
_SHAPE = (3, 32, 32)
_WARM_UP_BATCHES = 10


@dataclass(frozen=True)
class Timed:
    """A network in eval mode with data that do not change: for times, what it has learnt does not matter."""

    network: str
    width: float
    model: nn.Module
    batches: Sequence[Batch]

    @property
    def label(self) -> str:
        return f"{self.network}-batch-w{self.width:g}"

    @property
    def batch(self) -> int:
        return len(self.batches[0][1])

    @property
    def examples(self) -> int:
        return self.batch * len(self.batches)

    @property
    def parameters(self) -> int:
        return sum(p.numel() for p in self.model.parameters())


def timed(network: str, width: float, examples: int, batch: int, device: torch.device, seed: int = 0) -> Timed:
    """A network of the registry with batch norm that has seen data, and random images of CIFAR10's shape.

    `examples` is a multiple of `batch`: some libraries average over batches with equal weights.
    """
    generator = torch.Generator().manual_seed(seed)
    model = build_network(network, input_shape=_SHAPE, classes=_CLASSES, width=width, seed=seed).to(device)
    with torch.no_grad():
        model.train()
        for _ in range(_WARM_UP_BATCHES):
            model(torch.randn(16, *_SHAPE, generator=generator).to(device))
    batches = [
        (
            torch.randn(batch, *_SHAPE, generator=generator).to(device),
            torch.randint(_CLASSES, (batch,), generator=generator).to(device),
        )
        for _ in range(examples // batch)
    ]
    return Timed(network, width, model.eval(), batches)


def unit_vector(size: int, device: torch.device, seed: int = 0) -> Tensor:
    """A random direction (p,), the kind of vector that a Lanczos run starts from."""
    vector = torch.randn(size, generator=torch.Generator().manual_seed(seed)).to(device)
    return vector / vector.norm()
