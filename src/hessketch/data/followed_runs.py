"""Runs whose weights were kept on the way, with what they were trained on."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hessketch.checkpoints import Architecture
from hessketch.data.examples import Examples
from hessketch.data.of_run import examples_of_run
from hessketch.data.prepared import PreparedData
from hessketch.records import read_record
from hessketch.runs import Run
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
