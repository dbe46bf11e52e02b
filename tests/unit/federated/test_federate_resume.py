"""What a kill loses of federated trainings, and what a divergence leaves."""

import math
from dataclasses import replace

import pytest
import torch
from federated_trainings import (
    RUN,
    SETTINGS,
    SPLITS,
    P,
    assert_same_results,
    assert_same_weights,
    federate,
    place,
    results,
)
from small_federations import examples

from hessketch.errors import InputError
from hessketch.federated import training
from hessketch.federated.job import COLUMNS, FILES, federate_runs
from hessketch.federated.simulation import Simulation
from hessketch.progress import Progress
from hessketch.records import read_metadata
from hessketch.trajectories import read_trajectory


class Killed(Exception):
    pass


class Killer(Progress):
    """Kills a call after so many rounds of all its runs: of the last one nothing but kept weights is saved."""

    def __init__(self, after: int):
        super().__init__("test")
        self.after = after

    def stage(self, name):
        def report(done, total):
            if done >= self.after:
                raise Killed

        return report


def kill(folder, after, **options):
    with pytest.raises(Killed):
        federate(folder, progress=Killer(after), save_every_seconds=0, **options)


FEDERATIONS = {
    "uncompressed": {},
    "count_sketch-x3": {"rows": 2, "decay_factor": 0.1},
    "count_sketch_ef-x3": {"placement": "shift"},
    "count_sketch_ef-x4": {"participation": 0.6, "local_batch_size": 3},
    "top_r-x3": {"participation": 0.6},
    "top_r_ef-x3": {"participation": 0.6, "local_batch_size": 2, "chunk": 2},
    "top_r_ef-x4": {"partition": "dirichlet", "least_examples": 2, "chunk": 1},
    "fetch_sgd-x2": {"fetch_momentum": 0.9, "fetch_rows": 3},
    "fetch_sgd_ef-x2": {"fetch_momentum": 0.5, "fetch_error": "subtract", "fetch_rate": "after", "decay_factor": 0.3},
}  # fmt: skip


@pytest.mark.parametrize(
    ("trainer", "norm"), [*((trainer, "batch") for trainer in FEDERATIONS), (next(iter(FEDERATIONS)), "none")]
)
def test_a_killed_run_ends_with_what_an_uninterrupted_one_has_to_the_last_bit(tmp_path, trainer, norm):
    """Killed in the first round, at a round whose weights are kept, and one round before the end."""
    run, settings = replace(RUN, trainer=trainer, norm=norm), replace(SETTINGS, **FEDERATIONS[trainer])
    losses = [9, 1.05, 1e-9]  # reached at once, midway by most, never
    options = {"runs": [run], "settings": settings, "checkpoint_rounds": [2, 5, 7], "checkpoint_losses": losses}
    federate(tmp_path / "whole", **options)
    for after in (1, 5, 8):
        kill(tmp_path / "killed", after, **options)
        assert not (place(tmp_path / "killed", run) / "record.json").exists()
    (record,) = federate(tmp_path / "killed", **options)
    assert record["resumed_from_round"] == 7 and record["status"] == "finished"
    found, expected = results(tmp_path / "killed", run), results(tmp_path / "whole", run)
    assert_same_results(found, expected)
    kept = [(facts["kind"], facts["round"]) for facts, _ in expected[2][1]]
    assert {("loss", 0), ("round", 2), ("round", 5), ("round", 7)} <= set(kept) and -1 not in kept
    assert not (place(tmp_path / "killed", run) / "partial").exists()


def damage(path):
    path.write_bytes(path.read_bytes()[:-50])


def flip(path):
    """One bit of a number: the structure stays whole."""
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("harm", [damage, flip, lambda path: path.unlink()], ids=["damaged", "flipped", "absent"])
@pytest.mark.parametrize("name", ["resume.safetensors", "checkpoints.safetensors"])
def test_what_is_damaged_or_absent_is_not_resumed_the_run_begins_anew(tmp_path, name, harm):
    options = {"checkpoint_rounds": [2, 6]}
    federate(tmp_path / "whole", **options)
    kill(tmp_path / "killed", 5, **options)
    harm(place(tmp_path / "killed") / "partial" / name)
    (record,) = federate(tmp_path / "killed", **options)
    assert record["resumed_from_round"] == 0
    assert_same_results(results(tmp_path / "killed"), results(tmp_path / "whole"))


@pytest.mark.parametrize(
    "changes",
    [
        {"settings": replace(SETTINGS, local_steps=3)},
        {"settings": replace(SETTINGS, rounds=9)},
        {"checkpoint_rounds": [1]},
        {"checkpoint_losses": [9.0]},
    ],
    ids=["settings", "rounds", "checkpoint rounds", "checkpoint losses"],
)
def test_a_run_with_other_settings_does_not_continue_what_was_begun(tmp_path, changes):
    federate(tmp_path / "whole", **changes)
    kill(tmp_path / "killed", 5)
    (record,) = federate(tmp_path / "killed", **changes)
    assert record["resumed_from_round"] == 0
    assert_same_results(results(tmp_path / "killed"), results(tmp_path / "whole"))


def test_a_killed_call_keeps_the_runs_that_were_finished_and_does_not_train_them_again(tmp_path, monkeypatch):
    runs = [replace(RUN, seed=seed) for seed in range(3)]
    federate(tmp_path / "whole", runs)
    kill(tmp_path / "killed", 8 + 4, runs=runs)
    first, second, third = (place(tmp_path / "killed", run) for run in runs)
    assert {path.name for path in first.iterdir()} == {"partial"}  # nothing is published before all are done
    assert {path.name for path in (first / "partial").iterdir()} == set(FILES)
    assert (second / "partial/resume.safetensors").is_file() and not third.exists()
    rounds, original = [], Simulation.round
    monkeypatch.setattr(Simulation, "round", lambda sim: rounds.append(sim.step) or original(sim))
    records = federate(tmp_path / "killed", runs)
    assert rounds == [*range(3, 8), *range(8)]
    assert [record["resumed_from_round"] for record in records] == [0, 3, 0]
    for run in runs:
        assert_same_results(results(tmp_path / "killed", run), results(tmp_path / "whole", run))
        assert {path.name for path in place(tmp_path / "killed", run).iterdir()} == set(FILES)


def test_finished_runs_of_other_settings_are_trained_again(tmp_path):
    runs = [replace(RUN, seed=seed) for seed in range(2)]
    kill(tmp_path, 8 + 4, runs=runs)
    settings = replace(SETTINGS, local_steps=1)
    records = federate(tmp_path, runs, settings)
    assert [record["settings"]["local_steps"] for record in records] == [1, 1]
    federate(tmp_path / "whole", runs, settings)
    for run in runs:
        assert_same_results(results(tmp_path, run), results(tmp_path / "whole", run))


def test_new_results_replace_older_ones(tmp_path):
    federate(tmp_path, checkpoint_rounds=[1])
    federate(tmp_path, settings=replace(SETTINGS, rounds=2))
    model, rounds, (_, kept) = results(tmp_path)
    assert len(rounds) == 2 and kept == []
    federate(tmp_path / "fresh", settings=replace(SETTINGS, rounds=2))
    assert_same_weights(model, results(tmp_path / "fresh")[0])
    assert {path.name for path in place(tmp_path).iterdir()} == set(FILES)


@pytest.mark.parametrize("trainer", ["uncompressed", "count_sketch_ef-x3", "top_r_ef-x3", "fetch_sgd_ef-x2"])
def test_a_diverged_run_is_a_result_with_its_round_and_the_finite_weights_before_it(tmp_path, trainer):
    run = replace(RUN, trainer=trainer, loss="mean_squared_error", learning_rate=1e6)
    (record,) = federate(tmp_path, [run], checkpoint_rounds=[1, 8], checkpoint_losses=[100.0])
    done = record["rounds"]
    assert record["status"] == "diverged" and record["diverged_at"].startswith(f"round {done + 1}: ") and done < 8
    model, rounds, (_, kept) = results(tmp_path, run)
    assert len(rounds) == done and list(rounds) == [column for column in COLUMNS if column != "seconds"]
    assert rounds["round"].dtype == "int64" and rounds["lift_error"].dtype == "float64"
    assert all(torch.isfinite(tensor).all() for tensor in model.values())
    assert read_metadata(place(tmp_path, run) / "model.safetensors")["status"] == "diverged"
    assert [(facts["kind"], facts["round"]) for facts, _ in kept] == [("loss", 0), ("round", 1)][: 1 + done]
    if done:
        federate(tmp_path / "before", [run], replace(SETTINGS, rounds=done))
        assert_same_weights(model, results(tmp_path / "before", run)[0])


def test_nan_among_the_examples_is_named_and_the_next_run_goes_on(tmp_path):
    train = examples(33, 1, torch.float32)
    train.inputs[7, 0, 1, 1] = math.nan
    broken, sound = replace(RUN, seed=1), RUN
    records = federate_runs(
        [broken, sound],
        lambda run: (train, SPLITS[1]) if run is broken else SPLITS,
        SETTINGS,
        lambda run: place(tmp_path, run),
        device=torch.device("cpu"),
    )
    assert [record["status"] for record in records] == ["diverged", "finished"]
    assert records[0]["diverged_at"] == "round 1: training loss nan" and records[0]["rounds"] == 0


def test_a_killed_run_that_diverges_later_says_the_same_round(tmp_path):
    run = replace(RUN, trainer="top_r_ef-x3", loss="mean_squared_error", learning_rate=3.0)
    options = {"runs": [run], "settings": replace(SETTINGS, rounds=40)}
    (expected,) = federate(tmp_path / "whole", **options)
    assert expected["status"] == "diverged" and expected["rounds"] >= 2
    kill(tmp_path / "killed", expected["rounds"], **options)
    (record,) = federate(tmp_path / "killed", **options)
    assert record["resumed_from_round"] == expected["rounds"] - 1
    assert record["diverged_at"] == expected["diverged_at"]
    assert_same_results(results(tmp_path / "killed", run), results(tmp_path / "whole", run))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"checkpoint_rounds": [3, 9]}, "weights of round 9 asked for; allowed: rounds 1 to 8"),
        ({"checkpoint_rounds": [0]}, "weights of round 0 asked for"),
        ({"runs": [replace(RUN, trainer="count_sketch-x1000")]}, f"{P} parameters; allowed: from 1 to {P};"),
        ({"runs": [replace(RUN, trainer="top_r_ef-x100")]}, f"allowed: from 1 to {P / 2:g}"),
        ({"runs": [replace(RUN, trainer="sgd")]}, "sgd is no federated trainer"),
        ({"settings": replace(SETTINGS, clients=34)}, "34 clients and 33 examples; allowed: at most 33 clients"),
        (
            {"settings": replace(SETTINGS, clients=16, partition="dirichlet", alpha=0.01, least_examples=2)},
            "allowed: at least 2; choose a larger alpha",
        ),
        (
            {"settings": replace(SETTINGS, clients=33), "runs": [replace(RUN, norm="batch")]},
            "batch norm over a single example",
        ),
    ],
)
def test_what_cannot_be_trained_is_refused_with_the_allowed_range_and_nothing_is_written(tmp_path, options, message):
    with pytest.raises(InputError) as refused:
        federate(tmp_path, **options)
    assert message in str(refused.value)
    assert not list(tmp_path.iterdir())


def test_progress_counts_the_rounds_of_all_runs(tmp_path, monkeypatch):
    told = []
    progress = Progress("test")
    monkeypatch.setattr(progress, "stage", lambda name: lambda done, total: told.append((done, total)))
    federate(tmp_path, [RUN, replace(RUN, seed=1, learning_rate=1e30)], progress=progress)
    assert told[:8] == [(done, 16) for done in range(1, 9)] and told[-1] == (16, 16)


def test_states_are_saved_no_more_often_than_asked(tmp_path, monkeypatch):
    saved, original = [], training.save_state
    monkeypatch.setattr(training, "save_state", lambda *args: saved.append(args[1].step) or original(*args))
    federate(tmp_path / "often", save_every_seconds=0)
    assert saved == list(range(1, 9))
    federate(tmp_path / "seldom", save_every_seconds=3600)
    assert len(saved) == 8


def test_one_round_may_reach_several_losses(tmp_path):
    run = replace(RUN, trainer="uncompressed")
    federate(tmp_path, [run], checkpoint_losses=[50.0, 40.0, 50.0])
    _, kept = read_trajectory(place(tmp_path, run) / "checkpoints.safetensors")
    assert [(facts["target_loss"], facts["round"]) for facts, _ in kept] == [(50.0, 0), (40.0, 0)]
    assert_same_weights(kept[0][1], kept[1][1])


def test_a_run_whose_last_round_ruins_it_has_diverged(tmp_path):
    run = replace(RUN, trainer="uncompressed", learning_rate=1e4)
    (record,) = federate(tmp_path, [run], replace(SETTINGS, rounds=1))
    assert record["status"] == "diverged" and record["rounds"] == 1
    assert record["diverged_at"].startswith("round 1: training loss")


@pytest.mark.parametrize("target", [-1.0, 0.0, float("nan"), float("inf")])
def test_losses_that_no_training_reaches_are_refused(tmp_path, target):
    with pytest.raises(InputError, match="allowed: numbers above 0"):
        federate(tmp_path, checkpoint_losses=[1.0, target])
    assert not list(tmp_path.rglob("*"))
