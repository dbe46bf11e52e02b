"""A run's identity: what was trained on what and how. Its path alone says all of it."""

import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar

from hessketch.errors import InputError


def number_text(value: float) -> str:
    """Shortest decimal text of a number: 0.1, 1, 0.0075; never an exponent that another writer spells differently."""
    return f"{value:.12g}"


def _count(text: str) -> int | None:
    return None if text == "all" else int(text)


@dataclass(frozen=True)
class Run:
    """One trained network. `learning_rate` None stands for the cell: the same run at its best rate."""

    dataset: str
    label_noise: float
    examples_per_class: int | None  # None: every example
    network: str
    norm: str
    width: float
    loss: str
    trainer: str
    learning_rate: float | None
    seed: int

    PATTERN: ClassVar[str] = "dataset/noise0/n100/network-norm-w1/loss/trainer[/lr0.1]/seed0"

    @property
    def path(self) -> str:
        """Relative path, from general to specific; `Run.from_path` reads it back."""
        rate = "" if self.learning_rate is None else f"lr{number_text(self.learning_rate)}/"
        size = "all" if self.examples_per_class is None else self.examples_per_class
        return (
            f"{self.dataset}/noise{number_text(self.label_noise)}/n{size}/"
            f"{self.network_label}/{self.loss}/{self.trainer}/{rate}seed{self.seed}"
        )

    @classmethod
    def of_network(cls, network: Mapping[str, Any], **others: Any) -> "Run":
        """The run of a network as a filled config describes it (name, norm, width), everything else given."""
        return cls(network=network["name"], norm=network["norm"], width=network["width"], **others)

    @classmethod
    def from_path(cls, path: str) -> "Run":
        """The run that a path names; raises InputError with the pattern if it is none."""
        match = _PATTERN.fullmatch(path)
        if match is None:
            raise InputError(f"{path!r} is not a run; the pattern is {Run.PATTERN}")
        kinds: dict[str, Callable[[str], Any]] = {"label_noise": float, "width": float, "learning_rate": float}
        kinds |= {"seed": int, "examples_per_class": _count}
        values: dict[str, Any] = {
            name: kinds.get(name, str)(text) if text is not None else None for name, text in match.groupdict().items()
        }
        return cls(**values)

    @property
    def cell(self) -> "Run":
        """The same run without its learning rate: what a selection over rates compares."""
        return Run(**{**asdict(self), "learning_rate": None})

    @property
    def network_label(self) -> str:
        """Network, norm and width: 'vgg11-batch-w1'."""
        return f"{self.network}-{self.norm}-w{number_text(self.width)}"

    @property
    def variant(self) -> str:
        """Loss and, where there is any, label noise: what the runs of one set of figures share."""
        return self.loss + (f"-noise{number_text(self.label_noise)}" if self.label_noise else "")

    def identity(self) -> dict[str, str | int | float | None]:
        """Column name to value, for tables."""
        return asdict(self)


def rate_of(run: Run) -> float:
    """The run's learning rate; raises InputError for a cell, which names none."""
    if run.learning_rate is None:
        raise InputError(f"{run.path}: names no learning rate; write for example lr0.1/seed{run.seed} at its end")
    return run.learning_rate


IDENTITY = tuple(field.name for field in fields(Run))
_NUMBER = r"[0-9]+(?:\.[0-9]+)?(?:e[+-][0-9]+)?"
_NAME = r"\w[\w.:+-]*"  # no part of a path leads out of its folder, and none is hidden
_PATTERN = re.compile(
    r"(?P<dataset>" + _NAME + r")/noise(?P<label_noise>" + _NUMBER + r")/n(?P<examples_per_class>[0-9]{1,18}|all)/"
    r"(?P<network>" + _NAME + r")-(?P<norm>\w+)-w(?P<width>" + _NUMBER + r")/(?P<loss>\w+)/(?P<trainer>" + _NAME + r")/"
    r"(?:lr(?P<learning_rate>" + _NUMBER + r")/)?seed(?P<seed>[0-9]{1,18})"
)
