"""Derived tables of predictor Hessians against values worked out by hand from synthetic rows."""

import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic_predictors import IDENTITY, LOSSES, TRAINERS, P, density_of, epochs, kappa_of, rounds, row

from hessketch.errors import InputError
from hessketch.records import read_table, write_record, write_table
from hessketch.studies.predictor_hessian import (
    against_p,
    cells,
    columns_of,
    joined,
    kappa_over_time,
    moved_by_sketching,
    of_cell,
    runs_table,
)

SCRIPT = Path(__file__).parents[3] / "workflow/scripts/tabulate_predictor_hessian.py"
KAPPA = list(columns_of("kappa"))


def record(status="finished", **identity):
    """What the study reads of a training's record."""
    facts = {"diverged_at": None if status == "finished" else "epoch 3", "epochs": 7, "n": 200, "p": P, "classes": 2}
    losses = {"train_loss": 0.1, "train_accuracy": 1.0, "test_loss": 0.2, "test_accuracy": 0.9}
    identity = {**IDENTITY, **identity}
    known = {"identity": identity, "learning_rate": identity["learning_rate"], "status": status}
    return {**known, **facts, "wall_seconds": 3.0, **losses}


def test_kappa_over_time_is_the_mean_over_examples_and_seeds_with_its_standard_error():
    table = kappa_over_time(epochs()).query("estimator == 'paper' and loss == @LOSSES[1] and time == 200")
    values = [kappa_of(example, seed, 200) for example in range(3) for seed in range(2)]
    [found] = table.to_dict("records")
    assert (found["rows"], found["undefined"], found["examples"], found["seeds"]) == (6, 0, 3, 2)
    assert found["kappa"] == pytest.approx(np.mean(values))
    assert found["kappa_standard_error"] == pytest.approx(np.std(values, ddof=1) / np.sqrt(6))
    assert found["kappa_estimate_standard_error"] == pytest.approx(0.3)
    assert (found["kappa_least"], found["kappa_largest"]) == (min(values), max(values))
    assert found["kappa_over_p"] == pytest.approx(np.mean(values) / P)
    assert found["kappa_smoothed"] == pytest.approx(np.mean(values) + 20.0)
    assert (found["kappa_floor"], found["kappa_lower"]) == (15.0, pytest.approx(np.mean(values) / 2))
    assert found["smoothed_over_kappa"] == pytest.approx(np.mean([(value + 20.0) / value for value in values]))
    assert found["train_loss"] == pytest.approx(1 / 201 + 0.05)
    assert (found["products"], found["seconds"]) == (1000, 2.0)


def test_fast_has_no_smoothed_kappa_and_one_row_no_spread():
    table = kappa_over_time(epochs((0,), (0,)))
    fast = table[table["estimator"] == "fast"]
    assert fast[["kappa_smoothed", "kappa_floor", "smoothed_over_kappa"]].isna().all(axis=None)
    assert table["kappa_standard_error"].isna().all() and (table["kappa_estimate_standard_error"] == 0.3).all()


def test_a_hessian_of_zero_has_no_kappa_and_is_counted():
    table = kappa_over_time(pd.DataFrame([row(), row(example=1, slope=0.0), row(example=2)]))
    [found] = table.to_dict("records")
    assert (found["rows"], found["undefined"]) == (2, 1)
    assert found["kappa"] == pytest.approx((kappa_of(0, 0, 0) + kappa_of(2, 0, 0)) / 2)


def test_rates_trainers_and_estimators_are_never_averaged_together():
    rows = [row(), row(estimator="fast"), row(learning_rate=0.3), row(trainer="sgd-b50"), row(label_noise=0.1)]
    assert kappa_over_time(pd.DataFrame(rows))["rows"].tolist() == [1] * 5
    every = pd.DataFrame([row(examples_per_class=None), row(examples_per_class=None, example=1)])
    assert kappa_over_time(every)["rows"].tolist() == [2]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(1.0, 1e6), min_size=2, max_size=6), st.randoms())
def test_the_mean_lies_between_the_ends_whatever_the_order_of_rows(values, shuffle):
    rows = [row(example=place, kappa=value) for place, value in enumerate(values)]
    table = kappa_over_time(pd.DataFrame(rows))
    shuffle.shuffle(rows)
    again = kappa_over_time(pd.DataFrame(rows))
    assert table["kappa"].item() == pytest.approx(again["kappa"].item())
    least, mean, largest = table.loc[0, ["kappa_least", "kappa", "kappa_largest"]]
    assert least * (1 - 1e-12) <= mean <= largest * (1 + 1e-12) and largest == max(values)


def test_against_p_has_the_largest_kappa_of_all_epochs_and_the_range_of_smoothing():
    found = against_p(kappa_over_time(epochs())).query("estimator == 'paper' and loss == @LOSSES[0]").iloc[0]
    assert (found["times"], found["p"]) == (3, P)
    assert (found["kappa_least"], found["kappa_largest"]) == (kappa_of(0, 0, 0), kappa_of(2, 1, 200))
    assert found["largest_over_p"] == pytest.approx(kappa_of(2, 1, 200) / P)
    assert found["smoothing_largest"] > found["smoothing_least"] > 1


def test_what_sketching_moves_is_the_difference_of_the_same_seed_example_and_round():
    changed = rounds((0, 1, 2))
    changed.loc[(changed["trainer"] == TRAINERS[1]) & (changed["seed"] == 2), "kappa"] += 3.0
    table = moved_by_sketching(pd.concat([changed, epochs()], ignore_index=True)).set_index(["trainer", "time"])
    assert set(table.index.get_level_values("trainer")) == set(TRAINERS[1:])
    found = table.loc[(TRAINERS[1], 40)]
    assert (found["seeds"], found["kappa_uncompressed"]) == (3, pytest.approx(14.4))
    assert found["difference"] == pytest.approx(4.0 + 1.0)
    assert found["standard_error"] == pytest.approx(1.0)
    assert found["in_standard_errors"] == pytest.approx(5.0)
    t = 5.0  # of two degrees of freedom: P(|T| > t) = 1 - t / sqrt(2 + t^2)
    assert found["probability"] == pytest.approx(1 - t / np.sqrt(2 + t**2))
    assert table.loc[(TRAINERS[2], 40), "difference"] == pytest.approx(8.0)
    assert np.isnan(table.loc[(TRAINERS[2], 0), "probability"])


def test_one_seed_moves_kappa_without_a_standard_error_and_unpaired_rows_do_not_count():
    table = moved_by_sketching(rounds((0,)))
    assert table[["standard_error", "in_standard_errors", "probability"]].isna().all(axis=None)
    assert (table["difference"] >= 0).all() and len(table) == 9
    alone = rounds((0,))
    alone = alone[(alone["method"] != "uncompressed") | (alone["example"] == 1)]
    alone.loc[(alone["method"] != "uncompressed") & (alone["example"] == 0), "kappa"] = 1e9
    assert (moved_by_sketching(alone)["difference"] < 100).all()


def test_every_example_of_a_data_set_is_paired_too():
    assert len(moved_by_sketching(rounds(examples_per_class=None))) == 9


def test_without_federation_nothing_moved_and_the_tables_keep_their_columns():
    for empty in (epochs(), joined([], "kappa")):
        assert moved_by_sketching(empty).empty
    over_time = kappa_over_time(joined([], "kappa"))
    assert over_time.empty and list(over_time) == list(kappa_over_time(epochs()))
    assert against_p(over_time).empty and cells(over_time) == []
    assert of_cell(over_time, "digits", "mlp-none-w1").empty


def test_the_raw_tables_of_all_jobs_are_one_and_empty_ones_do_not_spoil_it(tmp_path):
    paths = [tmp_path / name for name in ("a.parquet", "b.parquet", "c.parquet")]
    for path, table in zip(paths, (epochs(), rounds().iloc[:0], rounds()), strict=True):
        write_table(table, path)
    table = joined(paths, "kappa")
    assert list(table) == KAPPA and len(table) == len(epochs()) + len(rounds())
    assert table["error_feedback"].dtype == bool and table["time"].dtype == "int64"
    pd.testing.assert_frame_equal(table.iloc[: len(epochs())], epochs()[KAPPA], check_dtype=False)


@pytest.mark.parametrize("broken", [{"kappa": "many"}, {"time": 0.5}])
def test_a_raw_table_of_another_schema_is_refused_by_name(tmp_path, broken):
    path = tmp_path / "kappa.parquet"
    write_table(epochs().assign(**broken), path)
    with pytest.raises(InputError, match=rf"kappa.parquet: column '{next(iter(broken))}' is"):
        joined([path], "kappa")
    write_table(epochs().drop(columns=list(broken)), path)
    with pytest.raises(InputError, match="is missing"):
        joined([path], "kappa")


def test_a_raw_table_given_twice_is_refused(tmp_path):
    write_table(epochs(), tmp_path / "kappa.parquet")
    (tmp_path / "job").mkdir()
    with pytest.raises(InputError, match=r"job/../kappa.parquet: given twice as the table kappa"):
        joined([tmp_path / "kappa.parquet", tmp_path / "job/../kappa.parquet"], "kappa")


def test_runs_have_their_trainer_and_diverged_ones_no_results():
    records = [record(), record("diverged", trainer="sgd-b50"), record(trainer="count_sketch-x10")]
    table = runs_table(records)
    assert table["method"].tolist() == ["sgd", "sgd", "count_sketch"] and table["reduction"].iloc[2] == 10.0
    assert table["test_accuracy"].isna().tolist() == [False, True, False]
    assert table["epochs"].tolist() == [7, 7, 7]
    assert list(runs_table([])) == list(table)


def test_runs_at_the_selected_rate_of_a_federated_trainer_are_marked_and_all_trajectories_are():
    def federated(rate, seed, accuracy, status="finished", trainer="count_sketch-x10"):
        return {**record(status, trainer=trainer, learning_rate=rate, seed=seed), "test_accuracy": accuracy}

    records = [
        *(record(learning_rate=rate) for rate in (0.1, 0.3)),
        *(federated(0.1, seed, accuracy) for seed, accuracy in enumerate((0.9, 0.7))),  # not the best mean
        *(federated(0.2, seed, 0.85) for seed in (0, 1)),
        *(federated(0.4, seed, 0.99, "diverged") for seed in (0, 1)),
        federated(0.1, 0, 0.5, "diverged", "top_r_ef-x10"),
    ]
    table = runs_table(records)
    assert table["selected"].tolist() == [True, True, False, False, True, True, False, False, False]


def test_cells_and_their_rows_are_named_by_network_labels():
    table = pd.concat([epochs(), epochs(network="vgg11", norm="group", width=0.5)], ignore_index=True)
    assert cells(table) == [("digits", "mlp-none-w1"), ("digits", "vgg11-group-w0.5")]
    rows = of_cell(table, "digits", "vgg11-group-w0.5")
    assert len(rows) == len(table) / 2 and set(rows["norm"]) == {"group"} and set(rows["loss"]) == set(LOSSES)
    with pytest.raises(InputError, match=r"no rows with network = 'mlp'; the table has \['mlp-none-w1'"):
        of_cell(table, "digits", "mlp")


def tabulated(output, *arguments):
    script = runpy.run_path(str(SCRIPT))
    given = script["parser"].parse_args([*map(str, arguments), "--output", str(output)])
    script["tabulate"](given, SimpleNamespace(say=lambda line: None))
    return {path.stem: read_table(path) for path in sorted(output.glob("*.parquet"))}


def test_the_script_tabulates_many_jobs_and_none(tmp_path):
    kappa = pd.concat([epochs((0,), (0,)), rounds((0,), (0,))], ignore_index=True)
    for name, table in {"kappa": kappa, "density": density_of(kappa)}.items():
        write_table(table, tmp_path / f"job/{name}.parquet")
    write_record(record(), tmp_path / "record.json")
    files = [f"--{name}={tmp_path}/job/{name}.parquet" for name in ("kappa", "density")]
    full = tabulated(tmp_path / "full", *files, "--records", tmp_path / "record.json")
    assert {name: len(table) for name, table in full.items()} == {
        "density": len(kappa) * 201, "kappa": len(kappa), "kappa_over_time": len(kappa), "runs": 1,
    }  # fmt: skip
    empty = tabulated(tmp_path / "empty", "--kappa", "--density", "--records")
    assert {name: list(table) for name, table in empty.items()} == {name: list(table) for name, table in full.items()}
    assert not any(len(table) for table in empty.values())
