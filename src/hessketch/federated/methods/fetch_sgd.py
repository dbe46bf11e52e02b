"""FetchSGD (Rothchild et al. 2020): clients send sketches, the server recovers the heaviest entries of their sum."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from hessketch.errors import InputError
from hessketch.federated.messages import Part
from hessketch.federated.methods.interface import sparse_message
from hessketch.linalg.count_sketch import CountSketch
from hessketch.linalg.largest import keep_largest


class FetchSGD:
    """The server adds the mean table to its momentum and error tables, and applies the `top` heaviest entries of those.

    With error feedback, round by round: V <- momentum V + mean; E <- E + rate V; change = top entries of the median
    lift of E; what was applied leaves E (and V, by `masking`). The paper and its public code (CommEfficient) differ:

    - `error`: `subtract` takes S(change) out of E, as published. `zero` (the default) sets to zero every cell of E that
      the change touches, as the code does, whose authors note that subtracting diverges: an estimate's noise is
      subtracted with it and piles up. Zeroing also loses what else was in those cells.
    - `rate`: `before` (the default) multiplies what enters E by the server rate, as published; `after` multiplies the
      change by it, as in the code. The two differ only while the rate changes.
    - Without error feedback the code never moves (its error table stays zero, so does the update). Here:
      change = rate times the top entries of the lift of V.
    - Both send one gradient a round. Here clients send the difference after their local steps, so that all methods do
      the same local work; with one step it is the gradient times the local rate.
    - Momentum is 0 by default as in the code (0.9 in its experiments, on the clients or at the server); `masking` sets
      the cells of V that the change touches to zero, as the code does.

    The tables add up over rounds, so the hashes are the same in all of them.
    """

    linear = True

    def __init__(
        self,
        dimension: int,
        rows: int,
        columns: int,
        top: int,
        seed: int,
        *,
        error_feedback: bool = True,
        momentum: float = 0.0,
        masking: bool = True,
        error: str = "zero",
        rate: str = "before",
        placement: str = "hash",
        device: torch.device | str = "cpu",
    ):
        if rows % 2 == 0:
            raise InputError(f"{rows} rows given; FetchSGD lifts by the median; allowed: an odd number of rows")
        if not 1 <= top <= dimension:
            raise InputError(f"the {top} heaviest of {dimension} entries asked for; allowed: 1 to {dimension}")
        self.sketch = CountSketch(dimension, rows, columns, seed, placement=placement, device=device)
        self.top, self.momentum, self.masking = top, momentum, masking
        self.zeroes, self.rate_first = error == "zero", rate == "before"
        # The memory is the server's: clients send their updates as they are.
        self.error_feedback, self._remembers = False, error_feedback
        self.server_memory = error_feedback or momentum > 0
        self.upload_numbers = rows * columns
        self.upload_parts = (Part("float32", rows * columns),)
        self._momentum = torch.zeros(rows, columns, device=device)
        self._error = torch.zeros(rows, columns, device=device)

    def encode(self, update: Tensor, step: int) -> Tensor:
        return self.sketch.apply(update)

    def decode(self, payload: Tensor, step: int) -> Tensor:
        """The heaviest entries of one table by itself, as without any memory."""
        return keep_largest(self.sketch.lift(payload, "median"), self.top)

    def change(self, total: Tensor, step: int, rate: float) -> Tensor:
        self._momentum = self.momentum * self._momentum + total
        if not self._remembers:
            change = self.decode(self._momentum, step)
            self._mask(self.sketch.apply(change))
            return rate * change
        self._error = self._error + (rate * self._momentum if self.rate_first else self._momentum)
        change = self.decode(self._error, step)
        applied = self.sketch.apply(change)
        self._error = self._error.masked_fill(applied != 0, 0) if self.zeroes else self._error - applied
        self._mask(applied)
        return change if self.rate_first else rate * change

    def _mask(self, applied: Tensor) -> None:
        if self.masking:
            self._momentum = self._momentum.masked_fill(applied != 0, 0)

    def upload(self, payload: Tensor) -> list[Tensor]:
        return [payload.float()]

    def download(self, total: Tensor, change: Tensor) -> list[Tensor]:
        return list(sparse_message(change, self.top))

    def download_parts(self, total: Tensor, change: Tensor) -> tuple[Part, ...]:
        return Part("float32", self.top), Part("int32", self.top)

    def expected_error(self, due: Tensor) -> float:
        return math.nan

    @property
    def error_norm(self) -> float:
        """Norm of the vector whose sketch the error table is, estimated by the median row's norm."""
        return float(self._error.norm(dim=1).median())

    def state(self) -> dict[str, Tensor]:
        return {"momentum": self._momentum, "error": self._error}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        self._momentum = state["momentum"].to(self._momentum.device)
        self._error = state["error"].to(self._error.device)
