"""Bytes that clients send and get in a round, counted from the messages that would be sent."""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from hessketch.federated.messages import parts_of, size_in_bytes
from hessketch.federated.methods.interface import Method


def buffers_message(buffers: Mapping[str, Tensor]) -> list[Tensor]:
    """What of the buffers is sent: running statistics as one array, none without; counters of batches all know."""
    statistics = [buffer.reshape(-1) for buffer in buffers.values() if buffer.is_floating_point()]
    return [torch.cat(statistics)] if statistics else []


class Traffic:
    """Messages between the clients and the server, by their length; `behind` is what absent clients have missed."""

    def __init__(self, clients: int):
        self.behind = [0.0] * clients  # bytes broadcast since a client last took part

    def of_round(
        self,
        method: Method,
        total: Tensor,
        change: Tensor,
        theta: Tensor,
        buffers: Mapping[str, Tensor],
        participants: Sequence[int],
    ) -> tuple[float, float]:
        """Bytes that a participant of a round sends and gets, the mean over participants. Called once a round.

        Who missed rounds first gets what was broadcast in them, or the whole weights if those are shorter.
        """
        extra = parts_of(buffers_message(buffers))
        up = size_in_bytes((*method.upload_parts, *extra))
        broadcast = size_in_bytes((*method.download_parts(total, change), *extra))
        whole = size_in_bytes((*parts_of([theta]), *extra))
        down = [broadcast + min(self.behind[client], whole) for client in participants]
        present = set(participants)
        self.behind = [0.0 if c in present else behind + broadcast for c, behind in enumerate(self.behind)]
        return float(up), math.fsum(down) / len(down)
