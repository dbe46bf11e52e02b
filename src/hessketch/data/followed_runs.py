"""Runs whose weights were kept on the way, with what they were trained on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hessketch.checkpoints import Architecture
from hessketch.data.examples import Examples
from hessketch.data.of_run import examples_of_run
from hessketch.data.prepared import PreparedData
from hessketch.records import read_record
from hessketch.runs import Run
from hessketch.trainers import Trainer
from hessketch.trajectories import Checkpoint, read_trajectory


@dataclass(frozen=True)
class Followed:
    """One trained run."""

    run: Run
    architecture: Architecture
    checkpoints: Sequence[Checkpoint]  # in the order of their steps
    finished: bool  # not diverged: its last weights are a trained network
    train: Examples
    test: Examples


def point_columns(one: Followed, facts: Mapping[str, Any], parameters: int, **when: Any) -> dict[str, Any]:
    """Column name to value of a checkpoint: the run's identity, examples in a step, `when` it was, losses, sizes."""
    return {
        **one.run.identity(),
        "batch_size": Trainer.parse(one.run.trainer).batch_size or len(one.train),
        **when,
        **{name: facts[name] for name in ("train_loss", "train_accuracy", "test_loss", "test_accuracy")},
        "n": len(one.train),
        "p": parameters,
        "classes": one.train.classes,
    }


def read_followed(folder: Path, run: Run, prepared: PreparedData, test_per_class: int | None) -> Followed:
    """A run from the folder of its trajectory and record; `prepared` are the data of its data set.

    Raises InputError as `read_trajectory`, `read_record` and `examples_of_run`.
    """
    architecture, checkpoints = read_trajectory(folder / "trajectory.safetensors")
    finished = read_record(folder / "record.json")["status"] == "finished"
    train = examples_of_run(run, prepared, "train", run.examples_per_class)
    return Followed(
        run, architecture, checkpoints, finished, train, examples_of_run(run, prepared, "test", test_per_class)
    )
