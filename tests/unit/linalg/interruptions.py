"""Runs that are killed, and stores that they leave their state in."""

import torch
from known_spectra import Counted


class MemoryStore:
    """A store that keeps copies, saves at every `every`-th chance and gives back memory that is aligned oddly."""

    def __init__(self, every: int = 1):
        self.every, self.chances, self.saves = every, 0, 0
        self.blocks: list[torch.Tensor] = []
        self.state = None

    def load(self):
        if self.state is None:
            return None
        return [_misaligned(block) for block in self.blocks], {k: _misaligned(v) for k, v in self.state.items()}

    def due(self) -> bool:
        self.chances += 1
        return self.chances % self.every == 0

    def save(self, vectors, state) -> None:
        self.saves += 1
        self.blocks += [v.clone() for v in vectors]
        self.state = {name: value.clone() for name, value in state.items()}


def _misaligned(tensor: torch.Tensor) -> torch.Tensor:
    memory = torch.empty(tensor.numel() + 1, dtype=tensor.dtype)[1:].view(tensor.shape)
    return memory.copy_(tensor)


class Interrupted(Counted):
    """Stopped by the user at the product after number `after`."""

    def __init__(self, matrix, after: int):
        super().__init__(matrix)
        self.after = after

    def __matmul__(self, other):
        if self.calls == self.after:
            raise KeyboardInterrupt
        return super().__matmul__(other)
