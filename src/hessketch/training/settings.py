"""How a network is trained, as in Papyan 2018, section 3.1 and Table 1."""

import math
from dataclasses import dataclass

from hessketch.described import described, require_allowed
from hessketch.schedules import decayed

PRECISIONS = ("float32", "bfloat16")


@dataclass(frozen=True)
class TrainingSettings:
    """Settings of one training; the defaults are the paper's."""

    learning_rate: float = described(0.1, "initial learning rate")
    epochs: int = described(200, "passes over the training examples")
    batch_size: int = described(128, "examples in a mini-batch")
    momentum: float = described(0.9, "momentum of SGD, in [0, 1)")
    weight_decay: float = described(5e-4, "weight decay added to the gradient")
    decay_factor: float = described(0.1, "the rate is multiplied by this at 1/3 and 2/3 of the epochs")
    precision: str = described(
        "float32", "of the passes through the network; parameters, update and tests stay float32", PRECISIONS
    )

    def __post_init__(self) -> None:
        """Raises InputError for values that no training could use."""
        rules = {
            "learning_rate": (0 < self.learning_rate < math.inf, "a number above 0"),
            "epochs": (self.epochs >= 1, "a whole number of at least 1"),
            "batch_size": (self.batch_size >= 1, "a whole number of at least 1"),
            "momentum": (0 <= self.momentum < 1, "a number in [0, 1)"),
            "weight_decay": (0 <= self.weight_decay < math.inf, "a number of at least 0"),
            "decay_factor": (0 < self.decay_factor <= 1, "a number in (0, 1]"),
        }
        require_allowed(self, rules)

    def rate_at(self, epoch: int) -> float:
        """Learning rate of an epoch (counted from 0): divided at 1/3 and 2/3 of the epochs."""
        return decayed(self.learning_rate, self.decay_factor, epoch, self.epochs)
