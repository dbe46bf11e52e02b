"""How a network was trained, as its run's path names it: `sgd`, `sgd-b50`, `sgd-b250-b10`, `count_sketch_ef-x100`."""

import math
import re
from dataclasses import dataclass, replace

from hessketch.errors import InputError, nearest
from hessketch.extensions import HINT, registered, takes
from hessketch.runs import Run, number_text

SGD = "sgd"
FEDERATED = ("uncompressed", "count_sketch", "top_r", "fetch_sgd")
NAMED = ("uncompressed", "count_sketch", "count_sketch_ef", "top_r", "top_r_ef", "fetch_sgd", "fetch_sgd_ef")
FULL_BATCH = 0
_WHOLE = (SGD, "uncompressed")  # they send every number: nothing is reduced, nothing is left over to feed back
_BATCH = re.compile(rf"{SGD}-(?:full|b(?P<size>[1-9][0-9]*))(?:-b(?P<later>[1-9][0-9]*))?")


def federated_methods() -> tuple[str, ...]:
    """Methods by which clients send their updates: FEDERATED and those that extensions have registered."""
    return (*FEDERATED, *registered("method"))


def named_methods() -> tuple[str, ...]:
    """The same with and, where there is any, without error feedback, as a config names them."""
    builds = registered("method").items()
    own = (name + end for name, build in builds for end in ("", "_ef") if not end or takes(build, "error_feedback"))
    return (*NAMED, *own)


def is_reduced(method: str) -> bool:
    """Whether a method has a dimension reduction, which its runs name."""
    build = registered("method").get(method)
    return method not in _WHOLE if build is None else takes(build, "reduction")


def _feeds_back(method: str) -> bool:
    return f"{method}_ef" in named_methods()


def _labels() -> str:
    whole = [SGD, *(method for method in named_methods() if not is_reduced(method.removesuffix("_ef")))]
    reduced = [method for method in named_methods() if is_reduced(method.removesuffix("_ef"))]
    return (
        f"{', '.join(whole)}, sgd-bEXAMPLES, sgd-full, either with -bEXAMPLES for those of later steps, or "
        f"METHOD-xREDUCTION with METHOD one of {', '.join(reduced)}{HINT}"
    )


@dataclass(frozen=True)
class Trainer:
    """One way of training: central sgd, or a federated method with its error feedback and dimension reduction.

    `reduction` is the bytes of a dense upload over those of the update that is sent, at least 1; None for sgd and
    uncompressed. It is kept to the 12 digits that a label has, so that a label reads back as the same trainer.
    `batch_size` of sgd is the examples in a step where runs differ in it, FULL_BATCH for all; None is left to settings.
    `later_batch_size` is that of the steps from a switch on (which one, settings say); None where there is no switch.

    Raises InputError for an unknown method, a reduction that is missing, not finite, below 1 or of a method that has
    none, error feedback of a method that has none, a batch size below 0 or of a method other than sgd, and a later
    batch size below 1, without a first one, or the same as it.
    """

    method: str
    error_feedback: bool = False
    reduction: float | None = None
    batch_size: int | None = None
    later_batch_size: int | None = None

    def __post_init__(self) -> None:
        methods = (SGD, *federated_methods())
        if self.method not in methods:
            raise InputError(
                f"{self.method!r} is no training method; allowed: {', '.join(methods)}{nearest(self.method, methods)}"
            )
        if self.batch_size is not None and (self.method != SGD or self.batch_size < 0):
            raise InputError(
                f"{self.method} with mini-batches of {self.batch_size}; allowed: sgd with 1 or more, or all"
            )
        if self.later_batch_size is not None and (
            self.batch_size is None or self.later_batch_size < 1 or self.later_batch_size == self.batch_size
        ):
            before = "none named" if self.batch_size is None else self.batch_size or "all"
            raise InputError(
                f"{self.method} with mini-batches of {self.later_batch_size} after a switch, before it {before}; "
                "allowed: sgd with two different numbers, or all first, as sgd-b250-b10"
            )
        if self.error_feedback and not _feeds_back(self.method):
            whole = self.method in _WHOLE
            why = "sends everything, no error is left to feed back" if whole else "has no error feedback"
            raise InputError(f"{self.named}: {self.method} {why}")
        if not is_reduced(self.method):
            if self.reduction is not None and self.method not in _WHOLE:
                raise InputError(f"{self.method} with a reduction: it has none to choose; write {self.named}")
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
    def first(self) -> "Trainer":
        """The trainer whose steps those before the switch are; itself where there is none."""
        return replace(self, later_batch_size=None)

    @property
    def label(self) -> str:
        """What stands in a run's path: 'count_sketch_ef-x100', 'sgd-b250-b10'; `Trainer.parse` reads it back."""
        if self.batch_size is not None:
            first = f"{SGD}-full" if self.batch_size == FULL_BATCH else f"{SGD}-b{self.batch_size}"
            return first if self.later_batch_size is None else f"{first}-b{self.later_batch_size}"
        return self.named + ("" if self.reduction is None else f"-x{number_text(self.reduction)}")

    @classmethod
    def parse(cls, label: str) -> "Trainer":
        """The trainer of a label; raises InputError, with the nearest valid name if the name is unknown."""
        batch = _BATCH.fullmatch(label)
        if batch:
            return cls(
                SGD,
                batch_size=FULL_BATCH if batch["size"] is None else int(batch["size"]),
                later_batch_size=None if batch["later"] is None else int(batch["later"]),
            )
        named, has_reduction, text = label.partition("-x")
        method = named.removesuffix("_ef")
        if method not in (SGD, *federated_methods()):
            raise InputError(f"{label!r} is no trainer; allowed: {_labels()}{nearest(named, (SGD, *named_methods()))}")
        try:
            reduction = float(text) if has_reduction else None
        except ValueError:
            raise InputError(f"{label!r}: its reduction {text!r} is no number; allowed: {_labels()}") from None
        return cls(method, named != method, reduction)


def trainer_columns(run: Run) -> dict[str, str | bool | float]:
    """A run's trainer for tables: method, error_feedback, reduction (NaN where there is none)."""
    trainer = Trainer.parse(run.trainer)
    reduction = math.nan if trainer.reduction is None else trainer.reduction
    return {"method": trainer.method, "error_feedback": trainer.error_feedback, "reduction": reduction}
