"""From trajectories to tables: what is measured where, what every row starts with, what a kill loses."""

import math
import re
import runpy
from dataclasses import dataclass, replace
from pathlib import Path

import pandas
import pytest
import torch

from hessketch import waiting_tables
from hessketch.data.followed_runs import Followed
from hessketch.data.of_run import examples_of_run
from hessketch.data.prepared import prepare_dataset
from hessketch.dynamics import job
from hessketch.dynamics.eigenspaces import OPERATORS, eigenspaces
from hessketch.dynamics.generalization_bound import BOUNDS, generalization_bounds
from hessketch.dynamics.generalization_bound import SIGMAS as SIGMAS_OF_THE_PACKAGE
from hessketch.dynamics.job import TABLES, DynamicsSettings, measure_runs
from hessketch.dynamics.loss_change import LOSS_CHANGES, loss_changes
from hessketch.errors import InputError, NotFiniteError
from hessketch.networks.registry import network_of
from hessketch.progress import Progress
from hessketch.records import read_record, read_table
from hessketch.runs import IDENTITY, Run
from hessketch.training.trajectories import follow_runs
from hessketch.training.trajectory import TrajectorySettings
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
COLUMNS = {
    "eigenvalues": ["operator", "rank", "eigenvalue"],
    "curvature": [
        "operator", "exact", "trace", "trace_standard_error", "largest_eigenvalue", "smallest_eigenvalue",
        "negative_share", "near_zero_share",
    ],
    "overlaps": ["first", "second", "k", "overlap", "chance"],
    "angles": ["first", "second", "index", "angle"],
    "loss_changes": list(LOSS_CHANGES),
    "bounds": list(BOUNDS),
}  # fmt: skip
ROWS = {"eigenvalues": 3 * 3, "curvature": 3, "overlaps": 3 * 3, "angles": 3 * 3, "loss_changes": 3}  # a checkpoint


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


@pytest.fixture(scope="module")
def trainings(tmp_path_factory) -> Trainings:
    made = Trainings(tmp_path_factory.mktemp("trajectories"), prepare_dataset("digits-4x4", "absent"))
    follow_runs(
        [RUN, NOISY, FULL, LARGER, WILD, WILD_LARGER, WILDEST, replace(RUN, seed=1)],
        lambda run: (made.examples(run, "train"), made.examples(run, "test")),
        lambda run, train: (TrajectorySettings(steps=40), KEPT),
        lambda run: made.folder / run.path,
        device=torch.device("cpu"),
    )
    return made


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


@pytest.fixture(scope="module")
def measured(trainings, tmp_path_factory) -> tuple[dict, dict]:
    """Tables and record of a job with three runs that are followed, one that is not, and one that diverged."""
    output = tmp_path_factory.mktemp("measured")
    record = measure(trainings, [RUN, NOISY, FULL, LARGER, WILD], output)
    return read(output), record


def of(table, run):
    rows = table
    for name, value in run.identity().items():
        rows = rows[rows[name] == value]
    return rows


def test_the_tables_have_the_columns_of_a_point_and_then_their_own(measured):
    for name, table in measured[0].items():
        assert list(table) == [*POINT, *COLUMNS[name]], name
        kinds = {column: str(table[column].dtype) for column, kind in POINT.items() if kind}
        assert kinds == {column: kind for column, kind in POINT.items() if kind}
        assert {str(table[column].dtype) for column in ("label_noise", "width", "learning_rate")} == {"float64"}
        for column in ("rank", "k", "index", "samples", "active"):
            assert column not in table or table[column].dtype == "int64"
        for column in ("exact", "chosen"):
            assert column not in table or table[column].dtype == "bool"


def test_every_row_starts_with_its_run_and_its_checkpoint(measured, trainings):
    for run in (RUN, NOISY, FULL, LARGER):
        _, kept = read_trajectory(trainings.folder / run.path / "trajectory.safetensors")
        facts = {own["step"]: own for own, _ in kept}
        n = 10 * run.examples_per_class
        for name, table in measured[0].items():
            rows = of(table, run)
            assert len(rows) or (run == LARGER and name != "bounds")
            for _, row in rows.iterrows():
                assert {fact: row[fact] for fact in facts[row["step"]]} == facts[row["step"]]
            assert set(rows["n"]) <= {n} and set(rows["p"]) <= {P} and set(rows["classes"]) <= {10}
            assert set(rows["batch_size"]) <= {n if run == FULL else 10}


def test_runs_that_are_followed_have_rows_at_each_checkpoint_and_others_their_bound_alone(measured, trainings):
    tables, _ = measured
    wild = [facts["step"] for facts, _ in trainings.followed(WILD).checkpoints]
    assert 0 in wild and 40 not in wild
    for name, rows in ROWS.items():
        counts = tables[name].groupby([*IDENTITY, "step"], sort=False).size()
        assert set(counts) == {rows}, name
        for run in (RUN, NOISY, FULL):
            assert of(tables[name], run)["step"].unique().tolist() == KEPT
        assert of(tables[name], LARGER).empty
        assert of(tables[name], WILD)["step"].unique().tolist() == wild
    for run in (RUN, NOISY, FULL, LARGER):
        rows = of(tables["bounds"], run)
        assert rows["step"].tolist() == [40, 40] and rows["sigma"].tolist() == list(SIGMAS)
        assert rows["chosen"].sum() == 1
    assert of(tables["bounds"], WILD).empty


def test_which_runs_are_followed_is_the_callers_to_say(trainings, tmp_path):
    measure(trainings, [RUN, LARGER], tmp_path, along=lambda run: run == LARGER)
    tables = read(tmp_path)
    assert set(tables["eigenvalues"]["examples_per_class"]) == {6}
    assert set(tables["bounds"]["examples_per_class"]) == {4, 6}


def network(followed, number):
    model = network_of(followed.architecture)
    model.load_state_dict(dict(followed.checkpoints[number][1]))
    return model.eval()


def test_what_is_measured_is_of_the_weights_that_were_kept(measured, trainings, monkeypatch):
    """Against the measuring functions called by hand, with the seed that the job gives them."""
    tables, seeds = measured[0], []
    monkeypatch.setattr(job, "loss_changes", lambda *a, **k: seeds.append(k["seed"]) or loss_changes(*a, **k))
    one = trainings.followed(NOISY)
    job._Measuring(one, SETTINGS, SIGMAS, torch.device("cpu"), None, Progress("test")).tables(True)
    seed = seeds[0]
    model = network(one, 1)
    middle = eigenspaces(model, NOISY.loss, one.train, 3, seed=seed, exact_up_to=500)
    middle["loss_changes"] = loss_changes(
        model, NOISY.loss, one.train, batch_size=10, learning_rate=0.02, samples=40, bound_probability=0.05, seed=seed,
        exact=job.exact_curvature(model, NOISY.loss, one.train),
    )  # fmt: skip
    for name, expected in middle.items():
        rows = of(tables[name], NOISY)
        found = rows[rows["step"] == 5][COLUMNS[name]].reset_index(drop=True)
        pandas.testing.assert_frame_equal(found, expected, check_exact=False, rtol=1e-9)
    last = network(one, 2)
    expected = generalization_bounds(
        last, one.checkpoints[0][1], NOISY.loss, one.train, one.test, sigmas=SIGMAS, confidence=0.95,
        posterior_samples=20, exact=job.exact_curvature(last, NOISY.loss, one.train), seed=seed,
    )  # fmt: skip
    found = of(tables["bounds"], NOISY)[COLUMNS["bounds"]].reset_index(drop=True)
    pandas.testing.assert_frame_equal(found, expected, check_exact=False, rtol=1e-9)


def test_steps_are_the_runs_own(measured):
    """Its rate, and its batches: with all examples in a step nothing varies."""
    changes = measured[0]["loss_changes"]
    fixed = changes[changes["scheme"] == "fixed"].set_index("trainer")
    assert set(fixed["step_size"]) == {0.02, 1e4}
    assert (fixed.loc["sgd-full", "standard_deviation"] < 1e-12).all()
    assert (fixed.loc["sgd-b10", "standard_deviation"] > 1e-4).all()
    assert (changes["samples"] == 40).all()


def test_the_error_of_a_bound_is_that_of_the_last_weights(measured):
    bounds = measured[0]["bounds"]
    assert bounds["train_error"].tolist() == pytest.approx((1 - bounds["train_accuracy"]).tolist())
    assert bounds["test_error"].tolist() == pytest.approx((1 - bounds["test_accuracy"]).tolist())
    assert (bounds["confidence"] == 0.95).all() and (bounds["diagonal"] == "exact").all()


def test_the_record_names_the_runs_in_their_order(measured):
    _, record = measured
    assert [one["run"] for one in record["measured"]] == [run.path for run in (RUN, NOISY, FULL, LARGER, WILD)]
    assert DynamicsSettings(**record["settings"]) == SETTINGS and record["sigmas"] == list(SIGMAS)
    assert record["environment"]["device"] == "cpu" and record["wall_seconds"] > 0


def test_runs_that_differ_in_noise_or_batches_share_the_seed_of_their_samples_and_repetitions_do_not(
    trainings, tmp_path, monkeypatch
):
    seeds = []
    monkeypatch.setattr(job, "loss_changes", lambda *a, **k: seeds.append(k["seed"]) or loss_changes(*a, **k))
    measure(trainings, [RUN, NOISY, FULL, replace(RUN, seed=1)], tmp_path)
    assert len(set(seeds[:9])) == 1 and len(set(seeds[9:])) == 1 and seeds[0] != seeds[9]


def test_the_same_job_twice_gives_the_same_tables_whatever_the_global_generator(trainings, tmp_path):
    for seed, name in enumerate("ab"):
        torch.manual_seed(seed)
        measure(trainings, [RUN, LARGER], tmp_path / name)
    assert_same(read(tmp_path / "a"), read(tmp_path / "b"))


class Killed(Exception):
    pass


def dying(function, calls, after):
    """Counts the calls of a measuring function by run, and raises after so many of them."""

    def measure(*arguments, **options):
        calls.append(arguments[1:3])
        if len(calls) > after:
            raise Killed
        return function(*arguments, **options)

    return measure


@pytest.mark.parametrize("after", [1, 7])
def test_a_killed_job_goes_on_with_the_run_that_was_not_finished(trainings, tmp_path, monkeypatch, after):
    runs = [RUN, NOISY, FULL]
    measure(trainings, runs, tmp_path / "whole")
    monkeypatch.setattr(job, "loss_changes", dying(loss_changes, [], after))
    with pytest.raises(Killed):
        measure(trainings, runs, tmp_path / "killed")
    assert not list((tmp_path / "killed").glob("*.parquet"))
    calls = []
    monkeypatch.setattr(job, "loss_changes", dying(loss_changes, calls, math.inf))
    record = measure(trainings, runs, tmp_path / "killed")
    assert len(calls) == 3 * (3 - after // 3)
    assert_same(read(tmp_path / "killed"), read(tmp_path / "whole"))
    assert len(record["measured"]) == 3


def test_a_kill_between_the_tables_of_a_run_counts_it_as_unfinished(trainings, tmp_path, monkeypatch):
    write, written = waiting_tables.write_table, []

    def die(table, path):
        written.append(path)
        if len(written) == 4:
            raise Killed
        write(table, path)

    monkeypatch.setattr(waiting_tables, "write_table", die)
    with pytest.raises(Killed):
        measure(trainings, [RUN], tmp_path / "killed")
    monkeypatch.setattr(waiting_tables, "write_table", write)
    measure(trainings, [RUN], tmp_path / "killed")
    measure(trainings, [RUN], tmp_path / "whole")
    assert_same(read(tmp_path / "killed"), read(tmp_path / "whole"))


@pytest.mark.parametrize(
    "changes",
    [
        {"settings": replace(SETTINGS, samples=41)},
        {"sigmas": (0.1, 2.0)},
        {"along": lambda run: False},
    ],
    ids=["settings", "sigmas", "along"],
)
def test_what_was_measured_with_other_settings_is_measured_again(trainings, tmp_path, monkeypatch, changes):
    monkeypatch.setattr(job, "loss_changes", dying(loss_changes, [], 4))
    with pytest.raises(Killed):
        measure(trainings, [RUN, NOISY], tmp_path / "killed")
    monkeypatch.setattr(job, "loss_changes", loss_changes)
    measure(trainings, [RUN, NOISY], tmp_path / "killed", **changes)
    measure(trainings, [RUN, NOISY], tmp_path / "whole", **changes)
    assert_same(read(tmp_path / "killed"), read(tmp_path / "whole"))


def test_other_weights_of_the_same_run_are_another_task(trainings):
    one = trainings.followed(RUN)
    facts, state = one.checkpoints[1]
    moved = {name: tensor + 1e-3 for name, tensor in state.items()}
    other = replace(one, checkpoints=[one.checkpoints[0], (facts, moved), one.checkpoints[2]])
    tasks = [job._task(f, SETTINGS, SIGMAS, True) for f in (one, other, replace(one, finished=False))]
    assert tasks[0] not in tasks[1:] and tasks[1] != tasks[2]
    assert tasks[0] == job._task(trainings.followed(RUN), SETTINGS, SIGMAS, True)


def test_large_networks_go_through_products_to_the_same_eigenvalues(measured, trainings, tmp_path):
    measure(trainings, [RUN], tmp_path, settings=replace(SETTINGS, exact_up_to=P - 1))
    found, exact = read(tmp_path), {name: of(table, RUN).reset_index() for name, table in measured[0].items()}
    assert not found["curvature"]["exact"].any() and exact["curvature"]["exact"].all()
    assert not found["loss_changes"]["exact"].any() and set(found["bounds"]["diagonal"]) == {"estimated"}
    assert found["eigenvalues"]["operator"].unique().tolist() == list(OPERATORS)
    assert found["eigenvalues"]["eigenvalue"].tolist() == pytest.approx(
        exact["eigenvalues"]["eigenvalue"].tolist(), rel=1e-3
    )
    assert found["loss_changes"]["mean"].tolist() == pytest.approx(exact["loss_changes"]["mean"].tolist(), rel=1e-3)


def test_a_run_that_diverged_and_is_not_followed_leaves_nothing_but_its_record(trainings, tmp_path):
    record = measure(trainings, [WILD_LARGER], tmp_path / "alone")
    assert all(len(table) == 0 and list(table) == list(POINT) for table in read(tmp_path / "alone").values())
    assert [one["run"] for one in record["measured"]] == [WILD_LARGER.path]
    measure(trainings, [WILD_LARGER, RUN], tmp_path / "both")
    measure(trainings, [RUN], tmp_path / "one")
    assert_same(read(tmp_path / "both"), read(tmp_path / "one"))


def test_what_a_diverged_run_does_not_allow_is_left_out_with_the_reason_and_other_runs_are_measured(
    trainings, tmp_path
):
    """In float32 the loss after one step of 1e15 is not finite."""
    settings = replace(SETTINGS, exact_up_to=0)
    record = measure(trainings, [WILDEST, RUN], tmp_path / "both", settings)
    wildest, sound = (one["left_out"] for one in record["measured"])
    assert list(wildest) == ["0"] and re.search("take a smaller learning_rate", wildest["0"]) and sound == {}
    measure(trainings, [RUN], tmp_path / "one", settings)
    assert_same(read(tmp_path / "both"), read(tmp_path / "one"))


@pytest.mark.parametrize("kind", [NotFiniteError, InputError])
def test_what_cannot_be_measured_of_a_run_that_finished_is_an_error_that_names_run_and_step(
    trainings, tmp_path, monkeypatch, kind
):
    def fail(*arguments, **options):
        raise kind("too large")

    monkeypatch.setattr(job, "generalization_bounds", fail)
    with pytest.raises(kind, match=f"{RUN.path}, step 40: too large"):
        measure(trainings, [RUN], tmp_path)


def test_runs_none_of_which_is_followed_have_tables_without_rows(trainings, tmp_path):
    measure(trainings, [LARGER], tmp_path)
    tables = read(tmp_path)
    assert len(tables.pop("bounds")) == len(SIGMAS)
    assert all(len(table) == 0 and list(table) == list(POINT) for table in tables.values())


@pytest.mark.parametrize("first", [1, 3], ids=["begins later", "holds nothing"])
def test_a_trajectory_without_the_initial_weights_is_refused(trainings, tmp_path, first):
    one = trainings.followed(RUN)
    later = replace(one, checkpoints=one.checkpoints[first:])
    with pytest.raises(InputError, match="no weights of step 0 were kept, which the bound starts from"):
        measure_runs([RUN], lambda run: later, SETTINGS, SIGMAS, tmp_path, along=bool, device=torch.device("cpu"))


def test_more_eigenvalues_than_the_covariance_can_have_are_refused(trainings, tmp_path):
    with pytest.raises(InputError, match=r"k is 40, but gradient_covariance of 40 examples .* at most 39"):
        measure(trainings, [RUN], tmp_path, settings=replace(SETTINGS, top=40))


def test_bad_settings_are_all_named_at_once():
    with pytest.raises(InputError, match=r"top: 0 given; .*samples: 1 given; .*confidence: 1 given; allowed: a number"):
        DynamicsSettings(top=0, samples=1, confidence=1)
    for name, value in {
        "exact_up_to": -1, "bound_probability": 0.5, "posterior_samples": 1, "batch_size": 0,
    }.items():  # fmt: skip
        with pytest.raises(InputError, match=f"{name}: {value} given"):
            DynamicsSettings(**{name: value})


@pytest.mark.parametrize("sigmas", [(0.0,), (), (1.0, 1.0), (math.inf,), (math.nan,)], ids=str)
def test_priors_that_are_none_are_refused_before_any_run_is_read(tmp_path, sigmas):
    def never(run):
        raise AssertionError("a run was read")

    with pytest.raises(InputError, match=r"sigmas \[.*\] given; allowed: one or more different numbers above 0"):
        measure_runs([RUN], never, SETTINGS, sigmas, tmp_path, along=lambda run: True, device=torch.device("cpu"))
    assert not list(tmp_path.iterdir())


def test_the_script_follows_every_run_unless_told_a_number_that_one_has():
    names = runpy.run_path(str(Path(__file__).parents[3] / "workflow/scripts/sgd_dynamics.py"))
    runs = [RUN, LARGER, replace(RUN, examples_per_class=None)]

    def followed(*words):
        given = ["run", "--trajectories", "t", "--data", "d", "--output", "o", *words]
        along = names["followed_along"](names["parser"].parse_args(given), runs)
        return [along(run) for run in runs]

    assert followed() == [True, True, True]
    assert followed("--follow", "4") == [True, False, False]
    assert followed("--follow", "all") == [False, False, True]
    with pytest.raises(InputError, match="--follow 7: no run has so many examples a class; allowed: all, 4, 6; or"):
        followed("--follow", "7")
    assert names["parser"].get_default("sigmas") == SIGMAS_OF_THE_PACKAGE
