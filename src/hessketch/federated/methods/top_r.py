"""Local top-r (Stich et al. 2018; Lin et al. 2018): each client sends its own largest entries."""

from torch import Tensor

from hessketch.errors import InputError
from hessketch.federated.messages import Part, size_in_bytes
from hessketch.federated.methods.interface import Stateless, sparse_message
from hessketch.linalg.largest import keep_largest


class LocalTopR(Stateless):
    """Clients send the `count` entries of their update that are largest in magnitude, with their indices.

    With error feedback a client keeps the rest and adds it to its next update; without, the rest is lost. The error is
    at most (1 - r / p) of what was due, which is why the memory stays bounded. The server sends the mean as values and
    indices of what is not zero, or whole where that is shorter.

    Raises InputError for a count above the dimension or below 1.
    """

    def __init__(self, dimension: int, count: int, *, error_feedback: bool = False):
        if not 1 <= count <= dimension:
            raise InputError(f"top-r with r = {count} of p = {dimension}; allowed: r from 1 to {dimension}")
        self.dimension, self.count, self.error_feedback = dimension, count, error_feedback
        self.upload_numbers = count
        self.upload_parts = (Part("float32", count), Part("int32", count))

    def encode(self, update: Tensor, step: int) -> Tensor:
        return keep_largest(update, self.count)

    def upload(self, payload: Tensor) -> list[Tensor]:
        return list(sparse_message(payload, self.count))

    def download(self, total: Tensor, change: Tensor) -> list[Tensor]:
        whole = len(self.download_parts(total, change)) == 1
        return [total.float()] if whole else list(sparse_message(total))

    def download_parts(self, total: Tensor, change: Tensor) -> tuple[Part, ...]:
        nonzero = int(total.count_nonzero())
        sparse, whole = (Part("float32", nonzero), Part("int32", nonzero)), (Part("float32", self.dimension),)
        return min(whole, sparse, key=size_in_bytes)

    def expected_error(self, due: Tensor) -> float:
        """The bound 1 - r / p."""
        return 1 - self.count / self.dimension
