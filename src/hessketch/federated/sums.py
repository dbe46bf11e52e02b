"""What a round adds up over its participants, and over the processes that simulate them."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, distributed

from hessketch.federated.clients import LocalUpdates


@dataclass
class RoundSums:
    """Weighted sums over a process's participants of one round."""

    update: Tensor  # (p,)
    buffers: dict[str, Tensor]
    loss: Tensor  # over examples, not yet divided by their number, as are the hits
    hits: Tensor
    examples: int = 0
    due: float = 0.0  # sum of |due|^2
    missing: float = 0.0  # sum of |due - sent|^2
    expected: float = 0.0  # what theory says of it
    _payload: Tensor | None = None  # its shape is the method's

    @classmethod
    def empty(cls, zero: Tensor, buffers: Mapping[str, Tensor]) -> "RoundSums":
        """Of nobody, for weights like `zero` and such buffers. The update is added to `zero` in place."""
        means = {name: torch.zeros_like(buffer, dtype=zero.dtype) for name, buffer in buffers.items()}
        none = zero.new_zeros((), dtype=torch.float64)
        return cls(zero, means, none, none.clone())

    def add_payload(self, payload: Tensor) -> None:
        """Adds a payload that already has its weight."""
        self._payload = payload if self._payload is None else self._payload + payload

    def payload(self) -> Tensor:
        """The sum of the payloads, of which there has to be one."""
        if self._payload is None:
            raise ValueError("no payload was added in this round")
        return self._payload

    def add_work(self, chunk: LocalUpdates, weights: Tensor) -> None:
        """Adds a chunk's updates and buffers by weight, losses and hits by the examples that they were taken over."""
        self.update += weights @ chunk.updates
        for name, buffer in chunk.buffers.items():
            self.buffers[name] += torch.tensordot(weights, buffer.to(weights.dtype), dims=1)
        counts = torch.tensor(chunk.counts, device=weights.device, dtype=torch.float64)
        self.loss += counts @ chunk.losses.double()
        self.hits += chunk.hits.sum()
        self.examples += sum(chunk.counts)

    def add_over_processes(self, group: distributed.ProcessGroup) -> None:
        """All sums but the update's become those of all processes, by one all-reduce."""
        numbers = [self.examples, self.due, self.missing, self.expected]
        packed = [self.payload(), *self.buffers.values(), self.loss, self.hits, self.loss.new_tensor(numbers)]
        flat = torch.cat([part.to(self.update.dtype).reshape(-1) for part in packed])
        distributed.all_reduce(flat, group=group)
        sizes = [part.numel() for part in packed]
        pieces = [piece.view_as(part) for piece, part in zip(torch.split(flat, sizes), packed, strict=True)]
        self._payload, self.loss, self.hits = pieces[0], *pieces[-3:-1]
        self.buffers = dict(zip(self.buffers, pieces[1:-3], strict=True))
        self.examples, self.due, self.missing, self.expected = pieces[-1].tolist()

    def mean_buffers(self, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The buffers' means in the types of `like`; counters of batches, the same for all clients, are whole."""
        return {name: _like(like[name], mean) for name, mean in self.buffers.items()}


def _like(buffer: Tensor, mean: Tensor) -> Tensor:
    return (mean if buffer.is_floating_point() else mean.round()).to(buffer.dtype)
