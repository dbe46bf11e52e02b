"""Trainings that the jobs on eigenspaces share."""

import pytest
import torch
from eigenspace_jobs import OTHER, RUN, STEPS, WILD, Trainings, measure, read

from hessketch.data.prepared import prepare_dataset
from hessketch.training.trajectories import follow_runs
from hessketch.training.trajectory import TrajectorySettings


@pytest.fixture(scope="package")
def trainings(tmp_path_factory) -> Trainings:
    made = Trainings(tmp_path_factory.mktemp("trajectories"), prepare_dataset("digits-4x4", "absent"))
    follow_runs(
        [RUN, OTHER, WILD],
        lambda run: (made.examples(run, "train"), made.examples(run, "test")),
        lambda run, train: (TrajectorySettings(steps=40), STEPS),
        lambda run: made.folder / run.path,
        device=torch.device("cpu"),
    )
    return made


@pytest.fixture(scope="package")
def measured(trainings, tmp_path_factory) -> tuple[dict, dict]:
    output = tmp_path_factory.mktemp("measured")
    record = measure(trainings, [RUN], output)
    return read(output), record
