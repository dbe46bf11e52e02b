"""What clients were due to send and have not: the memory of error feedback (Seide et al. 2014; Stich et al. 2018)."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from hessketch.linalg.vectors import dot


class ErrorMemory:
    """Vectors e (p,), one a client or one for all of them: due = e + update, then e = due - sent."""

    def __init__(self, dimension: int, device: torch.device):
        self._zero = torch.zeros(dimension, device=device)
        self._kept: dict[int, Tensor] = {}

    def due(self, holder: int, update: Tensor) -> Tensor:
        """What the holder owes with this update."""
        return update + self._kept.get(holder, self._zero)

    def keep(self, holder: int, due: Tensor, sent: Tensor) -> None:
        """Remembers what of `due` was not sent."""
        self._kept[holder] = due - sent

    def norm(self) -> float:
        """Root of the mean of |e|^2 over holders, 0 for none."""
        squares = [float(dot(kept, kept)) for kept in self._kept.values()]
        return math.sqrt(math.fsum(squares) / max(1, len(squares)))

    def state(self) -> dict[str, Tensor]:
        return {str(holder): kept for holder, kept in self._kept.items()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        self._kept = {int(holder): kept.to(self._zero.device) for holder, kept in state.items()}
