"""The two scripts from files to tables, and which federated runs are looked at."""

import math
import runpy
from dataclasses import replace
from pathlib import Path

import pytest

from hessketch.checkpoints import Architecture
from hessketch.data.prepared import prepare_dataset
from hessketch.eigenspaces.job import TABLES
from hessketch.errors import InputError
from hessketch.networks.registry import network_of
from hessketch.progress import Progress
from hessketch.records import read_record, read_table, write_record, write_tensors
from hessketch.runs import Run
from hessketch.training.selected_runs import selected_runs
from hessketch.trajectories import write_trajectory

SCRIPTS = Path(__file__).parents[3] / "workflow/scripts"
RUN = Run("digits-8x8", 0.0, 5, "mlp", "none", 0.016, "cross_entropy", "sgd-b10", 0.1, 0)
ROUNDS = replace(RUN, trainer="top_r-x10")
ARCHITECTURE = Architecture("mlp", (1, 8, 8), 10, 0.016, "none")
P = 64 * 4 + 4 + 4 * 4 + 4 + 4 * 10 + 10
FLAGS = [
    "--hessian-examples-per-class", "2", "--test-examples-per-class", "4", "--pairs", "0.02", "--probes", "4",
    "--ratios", "0.01", "0.02", "--methods", "exact", "sketched", "--device", "cpu", "--batch-size", "7",
]  # fmt: skip


def weights(seed: int):
    return network_of(ARCHITECTURE, seed).state_dict()


def record(run: Run, **facts) -> dict:
    return {"run": run.path, "learning_rate": run.learning_rate, "status": "finished", "test_accuracy": 0.5, **facts}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Prepared data, a trajectory of three steps, and the federated runs of two rates and two seeds."""
    made = tmp_path_factory.mktemp("files")
    write_tensors(prepare_dataset("digits-8x8", "absent").to_tensors(), made / "data", {"dataset": "digits-8x8"})
    losses = {"train_loss": 2.0, "train_accuracy": 0.1, "test_loss": 2.5, "test_accuracy": 0.2}
    steps = [({"step": step, "epoch": 0.0, **losses}, weights(step)) for step in (0, 3, 9)]
    write_trajectory(made / "runs" / RUN.path / "trajectory.safetensors", ARCHITECTURE, steps)
    write_record(record(RUN), made / "runs" / RUN.path / "record.json")
    for rate, seed in ((0.1, 0), (0.1, 1), (0.5, 0), (0.5, 1)):
        run = replace(ROUNDS, learning_rate=rate, seed=seed)
        facts = {"train_loss": 1.0, "target_loss": math.nan}
        rounds = [({"kind": "round", "round": number, **facts}, weights(number)) for number in (1, 2)]
        write_trajectory(made / "federated" / run.path / "checkpoints.safetensors", ARCHITECTURE, rounds)
        write_record(record(run, test_accuracy=rate), made / "federated" / run.path / "record.json")
    return made


def call(script: str, *words) -> None:
    names = runpy.run_path(str(SCRIPTS / script))
    names["measure"](names["parser"].parse_args([str(word) for word in words]), Progress("test"))


def test_the_script_measures_steps_and_stability_of_trajectories(folder, tmp_path):
    call(
        "eigenspaces.py", RUN.path, "--trajectories", folder / "runs", "--data", folder / "data", "--output", tmp_path,
        "--steps", 9, "--stability-steps", 0, 3, "--stability-ratios", 0.02, *FLAGS,
    )  # fmt: skip
    tables = {name: read_table(tmp_path / f"{name}.parquet") for name in TABLES}
    quality = tables["quality"]
    assert set(quality["time"]) == {9} and set(quality["kind"]) == {"step"} and set(quality["n"]) == {50}
    assert set(quality["p"]) == {P} and set(quality["pairs"]) == {round(0.02 * P)}
    assert len(quality) == 2 * 2 and set(quality["test_loss"]) == {2.5}
    assert set(tables["metrics"]["k"]) == {round(0.01 * P), round(0.02 * P)}
    pairs = tables["stability"][["first", "second"]].drop_duplicates()
    assert pairs.values.tolist() == [[0, 0], [0, 3], [3, 3]]
    one = read_record(tmp_path / "record.json")["measured"][0]
    assert one["hessian_examples"] == {"train": 20, "test": 20} and one["run"] == RUN.path


def federated(folder, output, records) -> None:
    call(
        "federated_eigenspaces.py", ROUNDS.path.rsplit("/", 2)[0], "--records", *records,
        "--runs", folder / "federated", "--data", folder / "data", "--output", output, *FLAGS,
        "--splits", "test", "--methods", "exact",
    )  # fmt: skip


def test_the_federated_script_measures_the_kept_rounds_of_all_seeds_at_the_selected_rate(folder, tmp_path):
    federated(folder, tmp_path, sorted((folder / "federated").rglob("record.json")))
    table = read_table(tmp_path / "overlaps.parquet")
    assert set(table["learning_rate"]) == {0.5} and set(table["seed"]) == {0, 1} and set(table["split"]) == {"test"}
    assert set(table["time"]) == {1, 2} and set(table["kind"]) == {"round"} and set(table["batch_size"]) == {0}
    assert set(table["trainer"]) == {"top_r-x10"} and table["test_accuracy"].isna().all()
    assert read_table(tmp_path / "stability.parquet").empty


def test_the_federated_script_writes_empty_tables_where_every_run_diverged(folder, tmp_path):
    write_record(record(replace(ROUNDS, learning_rate=9.0), status="diverged"), tmp_path / "record.json")
    federated(folder, tmp_path / "out", [tmp_path / "record.json"])
    assert all(read_table(tmp_path / "out" / f"{name}.parquet").empty for name in TABLES)
    assert read_record(tmp_path / "out" / "record.json")["measured"] == []


def test_selected_runs_leave_out_a_seed_that_diverged_at_the_selected_rate_and_say_so():
    group, said = ROUNDS.path.rsplit("/", 2)[0], []
    runs = [replace(ROUNDS, seed=seed) for seed in (1, 0, 2)]
    records = [record(run, status="diverged" if run.seed == 2 else "finished") for run in runs]
    found = selected_runs(group, records, said.append)
    assert found == [runs[1], runs[0]]
    assert said == [f"{runs[2].path} is left out: it diverged at the selected rate"]
    assert selected_runs(group, records[2:], said.append) == [] and said[-1] == "nothing is left: every run diverged"
    with pytest.raises(InputError, match=f"{RUN.path} is no run of the group {group}"):
        selected_runs(group, [record(RUN)])


def test_flags_give_the_settings():
    names = runpy.run_path(str(SCRIPTS / "eigenspaces.py"))
    given = ["run", "--trajectories", "t", "--data", "d", "--output", "o"]
    settings = names["eigenspace_settings_from"](names["parser"].parse_args(given))
    assert settings == type(settings)(), "the defaults of the flags are those of the settings"
    words = ["--pairs", "355", "--splits", "test", "--methods", "lanczos", "--stability-ratios", "0.2"]
    changed = names["eigenspace_settings_from"](names["parser"].parse_args([*given, *words]))
    assert changed.pairs_of(7030) == 355 and changed.splits == ("test",) and changed.methods == ("lanczos",)
    assert changed.stability_ratios == (0.2,)
