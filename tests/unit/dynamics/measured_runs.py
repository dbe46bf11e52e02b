"""Small runs that are measured along the way."""

from dataclasses import dataclass, replace
from pathlib import Path

import pandas
import torch

from hessketch.data.followed_runs import Followed
from hessketch.data.of_run import examples_of_run
from hessketch.dynamics.job import TABLES, DynamicsSettings, measure_runs
from hessketch.records import read_record, read_table
from hessketch.runs import IDENTITY, Run
from hessketch.trajectories import read_trajectory

RUN = Run("digits-4x4", 0.0, 4, "mlp", "none", 0.016, "cross_entropy", "sgd-b10", 0.02, 0)
NOISY, FULL, LARGER = (
    replace(RUN, label_noise=0.2),
    replace(RUN, trainer="sgd-full"),
    replace(RUN, examples_per_class=6),
)
WILD = replace(RUN, loss="mean_squared_error", learning_rate=1e4)  # diverges
WILD_LARGER = replace(WILD, examples_per_class=6)
WILDEST = replace(RUN, learning_rate=1e15)
P = 16 * 4 + 4 + 4 * 4 + 4 + 4 * 10 + 10
KEPT = [0, 5, 40]
SETTINGS = DynamicsSettings(top=3, exact_up_to=500, samples=40, posterior_samples=20)
SIGMAS = (0.1, 1.0)
POINT = {
    **dict.fromkeys(IDENTITY, None),
    **{
        "batch_size": "int64",
        "step": "int64",
        "epoch": "float64",
        "train_loss": "float64",
        "train_accuracy": "float64",
    },
    **{"test_loss": "float64", "test_accuracy": "float64", "n": "int64", "p": "int64", "classes": "int64"},
}


@dataclass
class Trainings:
    """Trajectories of all the runs above, on the disk."""

    folder: Path
    data: dict

    def examples(self, run: Run, split: str):
        return examples_of_run(run, self.data, split, run.examples_per_class if split == "train" else 5)

    def followed(self, run: Run) -> Followed:
        folder = self.folder / run.path
        finished = read_record(folder / "record.json")["status"] == "finished"
        trajectory = read_trajectory(folder / "trajectory.safetensors")
        return Followed(run, *trajectory, finished, self.examples(run, "train"), self.examples(run, "test"))


def measure(trainings, runs, output, settings=SETTINGS, sigmas=SIGMAS, **options):
    return measure_runs(
        runs, trainings.followed, settings, sigmas, output, device=torch.device("cpu"),
        **{"along": lambda run: run.examples_per_class == 4, **options},
    )  # fmt: skip


def read(output) -> dict[str, pandas.DataFrame]:
    assert {path.name for path in output.iterdir()} == {*(f"{name}.parquet" for name in TABLES), "record.json"}
    return {name: read_table(output / f"{name}.parquet") for name in TABLES}


def assert_same(found, expected):
    for name in TABLES:
        pandas.testing.assert_frame_equal(found[name], expected[name], check_exact=True)


def of(table, run):
    rows = table
    for name, value in run.identity().items():
        rows = rows[rows[name] == value]
    return rows
