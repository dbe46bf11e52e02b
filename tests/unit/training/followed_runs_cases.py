"""Small followed runs to files."""

import pytest
import torch

from hessketch.data.of_run import examples_of_run
from hessketch.progress import Progress
from hessketch.records import read_table
from hessketch.runs import Run
from hessketch.training.trajectories import follow_runs
from hessketch.training.trajectory import TrajectorySettings
from hessketch.trajectories import read_trajectory

RUN = Run("digits-8x8", 0.0, 4, "mlp", "none", 0.02, "cross_entropy", "sgd-b9", 0.05, 0)
SETTINGS = TrajectorySettings(learning_rate=123, steps=12, batch_size=7)  # rate and batches are the run's own
KEPT = [0, 3, 12]


def trained(data, folder, runs, settings=SETTINGS, kept=KEPT, test=3, **options):
    """Records of runs, each in the folder that its path names."""
    return follow_runs(
        runs,
        lambda run: tuple(
            examples_of_run(run, data(run.dataset), split, size)
            for split, size in (("train", run.examples_per_class), ("test", test))
        ),
        settings if callable(settings) else lambda run, train: (settings, kept),
        lambda run: folder / run.path,
        device=torch.device("cpu"),
        **options,
    )


def trajectory(folder, run=RUN):
    return read_trajectory(folder / run.path / "trajectory.safetensors")


def assert_same(found, expected, run=RUN):
    """The files of a run in two folders, but for the times in them."""
    (architecture, kept), (other, others) = trajectory(found, run), trajectory(expected, run)
    assert architecture == other and [facts for facts, _ in kept] == [facts for facts, _ in others]
    for (_, state), (_, wanted) in zip(kept, others, strict=True):
        assert_equal(state, wanted)
    one, two = (
        read_table(folder / run.path / "history.parquet").drop(columns="seconds") for folder in (found, expected)
    )
    assert one.equals(two)


def assert_equal(state, wanted):
    assert state.keys() == wanted.keys()
    assert all(torch.equal(state[name], tensor) for name, tensor in wanted.items())


class Killed(Exception):
    pass


class Killer(Progress):
    """Kills a call at so many steps of the run of a number (from 1)."""

    def __init__(self, number: int, step: int):
        super().__init__("test")
        self.number, self.step = number, step

    def stage(self, name):
        def report(done, total):
            if name.startswith(f"run {self.number} of ") and done >= self.step:
                raise Killed

        return report


def kill(training, *runs, number=1, step=5, **options):
    with pytest.raises(Killed):
        training(*runs, progress=Killer(number, step), save_every_seconds=0, **options)
