"""How a network was trained, as its run's path names it: `sgd`, `sgd-b50`, `uncompressed`, `count_sketch_ef-x100`."""

import math
import re
from dataclasses import dataclass

from hessketch.errors import InputError, nearest
from hessketch.runs import Run, number_text

SGD = "sgd"
FEDERATED = ("uncompressed", "count_sketch", "top_r", "fetch_sgd")
NAMED = ("uncompressed", "count_sketch", "count_sketch_ef", "top_r", "top_r_ef", "fetch_sgd", "fetch_sgd_ef")
FULL_BATCH = 0
_WHOLE = (SGD, "uncompressed")  # they send every number: nothing is reduced, nothing is left over to feed back
_LABELS = (
    f"{', '.join(_WHOLE)}, sgd-bEXAMPLES, sgd-full, or METHOD-xREDUCTION with METHOD one of {', '.join(NAMED[1:])}"
)
_BATCH = re.compile(rf"{SGD}-(?:full|b(?P<size>[1-9][0-9]*))")


@dataclass(frozen=True)
class Trainer:
    """One way of training: central sgd, or a federated method with its error feedback and dimension reduction.

    `reduction` is the bytes of a dense upload over those of the update that is sent, at least 1; None for sgd and
    uncompressed. It is kept to the 12 digits that a label has, so that a label reads back as the same trainer.
    `batch_size` of sgd is the examples in a step where runs differ in it, FULL_BATCH for all; None is left to settings.

    Raises InputError for an unknown method, a reduction that is missing, not finite, below 1 or of a method that has
    none, error feedback of a method that has none, and a batch size below 0 or of a method other than sgd.
    """

    method: str
    error_feedback: bool = False
    reduction: float | None = None
    batch_size: int | None = None

    def __post_init__(self) -> None:
        methods = (SGD, *FEDERATED)
        if self.method not in methods:
            raise InputError(
                f"{self.method!r} is no training method; allowed: {', '.join(methods)}{nearest(self.method, methods)}"
            )
        if self.batch_size is not None and (self.method != SGD or self.batch_size < 0):
            raise InputError(
                f"{self.method} with mini-batches of {self.batch_size}; allowed: sgd with 1 or more, or all"
            )
        if self.method in _WHOLE:
            if self.error_feedback:
                raise InputError(f"{self.named}: {self.method} sends everything, no error is left to feed back")
            if self.reduction is not None:
                raise InputError(f"{self.method} with a reduction: it sends everything; write {self.method}")
            return
        if self.reduction is None:
            raise InputError(f"{self.named} without a reduction; write for example {self.named}-x10")
        if not 1 <= self.reduction < math.inf:
            raise InputError(f"{self.named} with a reduction of {self.reduction:g}; allowed: finite and at least 1")
        object.__setattr__(self, "reduction", float(number_text(self.reduction)))

    @property
    def federated(self) -> bool:
        """Whether clients train and send updates."""
        return self.method != SGD

    @property
    def named(self) -> str:
        """The method and whether it feeds errors back, without the reduction: 'count_sketch_ef'."""
        return self.method + ("_ef" if self.error_feedback else "")

    @property
    def label(self) -> str:
        """What stands in a run's path: 'count_sketch_ef-x100', 'sgd-b50'; `Trainer.parse` reads it back."""
        if self.batch_size is not None:
            return f"{SGD}-full" if self.batch_size == FULL_BATCH else f"{SGD}-b{self.batch_size}"
        return self.named + ("" if self.reduction is None else f"-x{number_text(self.reduction)}")

    @classmethod
    def parse(cls, label: str) -> "Trainer":
        """The trainer of a label; raises InputError, with the nearest valid name if the name is unknown."""
        batch = _BATCH.fullmatch(label)
        if batch:
            return cls(SGD, batch_size=FULL_BATCH if batch["size"] is None else int(batch["size"]))
        named, has_reduction, text = label.partition("-x")
        method = named.removesuffix("_ef")
        if method not in (SGD, *FEDERATED):
            raise InputError(f"{label!r} is no trainer; allowed: {_LABELS}{nearest(named, (SGD, *NAMED))}")
        try:
            reduction = float(text) if has_reduction else None
        except ValueError:
            raise InputError(f"{label!r}: its reduction {text!r} is no number; allowed: {_LABELS}") from None
        return cls(method, named != method, reduction)


def trainer_columns(run: Run) -> dict[str, str | bool | float]:
    """A run's trainer for tables: method, error_feedback, reduction (NaN where there is none)."""
    trainer = Trainer.parse(run.trainer)
    reduction = math.nan if trainer.reduction is None else trainer.reduction
    return {"method": trainer.method, "error_feedback": trainer.error_feedback, "reduction": reduction}
