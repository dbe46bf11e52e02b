"""Trainings that the measurements of dynamics share."""

from dataclasses import replace

import pytest
import torch
from measured_runs import FULL, KEPT, LARGER, NOISY, RUN, WILD, WILD_LARGER, WILDEST, Trainings, measure, read

from hessketch.data.prepared import prepare_dataset
from hessketch.training.trajectories import follow_runs
from hessketch.training.trajectory import TrajectorySettings


@pytest.fixture(scope="package")
def trainings(tmp_path_factory) -> Trainings:
    made = Trainings(tmp_path_factory.mktemp("trajectories"), prepare_dataset("digits-4x4", "absent"))
    follow_runs(
        [RUN, NOISY, FULL, LARGER, WILD, WILD_LARGER, WILDEST, replace(RUN, seed=1)],
        lambda run: (made.examples(run, "train"), made.examples(run, "test")),
        lambda run, train: (TrajectorySettings(steps=40), KEPT),
        lambda run: made.folder / run.path,
        device=torch.device("cpu"),
    )
    return made


@pytest.fixture(scope="package")
def measured(trainings, tmp_path_factory) -> tuple[dict, dict]:
    """Tables and record of a job with three runs that are followed, one that is not, and one that diverged."""
    output = tmp_path_factory.mktemp("measured")
    record = measure(trainings, [RUN, NOISY, FULL, LARGER, WILD], output)
    return read(output), record
