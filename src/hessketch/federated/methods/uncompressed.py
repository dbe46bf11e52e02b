"""Federated averaging (McMahan et al. 2017): clients send whole updates."""

from torch import Tensor

from hessketch.federated.messages import Part
from hessketch.federated.methods.interface import Stateless


class Uncompressed(Stateless):
    """Every number of the update is sent, and every number of the mean comes back."""

    linear = True
    error_feedback = False

    def __init__(self, dimension: int):
        self.dimension = self.upload_numbers = dimension
        self.upload_parts = (Part("float32", dimension),)

    def encode(self, update: Tensor, step: int) -> Tensor:
        return update

    def decode(self, payload: Tensor, step: int) -> Tensor:
        return payload

    def upload(self, payload: Tensor) -> list[Tensor]:
        return [payload.float()]

    def download(self, total: Tensor, change: Tensor) -> list[Tensor]:
        return [total.float()]

    def download_parts(self, total: Tensor, change: Tensor) -> tuple[Part, ...]:
        return self.upload_parts

    def expected_error(self, due: Tensor) -> float:
        return 0.0
