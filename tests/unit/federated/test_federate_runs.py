"""Federated runs from examples to files: what is written, what a kill loses, what a divergence leaves."""

import math
from dataclasses import asdict, replace

import pytest
import torch
from small_federations import examples

from hessketch.checkpoints import Architecture, read_architecture
from hessketch.curvature.losses import cross_entropy, mean_loss_and_accuracy
from hessketch.errors import InputError
from hessketch.federated import job
from hessketch.federated.job import COLUMNS, FILES, federate_runs, seeds_of
from hessketch.federated.settings import FederatedSettings
from hessketch.federated.simulation import Simulation
from hessketch.networks.registry import build_network
from hessketch.progress import Progress
from hessketch.records import read_metadata, read_record, read_table, read_tensors
from hessketch.runs import Run
from hessketch.trajectories import read_trajectory

RUN = Run("digits", 0.0, 8, "mlp", "none", 0.02, "cross_entropy", "count_sketch-x3", 0.3, 0)
SETTINGS = FederatedSettings(clients=5, rounds=8, local_steps=2)
SPLITS = examples(33, 1, torch.float32), examples(21, 2, torch.float32)
P = 16 * 5 + 5 + 5 * 5 + 5 + 5 * 3 + 3


def federate(folder, runs=(RUN,), settings=SETTINGS, splits=SPLITS, **options):
    """Records of runs, each in a folder named after its trainer, norm and seed."""
    return federate_runs(
        list(runs), lambda _: splits, settings, lambda run: place(folder, run), device=torch.device("cpu"), **options
    )


def place(folder, run=RUN):
    return folder / f"{run.trainer}-{run.norm}-{run.seed}"


def results(folder, run=RUN):
    """Everything of a run that must not depend on when it was killed."""
    output = place(folder, run)
    return (
        read_tensors(output / "model.safetensors")[0],
        read_table(output / "rounds.parquet").drop(columns="seconds"),
        read_trajectory(output / "checkpoints.safetensors"),
    )


def assert_same_results(found, expected):
    """To the last bit."""
    assert_same_weights(found[0], expected[0])
    assert found[1].equals(expected[1])
    (architecture, kept), (other, others) = found[2], expected[2]
    assert architecture == other and [facts for facts, _ in kept] == [facts for facts, _ in others]
    for (_, state), (_, wanted) in zip(kept, others, strict=True):
        assert_same_weights(state, wanted)


def assert_same_weights(found, expected):
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


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


def test_the_same_run_twice_gives_the_same_files_whatever_the_global_generator(tmp_path):
    torch.manual_seed(1)
    federate(tmp_path / "a")
    torch.manual_seed(2)
    federate(tmp_path / "b")
    assert_same_results(results(tmp_path / "a"), results(tmp_path / "b"))


def test_the_rounds_have_their_columns_and_the_test_set_is_evaluated_twenty_times(tmp_path):
    (record,) = federate(tmp_path, settings=replace(SETTINGS, rounds=50, local_steps=1))
    rounds = read_table(place(tmp_path) / "rounds.parquet")
    kinds = dict.fromkeys(COLUMNS, "float64") | {"round": "int64", "participants": "int64"}
    assert {name: str(kind) for name, kind in rounds.dtypes.items()} == kinds and list(rounds) == list(COLUMNS)
    assert rounds["round"].tolist() == list(range(1, 51))
    evaluated = rounds.dropna(subset="test_accuracy")
    assert len(evaluated) == 20 and evaluated["round"].iloc[-1] == 50
    assert evaluated["round"].diff().dropna().isin([2, 3]).all()
    assert evaluated["test_loss"].notna().all() and rounds["test_loss"].notna().sum() == 20
    assert (evaluated["test_accuracy"].iloc[-1], evaluated["test_loss"].iloc[-1]) == (
        record["test_accuracy"], record["test_loss"],
    )  # fmt: skip
    assert rounds["train_loss"].iloc[-1] < rounds["train_loss"].iloc[0]
    assert (rounds["server_rate"] == 1).all() and (rounds["participants"] == 5).all() and (rounds["seconds"] > 0).all()
    assert (rounds["error_norm"] == 0).all()
    assert rounds["lift_error_theory"].tolist() == pytest.approx([(P - 1) / (P // 3)] * 50)


def test_with_fewer_than_twenty_rounds_all_are_evaluated(tmp_path):
    federate(tmp_path, settings=replace(SETTINGS, rounds=7))
    assert read_table(place(tmp_path) / "rounds.parquet")["test_loss"].notna().all()


def test_the_record_says_what_was_trained_what_was_sent_and_how_to_repeat_it(tmp_path):
    runs = [replace(RUN, trainer=trainer) for trainer in ("count_sketch_ef-x3", "uncompressed", "top_r-x3")]
    sketched, whole, sparse = records = federate(tmp_path, runs)
    for run, record in zip(runs, records, strict=True):
        assert record == read_record(place(tmp_path, run) / "record.json")
        assert Run.from_path(record["run"]) == run and record["identity"] == asdict(run)
        assert (record["status"], record["diverged_at"], record["rounds"], record["epochs"]) == ("finished", None, 8, 8)
        assert (record["n"], record["p"], record["classes"], record["clients"]) == (33, P, 3, 5)
        assert sorted(record["client_examples"]) == [6, 6, 7, 7, 7] and record["participants"] == 5
        assert FederatedSettings(**record["settings"]) == replace(SETTINGS, learning_rate=0.3)
        assert record["environment"]["device"] == "cpu" and record["processes"] == 1
        assert sum(math.prod(shape) for shape in record["parameter_order"].values()) == P
        assert record["wall_seconds"] > 0 and record["peak_memory_mib"] > 0
        rounds = read_table(place(tmp_path, run) / "rounds.parquet")
        for column in ("upload_bytes", "download_bytes"):
            assert record[column] == pytest.approx(rounds[column].mean(), rel=1e-12)
        stored, metadata = read_tensors(place(tmp_path, run) / "model.safetensors")
        assert metadata["run"] == run.path and metadata["status"] == "finished"
        assert read_architecture(place(tmp_path, run) / "model.safetensors") == Architecture(
            "mlp", (1, 4, 4), 3, 0.02, "none"
        )
        model = build_network("mlp", input_shape=(1, 4, 4), classes=3, width=0.02, norm="none")
        model.load_state_dict(stored)
        for split, examples_of_split in zip(("train", "test"), SPLITS, strict=True):
            found = mean_loss_and_accuracy(model, cross_entropy, examples_of_split.batches(1000))
            assert found == (record[f"{split}_loss"], record[f"{split}_accuracy"])
    named = [(r["method"], r["error_feedback"], r["reduction"], r["upload_numbers"]) for r in records]
    r = int(P / 6)
    assert named == [("count_sketch", True, 3, P // 3), ("uncompressed", False, None, P), ("top_r", False, 3, r)]
    assert whole["reduction_numbers"] == 1 and whole["upload_bytes"] == 4 * P + 10
    assert sparse["reduction_numbers"] == P / r and sketched["reduction_numbers"] == P / (P // 3)
    assert sparse["reduction_bytes"] == (4 * P + 10) / (8 * r + 19)
    assert sketched["reduction_bytes"] == (4 * P + 10) / (4 * (P // 3) + 10)


def test_methods_and_rates_share_clients_and_first_weights_but_no_hashes():
    seeds, others = seeds_of(RUN), [replace(RUN, trainer="top_r_ef-x10"), replace(RUN, learning_rate=0.1)]
    for other in map(seeds_of, others):
        assert {key: value for key, value in other.items() if value != seeds[key]}.keys() == {"hashes"}
    another = seeds_of(replace(RUN, seed=1))
    assert all(another[key] != value for key, value in seeds.items()) and len(set(seeds.values())) == 4


def test_each_run_has_its_own_rate_and_first_losses_agree_between_methods(tmp_path):
    runs = [replace(RUN, trainer="uncompressed"), replace(RUN, trainer="top_r-x3", learning_rate=0.05)]
    records = federate(tmp_path, runs)
    assert [record["settings"]["learning_rate"] for record in records] == [0.3, 0.05]
    first = [read_table(place(tmp_path, run) / "rounds.parquet")["train_loss"].iloc[0] for run in runs]
    assert first[0] == first[1]


@pytest.mark.parametrize("norm", ["none", "batch"])
def test_weights_kept_by_rounds_are_those_of_a_run_that_stops_there(tmp_path, norm):
    run = replace(RUN, norm=norm)
    federate(tmp_path / "whole", [run], checkpoint_rounds=[3, 8])
    architecture, kept = read_trajectory(place(tmp_path / "whole", run) / "checkpoints.safetensors")
    assert architecture == Architecture("mlp", (1, 4, 4), 3, 0.02, norm)
    (third, state), (last, final) = kept
    (short,) = federate(tmp_path / "short", [run], replace(SETTINGS, rounds=3))
    assert third == {"kind": "round", "round": 3, "train_loss": short["train_loss"], "target_loss": None}
    assert_same_weights(state, results(tmp_path / "short", run)[0])
    assert last["round"] == 8
    assert_same_weights(final, results(tmp_path / "whole", run)[0])


def test_weights_kept_by_losses_are_the_first_at_or_below_each_and_none_where_it_is_not_reached(tmp_path):
    run = replace(RUN, trainer="uncompressed")
    (record,) = federate(tmp_path / "plain", [run])
    losses = [*read_table(place(tmp_path / "plain", run) / "rounds.parquet")["train_loss"], record["train_loss"]]
    assert losses == sorted(losses, reverse=True)
    targets = [1e-9, (losses[3] + losses[2]) / 2, losses[0] + 1, losses[5], losses[8]]
    federate(tmp_path / "kept", [run], checkpoint_losses=targets)
    _, kept = read_trajectory(place(tmp_path / "kept", run) / "checkpoints.safetensors")
    expected = [(targets[2], 0), (targets[1], 3), (targets[3], 5), (targets[4], 8)]
    for (facts, state), (target, done) in zip(kept, expected, strict=True):
        assert facts == {"kind": "loss", "round": done, "train_loss": losses[done], "target_loss": target}
        if done:
            (stopped,) = federate(tmp_path / f"stop{done}", [run], replace(SETTINGS, rounds=done))
            assert stopped["train_loss"] == pytest.approx(losses[done], rel=1e-6)
            assert_same_weights(state, results(tmp_path / f"stop{done}", run)[0])
    untrained = build_network(
        "mlp", input_shape=(1, 4, 4), classes=3, width=0.02, norm="none", seed=record["seeds"]["initialisation"]
    )
    assert_same_weights(kept[0][1], untrained.state_dict())


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
    saved, original = [], job.save_state
    monkeypatch.setattr(job, "save_state", lambda *args: saved.append(args[1].step) or original(*args))
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
