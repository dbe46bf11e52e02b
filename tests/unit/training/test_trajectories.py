"""Followed trainings to files: records, histories, trajectories, seeds, switches."""

import math
from dataclasses import asdict, replace

import pytest
import torch
from followed_runs_cases import KEPT, RUN, SETTINGS, assert_equal, assert_same, kill, trajectory

from hessketch.checkpoints import Architecture
from hessketch.curvature.losses import LOSSES, evaluation
from hessketch.data.of_run import examples_of_run
from hessketch.errors import InputError
from hessketch.networks.registry import network_of
from hessketch.records import read_record, read_table
from hessketch.runs import Run
from hessketch.training.trajectories import FILES, seeds_of
from hessketch.training.trajectory import TrajectorySettings, steps_of_epochs


def test_a_run_leaves_its_files_and_a_record_that_says_how_to_repeat_it(training, tmp_path):
    (record,) = training()
    folder = tmp_path / RUN.path
    assert {path.name for path in folder.iterdir()} == set(FILES)
    assert record == read_record(folder / "record.json")
    assert Run.from_path(record["run"]) == RUN and record["identity"] == asdict(RUN)
    settings = TrajectorySettings(**record["settings"])
    assert settings == replace(SETTINGS, learning_rate=0.05, batch_size=9) and record["learning_rate"] == 0.05
    assert (record["status"], record["diverged_at"], record["resumed_from_step"]) == ("finished", None, 0)
    # 40 examples in batches of 9, 9, 9, 9 and 4
    assert (record["steps"], record["epochs"]) == (12, pytest.approx(2 + 18 / 40, rel=1e-12))
    assert (record["n"], record["classes"], record["batch_size"]) == (40, 10, 9)
    assert record["p"] == 64 * 5 + 5 + 5 * 5 + 5 + 5 * 10 + 10
    assert sum(math.prod(shape) for shape in record["parameter_order"].values()) == record["p"]
    assert set(record["seeds"]) == {"subset", "initialisation", "batch order"}
    assert record["environment"]["device"] == "cpu" and record["wall_seconds"] > 0 and record["peak_memory_mib"] > 0


def test_history_has_its_columns_and_ends_with_what_the_record_says(training, tmp_path):
    (record,) = training()
    history = read_table(tmp_path / RUN.path / "history.parquet")
    kinds = dict.fromkeys(history, "float64") | {"step": "int64"}
    assert {name: str(kind) for name, kind in history.dtypes.items()} == kinds
    assert list(history) == [
        "step", "epoch", "learning_rate", "train_loss", "train_accuracy", "test_loss", "test_accuracy", "seconds",
    ]  # fmt: skip
    assert history["step"].tolist() == list(range(13)) and set(history["learning_rate"]) == {0.05}
    for name in ("train_loss", "train_accuracy", "test_loss", "test_accuracy"):
        assert history[name].iloc[-1] == record[name]
    assert history["train_loss"].iloc[-1] < history["train_loss"].iloc[0]


def test_the_trajectory_reads_back_with_facts_that_its_weights_have(training, data, tmp_path):
    (record,) = training()
    architecture, kept = trajectory(tmp_path)
    assert architecture == Architecture("mlp", (1, 8, 8), 10, 0.02, "none")
    assert [facts["step"] for facts, _ in kept] == KEPT
    assert set(kept[0][0]) == {"step", "epoch", "train_loss", "train_accuracy", "test_loss", "test_accuracy"}
    splits = {
        name: examples_of_run(RUN, data(RUN.dataset), name, size).batches(1000)
        for name, size in (("train", 4), ("test", 3))
    }
    for facts, state in kept:
        model = network_of(architecture)
        model.load_state_dict(state)
        found = evaluation(model.eval(), LOSSES["cross_entropy"], **splits)
        assert found == {name: facts[name] for name in found}
    assert_equal(kept[0][1], network_of(architecture, record["seeds"]["initialisation"]).state_dict())
    assert [facts["epoch"] for facts, _ in kept] == pytest.approx([0, 27 / 40, 2 + 18 / 40], rel=1e-12)


def test_the_same_run_twice_gives_the_same_files_whatever_the_global_generator(training, tmp_path):
    for seed, folder in enumerate("ab"):
        torch.manual_seed(seed)
        training(folder=folder)
    assert_same(tmp_path / "a", tmp_path / "b")


def test_runs_of_a_seed_start_from_one_point_whatever_their_noise_batches_size_and_rate(training, tmp_path):
    same = [
        RUN,
        replace(RUN, label_noise=0.3),
        replace(RUN, trainer="sgd-full"),
        replace(RUN, examples_per_class=6),
        replace(RUN, learning_rate=0.1),
    ]
    seeds, width = replace(RUN, seed=1), replace(RUN, width=0.04)
    training(*same, seeds, width)
    start = {run: trajectory(tmp_path, run)[1][0][1] for run in [*same, seeds, width]}
    for run in same:
        assert_equal(start[run], start[RUN])
    assert not torch.equal(start[seeds]["1.weight"], start[RUN]["1.weight"])
    assert start[width]["1.weight"].shape != start[RUN]["1.weight"].shape
    ends = [trajectory(tmp_path, run)[1][-1][1]["1.weight"] for run in same]
    assert all(not torch.equal(a, b) for i, a in enumerate(ends) for b in ends[:i])


def test_seeds_of_runs_differ_in_nothing_but_what_must_differ():
    seeds = seeds_of(RUN)
    assert len(set(seeds.values())) == 3

    def changed(**changes):
        return {name for name, value in seeds_of(replace(RUN, **changes)).items() if value != seeds[name]}

    order = {"batch order"}
    for changes in ({"label_noise": 0.1}, {"trainer": "sgd-full"}, {"learning_rate": 1.0}, {"examples_per_class": 5}):
        assert changed(**changes) == order
    assert changed(trainer="sgd-b9-b3") == set()  # up to the switch they are one training
    assert changed(trainer="sgd-b8-b9") == order
    for changes in ({"width": 0.04}, {"norm": "batch"}, {"loss": "mean_squared_error"}):
        assert changed(**changes) == order | {"initialisation"}
    for changes in ({"seed": 1}, {"dataset": "digits"}):
        assert changed(**changes) == set(seeds)


def test_up_to_its_switch_a_run_is_that_of_its_first_batch_size_to_the_last_bit(training, tmp_path):
    switched, kept = replace(RUN, trainer="sgd-b9-b3"), [0, 3, 7, 8, 12]
    settings = replace(SETTINGS, switch_step=7)
    plain, record = training(RUN, switched, settings=settings, kept=kept)
    states = [[state for _, state in trajectory(tmp_path, run)[1]] for run in (RUN, switched)]
    for first, second in list(zip(*states, strict=True))[:3]:
        assert_equal(second, first)
    for first, second in list(zip(*states, strict=True))[3:]:
        assert not torch.equal(second["1.weight"], first["1.weight"])
    assert record["epochs"] == pytest.approx(1 + 18 / 40 + 15 / 40)  # 9, 9, 9, 9 and 4, then two of 9 and five of 3
    # A switch is of runs that have one: the other is what it would be without.
    assert (plain["settings"]["switch_step"], plain["settings"]["later_batch_size"]) == (0, 0)
    assert (record["settings"]["switch_step"], record["settings"]["later_batch_size"]) == (7, 3)
    assert TrajectorySettings(**record["settings"]).batch_size == 9
    training(RUN, folder="alone", kept=kept)
    assert_same(tmp_path, tmp_path / "alone")


@pytest.mark.parametrize("step", [5, 9])
def test_a_run_killed_before_or_after_its_switch_ends_with_the_files_of_an_uninterrupted_one(training, tmp_path, step):
    run, settings = replace(RUN, trainer="sgd-full-b3"), replace(SETTINGS, switch_step=7, momentum=0.9)
    training(run, folder="whole", settings=settings)
    kill(training, run, folder="killed", step=step, settings=settings)
    (record,) = training(run, folder="killed", settings=settings)
    assert record["resumed_from_step"] == step
    assert_same(tmp_path / "killed", tmp_path / "whole", run)


def test_a_run_with_two_batch_sizes_and_no_switch_is_refused(training):
    run = replace(RUN, trainer="sgd-b9-b3")
    with pytest.raises(InputError, match=r"sgd-b9-b3/.*: switch_step: 0 given; .* of 3, from 1 to 11"):
        training(run)


def test_two_classes_take_one_output_where_the_loss_does_and_learn_with_it(training, tmp_path):
    run = replace(RUN, dataset="digits-classes3+8-8x8", examples_per_class=20, trainer="sgd-full", width=0.05)
    losses = ("binary_cross_entropy", "mean_squared_error", "sigmoid_squared_error", "cross_entropy")
    runs = [
        replace(run, loss=loss, learning_rate=rate) for loss, rate in zip(losses, (0.1, 0.03, 0.3, 0.1), strict=True)
    ]
    records = training(*runs, settings=replace(SETTINGS, steps=150), kept=[0, 150])
    outputs = [trajectory(tmp_path, run)[0].classes for run in runs]
    assert outputs == [1, 1, 1, 2]
    assert [record["classes"] for record in records] == [2] * 4
    assert records[3]["p"] - records[0]["p"] == 13 + 1  # the last layer's weights and bias
    for record in records:
        assert record["train_accuracy"] == 1 and record["test_accuracy"] >= 4 / 6, record["run"]


def test_settings_may_follow_from_a_runs_own_examples(training, tmp_path):
    """As the study of predictor Hessians counts in epochs."""
    runs = [RUN, replace(RUN, trainer="sgd-full"), replace(RUN, examples_per_class=2)]

    def settings(run, train):
        size = 9 if run.trainer == "sgd-b9" else 0
        steps = [steps_of_epochs(epochs, len(train), size) for epochs in (0, 1, 3)]
        return replace(SETTINGS, steps=steps[-1]), steps

    records = training(*runs, settings=settings)
    assert [record["steps"] for record in records] == [15, 3, 9]  # 40 examples are 5 batches, 20 are 9, 9 and 2
    for run in runs:
        assert [facts["epoch"] for facts, _ in trajectory(tmp_path, run)[1]] == [0, 1, 3]
