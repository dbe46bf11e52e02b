"""From trajectories to tables: what stands in every row."""

from dataclasses import replace

import pandas
import pytest
import torch
from measured_runs import (
    FULL,
    KEPT,
    LARGER,
    NOISY,
    POINT,
    RUN,
    SETTINGS,
    SIGMAS,
    WILD,
    P,
    assert_same,
    measure,
    of,
    read,
)

from hessketch.dynamics import job
from hessketch.dynamics.eigenspaces import eigenspaces
from hessketch.dynamics.generalization_bound import BOUNDS, generalization_bounds
from hessketch.dynamics.job import DynamicsSettings
from hessketch.dynamics.loss_change import LOSS_CHANGES, loss_changes
from hessketch.networks.registry import network_of
from hessketch.progress import Progress
from hessketch.runs import IDENTITY
from hessketch.trajectories import read_trajectory

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
