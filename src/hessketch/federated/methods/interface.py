"""What a method of sketched federation is to the rest: how updates are sent, and what is made of the sum."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from hessketch.federated.messages import Part, parts_of


class Method(Protocol):
    """Turns clients' updates (p,) into one change of the weights.

    A client's update is the weights it got less the weights it has after its local steps. `encode` makes of it what the
    sum is taken over; the simulation weighs and adds these, and the server applies `change` of the sum.
    """

    linear: bool
    """Whether encode is linear and the same for all clients of a round: the mean can then be encoded once."""
    error_feedback: bool
    """Whether clients remember what they were due to send and have not."""
    server_memory: bool
    """Whether what is applied depends on earlier rounds at the server: a payload then stands for nothing by itself."""
    upload_numbers: int
    """Numbers of the update that a client sends, without indices."""

    def encode(self, update: Tensor, step: int) -> Tensor:
        """What one client adds to the sum in a round (from 0)."""
        ...

    def decode(self, payload: Tensor, step: int) -> Tensor:
        """The vector (p,) that a payload stands for; error feedback keeps what is missing in it."""
        ...

    def change(self, total: Tensor, step: int, rate: float) -> Tensor:
        """What everyone subtracts from the weights (p,) for the weighted mean of the payloads. Called once a round."""
        ...

    def upload(self, payload: Tensor) -> Sequence[Tensor]:
        """The arrays that one client sends for its payload."""
        ...

    @property
    def upload_parts(self) -> tuple[Part, ...]:
        """Kinds and sizes of what `upload` gives."""
        ...

    def download(self, total: Tensor, change: Tensor) -> Sequence[Tensor]:
        """The arrays that the server sends to every client, from which each computes the same change."""
        ...

    def download_parts(self, total: Tensor, change: Tensor) -> tuple[Part, ...]:
        """Kinds and sizes of what `download` gives."""
        ...

    def expected_error(self, due: Tensor) -> float:
        """What theory says of |decode(encode(due)) - due|^2 / |due|^2: its mean, or a bound; NaN where nothing."""
        ...

    def state(self) -> dict[str, Tensor]:
        """What the server remembers from round to round."""
        ...

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Restores what `state` gave."""
        ...


class Stateless(ABC):
    """What methods share whose server remembers nothing and applies at the given rate what was decoded.

    A child sets `upload_numbers` and says how to `encode`, and `decode` where a payload is not yet the vector. Unless
    it says otherwise payload and sum are sent as float32, clients remember nothing, `encode` is not taken to be linear,
    and theory says nothing of its error.
    """

    linear = False
    error_feedback = False
    server_memory = False
    upload_numbers: int

    @abstractmethod
    def encode(self, update: Tensor, step: int) -> Tensor:
        """What one client adds to the sum in a round (from 0)."""

    def decode(self, payload: Tensor, step: int) -> Tensor:
        return payload

    def upload(self, payload: Tensor) -> Sequence[Tensor]:
        return [payload.float()]

    @cached_property
    def upload_parts(self) -> tuple[Part, ...]:
        return (Part("float32", self.upload_numbers),)

    def download(self, total: Tensor, change: Tensor) -> Sequence[Tensor]:
        return [total.float()]

    def download_parts(self, total: Tensor, change: Tensor) -> tuple[Part, ...]:
        return parts_of(self.download(total, change))

    def expected_error(self, due: Tensor) -> float:
        return math.nan

    def change(self, total: Tensor, step: int, rate: float) -> Tensor:
        return rate * self.decode(total, step)

    def state(self) -> dict[str, Tensor]:
        return {}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        if state:
            raise ValueError(f"{type(self).__name__} has no state, {list(state)} given")


def sparse_message(vector: Tensor, count: int | None = None) -> tuple[Tensor, Tensor]:
    """Values (float32) and indices (int32) of the nonzero entries, filled with zeros up to `count`."""
    chosen = vector.nonzero().squeeze(1)
    if count is not None and len(chosen) < count:
        zeros = (vector == 0).nonzero().squeeze(1)
        chosen = torch.cat([chosen, zeros[: count - len(chosen)]])
    return vector[chosen].float(), chosen.int()
