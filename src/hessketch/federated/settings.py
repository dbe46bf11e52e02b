"""How a federation trains: its clients, their work in a round, and what they send."""

import math
from dataclasses import dataclass, fields
from typing import Any

from hessketch.described import described, require_allowed
from hessketch.errors import InputError
from hessketch.federated.partition import KINDS
from hessketch.linalg.count_sketch import PLACEMENTS
from hessketch.schedules import decayed
from hessketch.trainers import FEDERATED

_READ_BY = {
    **dict.fromkeys(("rows", "hashes"), ("method", ("count_sketch",))),
    "placement": ("method", ("count_sketch", "fetch_sgd")),
    **dict.fromkeys(
        ("fetch_rows", "fetch_top", "fetch_momentum", "fetch_masking", "fetch_error", "fetch_rate"),
        ("method", ("fetch_sgd",)),
    ),
    "alpha": ("partition", ("dirichlet",)),
    "shards_per_client": ("partition", ("shards",)),
}
"""What else must be chosen, and how, for a setting to be read."""
_ALL = {"method": FEDERATED, "partition": KINDS}


def _whole(value: Any, least: int) -> tuple[bool, str]:
    """Whether a value is a whole number of at least `least`, and the words for that."""
    return isinstance(value, int) and value >= least, f"a whole number of at least {least}"


@dataclass(frozen=True)
class FederatedSettings:
    """Settings of one federated training; clients, local steps and full batches are those of Shrivastava et al. 2024.

    Not known of the paper, and so choices: rounds, rates, rows, the split of the data.
    """

    learning_rate: float = described(0.1, "rate of the clients' steps")
    clients: int = described(100, "clients, each with a part of the training examples")
    participation: float = described(1.0, "share of the clients that take part in a round, in (0, 1]")
    rounds: int = described(200, "rounds of local work and communication")
    local_steps: int = described(5, "gradient steps K of a client in a round")
    local_batch_size: int = described(0, "examples in a local step; 0 takes all of a client's (full batch)")
    server_rate: float = described(1.0, "rate at which the server applies what arrived")
    decay_factor: float = described(1.0, "the server rate is multiplied by this at 1/3 and 2/3 of the rounds")
    weight_decay: float = described(0.0, "weight decay added to the clients' gradients")
    partition: str = described("iid", "how examples are dealt to clients: iid, shards or dirichlet", KINDS)
    alpha: float = described(1.0, "dirichlet: concentration; small is uneven")
    shards_per_client: int = described(2, "shards: runs of the examples sorted by label that a client gets")
    least_examples: int = described(1, "examples that every client has at least")
    rows: int = described(1, "count_sketch: rows of the sketch; more change nothing for its mean")
    placement: str = described("hash", "hash: Count-Sketch; shift: whole blocks shifted, faster", PLACEMENTS)
    hashes: str = described("fresh", "count_sketch: new hashes each round, or the same in all", ("fresh", "fixed"))
    fetch_rows: int = described(5, "fetch_sgd: rows of the sketch, odd")
    fetch_top: float = described(0.1, "fetch_sgd: coordinates recovered a round, as a share of the columns")
    fetch_momentum: float = described(0.0, "fetch_sgd: momentum kept in the sketch, in [0, 1)")
    fetch_masking: bool = described(True, "fetch_sgd: momentum forgets cells that were applied")
    fetch_error: str = described(
        "zero", "fetch_sgd: applied cells are set to zero, or what was applied is subtracted", ("zero", "subtract")
    )
    fetch_rate: str = described("before", "fetch_sgd: server rate before or after the memory", ("before", "after"))
    chunk: int = described(0, "clients computed at once; 0 chooses by size, 1 is a loop")
    micro_batch: int = described(
        1000, "examples in one pass of a client's full batch, gradients added; with batch norm it is not cut"
    )

    def __post_init__(self) -> None:
        """Raises InputError for values that no federation could use, all at once."""
        rules = {
            "learning_rate": (0 < self.learning_rate < math.inf, "a number above 0"),
            "clients": _whole(self.clients, 1),
            "participation": (0 < self.participation <= 1, "a number in (0, 1]"),
            "rounds": _whole(self.rounds, 1),
            "local_steps": _whole(self.local_steps, 1),
            "local_batch_size": _whole(self.local_batch_size, 0),
            "server_rate": (0 < self.server_rate < math.inf, "a number above 0"),
            "decay_factor": (0 < self.decay_factor <= 1, "a number in (0, 1]"),
            "weight_decay": (0 <= self.weight_decay < math.inf, "a number of at least 0"),
            "alpha": (0 < self.alpha < math.inf, "a number above 0"),
            "shards_per_client": _whole(self.shards_per_client, 1),
            "least_examples": _whole(self.least_examples, 1),
            "rows": _whole(self.rows, 1),
            "fetch_rows": (_whole(self.fetch_rows, 1)[0] and self.fetch_rows % 2 == 1, "an odd number, for a median"),
            "fetch_top": (0 < self.fetch_top < math.inf, "a number above 0"),
            "fetch_momentum": (0 <= self.fetch_momentum < 1, "a number in [0, 1)"),
            "chunk": _whole(self.chunk, 0),
            "micro_batch": _whole(self.micro_batch, 1),
        }
        require_allowed(self, rules)

    def require_read(self, method: str) -> None:
        """Raises InputError for a setting other than its default that neither the method nor the partition reads.

        A method of an extension may read any.
        """
        chosen = {"method": method, "partition": self.partition}
        for entry in fields(self):
            key, readers = _READ_BY.get(entry.name, ("", ()))
            value = getattr(self, entry.name)
            if value != entry.default and readers and chosen[key] in _ALL[key] and chosen[key] not in readers:
                raise InputError(
                    f"{entry.name}: {value} given, which {key} {chosen[key]} does not read; allowed: its default, "
                    f"{entry.default}; leave it out, or give {key} {' or '.join(readers)}"
                )

    def server_rate_at(self, step: int) -> float:
        """Server rate of a round, counted from 0."""
        return decayed(self.server_rate, self.decay_factor, step, self.rounds)

    @property
    def participants(self) -> int:
        """Clients that take part in a round."""
        return max(1, round(self.participation * self.clients))
