"""What a kill loses of followed trainings to files, what is refused, and their script."""

import math
import runpy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from followed_runs_cases import KEPT, RUN, SETTINGS, assert_same, kill, trajectory

from hessketch.errors import InputError
from hessketch.progress import Progress
from hessketch.records import read_record, read_table, write_tensors
from hessketch.training import trajectories
from hessketch.training.trajectories import FILES, seeds_of
from hessketch.training.trajectory import TrajectorySettings


class Said(Progress):
    """What is said of trainings."""

    def __init__(self):
        super().__init__("said")
        self.lines = []

    def say(self, text):
        self.lines.append(text)


@pytest.mark.parametrize("step", [1, 5, 12])
@pytest.mark.parametrize("trainer", ["sgd-b9", "sgd-full"])
def test_a_killed_run_ends_with_the_files_of_an_uninterrupted_one(training, tmp_path, trainer, step):
    run = replace(RUN, trainer=trainer, norm="batch")
    settings = replace(SETTINGS, momentum=0.9)
    training(run, folder="whole", settings=settings)
    kill(training, run, folder="killed", step=step, settings=settings)
    assert {path.name for path in (tmp_path / "killed" / run.path).iterdir()} == {"partial"}
    said = Said()
    (record,) = training(run, folder="killed", settings=settings, progress=said)
    assert record["resumed_from_step"] == step
    assert [line for line in said.lines if "continuing" in line] == [f"{run.path}: continuing from step {step}"]
    assert_same(tmp_path / "killed", tmp_path / "whole", run)
    assert {path.name for path in (tmp_path / "killed" / run.path).iterdir()} == set(FILES)


def test_a_killed_call_keeps_the_runs_that_were_finished_and_does_not_train_them_again(training, tmp_path, monkeypatch):
    runs = [replace(RUN, seed=seed) for seed in range(3)]
    training(*runs, folder="whole")
    kill(training, *runs, folder="killed", number=2)
    first, second, third = (tmp_path / "killed" / run.path for run in runs)
    assert {path.name for path in first.iterdir()} == {"partial"}  # nothing is published before all are done
    assert {path.name for path in (first / "partial").iterdir()} == set(FILES)
    assert (second / "partial/resume.safetensors").is_file() and not third.exists()
    finished = read_record(first / "partial/record.json")
    seeds, original = [], trajectories.follow
    monkeypatch.setattr(trajectories, "follow", lambda *a, **k: seeds.append(a[5]) or original(*a, **k))
    records = training(*runs, folder="killed")
    assert seeds == [seeds_of(run)["batch order"] for run in runs[1:]]
    assert [record["resumed_from_step"] for record in records] == [0, 5, 0] and records[0] == finished
    for run in runs:
        assert_same(tmp_path / "killed", tmp_path / "whole", run)
        assert {path.name for path in (tmp_path / "killed" / run.path).iterdir()} == set(FILES)


@pytest.mark.parametrize(
    "changes",
    [{"settings": replace(SETTINGS, momentum=0.5)}, {"kept": [0, 2, 12]}, {"test": 4}],
    ids=["settings", "kept steps", "test examples"],
)
def test_what_was_begun_or_finished_with_other_settings_is_trained_again(training, tmp_path, changes):
    """What was kept before must not get among what is kept now."""
    runs = [replace(RUN, seed=seed) for seed in range(2)]
    kill(training, *runs, number=2)
    records = training(*runs, **changes)
    assert [record["resumed_from_step"] for record in records] == [0, 0]
    training(*runs, folder="whole", **changes)
    for run in runs:
        assert_same(tmp_path, tmp_path / "whole", run)


def test_what_another_version_of_the_code_began_is_not_continued(training, tmp_path, monkeypatch):
    kill(training)
    monkeypatch.setattr(trajectories, "code_digest", lambda: "another")
    assert training()[0]["resumed_from_step"] == 0
    assert [facts["step"] for facts, _ in trajectory(tmp_path)[1]] == KEPT


def test_new_results_replace_older_ones(training, tmp_path):
    training()
    training(kept=[12])
    assert [facts["step"] for facts, _ in trajectory(tmp_path)[1]] == [12]
    assert {path.name for path in (tmp_path / RUN.path).iterdir()} == set(FILES)


def test_a_diverged_run_is_a_result_with_its_step_and_the_next_run_goes_on(training, tmp_path):
    wild = replace(RUN, loss="mean_squared_error", learning_rate=1e4)
    record, next_one = training(wild, RUN)
    assert record["status"] == "diverged" and record["diverged_at"] == f"step {record['steps'] + 1}"
    assert math.isfinite(record["train_loss"]) and math.isfinite(record["test_loss"])
    _, kept = trajectory(tmp_path, wild)
    assert [facts["step"] for facts, _ in kept] == [step for step in KEPT if step <= record["steps"]]
    assert all(torch.isfinite(tensor).all() for _, state in kept for tensor in state.values())
    assert len(read_table(tmp_path / wild.path / "history.parquet")) == record["steps"] + 1
    assert next_one["status"] == "finished"


def test_a_run_that_diverges_before_any_weights_were_kept_has_an_empty_trajectory(training, tmp_path):
    wild = replace(RUN, loss="mean_squared_error", learning_rate=1e30)
    (record,) = training(wild, kept=[12])
    assert record["status"] == "diverged"
    architecture, kept = trajectory(tmp_path, wild)
    assert kept == [] and architecture.network == "mlp"


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (replace(RUN, trainer="sgd"), "trainer sgd given; allowed: sgd-full, or sgd-b50"),
        (replace(RUN, trainer="top_r-x10"), "trainer top_r-x10 given; allowed: sgd-full"),
        (RUN.cell, "names no learning rate; write for example lr0.1/seed0"),
        (replace(RUN, trainer="sgd-batch9"), "'sgd-batch9' is no trainer"),
    ],
)
def test_a_run_that_does_not_say_how_it_is_trained_is_refused_before_any_training(training, tmp_path, run, message):
    with pytest.raises(InputError, match=message):
        training(RUN, run)
    assert not list(tmp_path.iterdir())


def test_steps_beyond_the_last_and_batches_beyond_the_examples_are_refused(training):
    with pytest.raises(InputError, match="weights of step 13 asked for; allowed: steps 0 to 12"):
        training(kept=[13])
    with pytest.raises(InputError, match="mini-batches of 41 asked for, 40 training examples"):
        training(replace(RUN, trainer="sgd-b41"))


def test_the_script_takes_steps_or_epochs_and_not_both(capsys):
    script = Path(__file__).parents[3] / "workflow/scripts/train_trajectories.py"
    parser = runpy.run_path(str(script))["parser"]
    needed = [RUN.path, "--data", "d.safetensors", "--output", "out", "--keep", "0"]
    assert parser.parse_args([*needed, "--steps", "7"]).steps == 7 and parser.parse_args(needed).epochs is None
    with pytest.raises(SystemExit):
        parser.parse_args([*needed, "--steps", str(TrajectorySettings.steps), "--epochs", "2"])
    assert "--epochs: not allowed with argument --steps" in capsys.readouterr().err


def test_the_script_takes_the_switch_and_counts_no_epochs_across_it(data, tmp_path):
    script = runpy.run_path(str(Path(__file__).parents[3] / "workflow/scripts/train_trajectories.py"))
    prepared = tmp_path / "digits.safetensors"
    write_tensors(data(RUN.dataset).to_tensors(), prepared, {"dataset": RUN.dataset})
    run = replace(RUN, trainer="sgd-b9-b3")
    needed = [run.path, "--data", str(prepared), "--output", str(tmp_path), "--keep", "0", "--switch-step", "7"]
    needed += ["--test-examples-per-class", "3", "--device", "cpu"]
    script["train"](script["parser"].parse_args([*needed, "--steps", "12"]), Progress("test"))
    assert read_record(tmp_path / run.path / "record.json")["settings"]["switch_step"] == 7
    with pytest.raises(InputError, match="--epochs given; allowed for a trainer that switches: --steps"):
        script["train"](script["parser"].parse_args([*needed, "--epochs", "2"]), Progress("test"))
