"""Followed runs from identities to files: what is written, what runs share, what a kill loses."""

import math
import runpy
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from hessketch.checkpoints import Architecture
from hessketch.curvature.losses import LOSSES, evaluation
from hessketch.data.of_run import examples_of_run
from hessketch.data.prepared import prepare_dataset
from hessketch.errors import InputError
from hessketch.networks.registry import network_of
from hessketch.progress import Progress
from hessketch.records import read_record, read_table, write_tensors
from hessketch.runs import Run
from hessketch.training import trajectories
from hessketch.training.trajectories import FILES, follow_runs, seeds_of
from hessketch.training.trajectory import TrajectorySettings, steps_of_epochs
from hessketch.trajectories import read_trajectory

RUN = Run("digits-8x8", 0.0, 4, "mlp", "none", 0.02, "cross_entropy", "sgd-b9", 0.05, 0)
SETTINGS = TrajectorySettings(learning_rate=123, steps=12, batch_size=7)  # rate and batches are the run's own
KEPT = [0, 3, 12]


@pytest.fixture(scope="module")
def data():
    """Prepared data by name, made when asked for."""
    made = {}

    def prepared(name):
        if name not in made:
            made[name] = prepare_dataset(name, "absent")
        return made[name]

    return prepared


@pytest.fixture
def training(data, tmp_path):
    return lambda *runs, folder="", **options: trained(data, tmp_path / folder, runs or (RUN,), **options)


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


class Said(Progress):
    """What is said of trainings."""

    def __init__(self):
        super().__init__("said")
        self.lines = []

    def say(self, text):
        self.lines.append(text)


def kill(training, *runs, number=1, step=5, **options):
    with pytest.raises(Killed):
        training(*runs, progress=Killer(number, step), save_every_seconds=0, **options)


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
