"""What is measured: points of trainings, with the examples whose mean loss the Hessians belong to."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hessketch.checkpoints import Architecture
from hessketch.data.examples import Examples
from hessketch.errors import InputError
from hessketch.runs import Run
from hessketch.trainers import Trainer
from hessketch.trajectories import Checkpoint

_LOSSES = ("train_loss", "train_accuracy", "test_loss", "test_accuracy")


@dataclass(frozen=True, eq=False)
class Point:
    """The weights of one moment of a training, and what is known of it."""

    kind: str  # "step" of SGD or "round" of a federation
    time: int  # that step or round
    facts: Mapping[str, Any]  # of a trajectory: losses and accuracies as far as they are known
    state: Mapping[str, Tensor]  # state_dict

    @property
    def name(self) -> str:
        return f"{self.kind} {self.time}"


@dataclass(frozen=True, eq=False)
class Subject:
    """One run: where it is measured and on what."""

    run: Run
    architecture: Architecture
    points: Sequence[Point]  # measured in full
    finished: bool  # not diverged: what cannot be measured is then an error
    n: int  # training examples
    train: Examples  # those over which the training loss is averaged in the Hessian
    test: Examples
    stability: Sequence[Point] = ()  # compared two by two

    def examples(self, split: str) -> Examples:
        return {"train": self.train, "test": self.test}[split]


def points_at_steps(
    checkpoints: Sequence[Checkpoint], steps: Sequence[int] | None, run: Run, finished: bool
) -> list[Point]:
    """Those of a trajectory at these steps (None: all), in the order of the training.

    Raises InputError, naming those that exist, for a step that was not kept, unless the run diverged before.
    """
    found = {facts["step"]: Point("step", facts["step"], facts, state) for facts, state in checkpoints}
    missing = [step for step in steps or () if step not in found]
    if missing and finished:
        raise InputError(
            f"{run.path}: no weights of step {', '.join(map(str, missing))} were kept; there are steps "
            f"{', '.join(map(str, found))}"
        )
    return [found[step] for step in sorted(found) if steps is None or step in steps]


def points_of_rounds(checkpoints: Sequence[Checkpoint]) -> list[Point]:
    """Those that a federated training kept by their round."""
    kept = [(facts, state) for facts, state in checkpoints if facts["kind"] == "round"]
    return [Point("round", facts["round"], facts, state) for facts, state in kept]


def first_of_each_class(examples: Examples, per_class: int | None) -> Examples:
    """The first `per_class` examples of each class (None: every example), in their order.

    Raises InputError where a class has fewer.
    """
    if per_class is None:
        return examples
    chosen = []
    for label in range(examples.classes):
        places = (examples.targets == label).nonzero()[:, 0]
        if not 1 <= per_class <= len(places):
            raise InputError(
                f"{per_class} examples of each class asked for the Hessian, class {label} has {len(places)}; allowed: "
                f"1 to {len(places)}"
            )
        chosen.append(places[:per_class])
    order = torch.cat(chosen).sort().values
    return Examples(examples.inputs[order], examples.targets[order], examples.classes)


def point_columns(subject: Subject, point: Point, parameters: int) -> dict[str, Any]:
    """Column name to value: the run's identity, examples in a step, kind and time, losses, sizes; NaN where unknown."""
    trainer = Trainer.parse(subject.run.trainer)
    return {
        **subject.run.identity(),
        "batch_size": 0 if trainer.federated else trainer.batch_size or subject.n,
        "kind": point.kind,
        "time": point.time,
        **{name: float(point.facts.get(name, math.nan)) for name in _LOSSES},
        **size_columns(subject, parameters),
    }


def size_columns(subject: Subject, parameters: int) -> dict[str, int]:
    """n, p and classes."""
    return {"n": subject.n, "p": parameters, "classes": subject.train.classes}
