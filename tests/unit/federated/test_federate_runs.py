"""Federated trainings to files: tables, records, weights that are kept."""

import math
from dataclasses import asdict, replace

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

from hessketch.checkpoints import Architecture, read_architecture
from hessketch.curvature.losses import cross_entropy, mean_loss_and_accuracy
from hessketch.federated.job import COLUMNS, seeds_of
from hessketch.federated.settings import FederatedSettings
from hessketch.networks.registry import build_network
from hessketch.records import read_record, read_table, read_tensors
from hessketch.runs import Run
from hessketch.trajectories import read_trajectory


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
