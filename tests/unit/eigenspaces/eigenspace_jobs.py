"""Small jobs on eigenspaces."""

from dataclasses import dataclass, replace

import pandas
import torch

from hessketch.data.examples import Examples
from hessketch.data.of_run import examples_of_run
from hessketch.eigenspaces.job import measure_runs
from hessketch.eigenspaces.settings import EigenspaceSettings
from hessketch.eigenspaces.subjects import Subject, first_of_each_class, points_at_steps
from hessketch.eigenspaces.tables import TABLES
from hessketch.records import read_record, read_table
from hessketch.runs import Run
from hessketch.trajectories import read_trajectory

RUN = Run("digits-4x4", 0.0, 4, "mlp", "none", 0.016, "cross_entropy", "sgd-b10", 0.02, 0)
OTHER = replace(RUN, seed=1)
WILD = replace(RUN, loss="mean_squared_error", learning_rate=1e4)  # diverges
HIDDEN, P = 4, 16 * 4 + 4 + 4 * 4 + 4 + 4 * 10 + 10
STEPS, FULL = [0, 5, 40], [0, 40]
SETTINGS = EigenspaceSettings(
    pairs=12, measurements=50, probes=6, methods=("sketched", "exact", "lanczos"), ratios=(0.05,),
    stability_ratios=(0.03, 0.07),
)  # fmt: skip
K = 12
QUICK = replace(SETTINGS, methods=("exact",), splits=("test",))


@dataclass
class Trainings:
    """Trajectories of the runs above."""

    folder: object
    data: object

    def examples(self, run: Run, split: str) -> Examples:
        return examples_of_run(run, self.data, split, run.examples_per_class if split == "train" else 5)

    def subject(self, run: Run, /, **changes) -> Subject:
        """The first pixel of the Hessian's examples is dead."""
        architecture, kept = read_trajectory(self.folder / run.path / "trajectory.safetensors")
        finished = read_record(self.folder / run.path / "record.json")["status"] == "finished"
        halves = [first_of_each_class(self.examples(run, split), 3) for split in ("train", "test")]
        halves = [replace(half, inputs=half.inputs.clone()) for half in halves]
        for half in halves:
            half.inputs[:, 0, 0, 0] = 0
        points, stability = (points_at_steps(kept, steps, run, finished) for steps in (FULL, STEPS))
        return replace(Subject(run, architecture, points, finished, 40, *halves, stability), **changes)


def measure(trainings, runs, output, settings=SETTINGS, subject_of=None, **options):
    return measure_runs(runs, subject_of or trainings.subject, settings, output, device=torch.device("cpu"), **options)


def read(output) -> dict[str, pandas.DataFrame]:
    assert {path.name for path in output.iterdir()} == {*(f"{name}.parquet" for name in TABLES), "record.json"}
    return {name: read_table(output / f"{name}.parquet") for name in TABLES}


def of(table, **given):
    for name, value in given.items():
        table = table[table[name] == value]
    return table
