"""Derived tables of the study of eigenspaces against values worked out by hand from synthetic measurements."""

import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from synthetic_eigenspaces import (
    CELL,
    MASKS,
    METHODS,
    ROUNDS,
    SPLITS,
    STEPS,
    metric_study_table,
    metrics_table,
    overlaps_table,
    point,
    points,
    quality_table,
    record,
    stability_table,
    study,
)

from hessketch.errors import InputError
from hessketch.records import read_table, write_record, write_table
from hessketch.studies.eigenspaces import (
    LEVELS,
    TABLES,
    at_ratios,
    first_method,
    largest_common_k,
    nearest_k,
    of_network,
    overlap_summary,
    seed_means,
    shares_above,
    stabilisation,
    trained_by,
    with_chances,
)
from hessketch.studies.eigenspaces_comparisons import (
    federated_summary,
    metric_baselines,
    sketch_quality,
    width_summary,
)
from hessketch.studies.raw_tables import read_raw, runs_table
from hessketch.studies.spectra import networks, select

SCRIPT = Path(__file__).parents[3] / "workflow/scripts/tabulate_eigenspaces.py"
NOTHING = pd.DataFrame([point()]).iloc[:0]  # as a job writes it where all runs diverged


@pytest.fixture(scope="module")
def raw():
    return study()


def only(frame, **values):
    """The one row with these values."""
    rows = select(frame, **values)
    assert len(rows) == 1
    return rows.iloc[0]


def test_networks_are_named_by_their_labels_and_apart_by_kind_of_trainer(raw):
    overlaps = raw["overlaps"]
    assert networks(overlaps) == [CELL, (CELL[0], "mlp_tanh-none-w2")] and networks(NOTHING) == []
    by_sgd, federated = (of_network(overlaps, *CELL, federated=kind) for kind in (False, True))
    assert set(by_sgd["kind"]) == {"step"} and set(by_sgd["p"]) == {200} and set(by_sgd["network"]) == {CELL[1]}
    assert set(federated["trainer"]) == {"uncompressed", "count_sketch-x10"}
    assert of_network(overlaps, CELL[0], "mlp_tanh-none-w2", federated=True).empty
    assert of_network(NOTHING, *CELL).empty
    with pytest.raises(InputError, match=r"network = 'mlp'; the table has \['mlp_tanh-none-w1', 'mlp_tanh-none-w2'\]"):
        of_network(overlaps, CELL[0], "mlp")


def test_the_exact_method_is_first_then_the_sketch(raw):
    overlaps = raw["overlaps"]
    assert set(first_method(overlaps)["method"]) == {"exact"}
    assert set(first_method(overlaps[overlaps["method"] != "exact"])["method"]) == {"sketched"}
    assert first_method(overlaps.iloc[:0]).empty


def test_the_largest_common_k_is_one_that_no_checkpoint_lacks(raw):
    rows = of_network(raw["overlaps"], *CELL)
    assert largest_common_k(rows, "it") == 40
    short = rows[(rows["k"] < 15) | (rows["seed"] == 0) | (rows["method"] == "exact") | (rows["time"] < 100)]
    assert len(short) < len(rows) and largest_common_k(short, "it") == 10
    with pytest.raises(InputError, match="it: no k that was measured at every checkpoint"):
        largest_common_k(rows[(rows["k"] == 40) == (rows["time"] == 0)], "it")


def test_the_nearest_k_is_so_in_ratio():
    assert nearest_k([1, 10, 100], 31) == 10 and nearest_k([1, 10, 100], 32) == 100
    assert nearest_k([4, 16], 8) == 4
    with pytest.raises(InputError, match="nearest of"):
        nearest_k([], 3)


def test_overlaps_at_ratios_are_those_at_the_k_of_their_own_network(raw):
    rows = at_ratios(raw["overlaps"], raw["metrics"])
    assert {p: sorted(here["k"].unique()) for p, here in rows.groupby("p")} == {200: [10, 40], 400: [20, 80]}
    assert len(rows) == len(raw["overlaps"]) * 2 / 5 and set(rows["mask"]) == set(MASKS)  # of five k
    assert at_ratios(NOTHING, raw["metrics"]).empty and at_ratios(raw["overlaps"], NOTHING).empty


def test_an_overlap_is_compared_with_each_chance_level():
    """Seed 0 at step 10: 2.5 times chance, which is 0.05 with a spread of 0.005; by layer 1.5 times that."""
    row = only(with_chances(overlaps_table([point(10)])), split="train", method="exact", mask="magnitude", k=10)
    assert row["times_chance"] == pytest.approx(2.5) and row["times_chance_by_layer"] == pytest.approx(2.5 / 1.5)
    assert row["z_chance"] == pytest.approx(0.075 / 0.005) and row["z_chance_live"] == pytest.approx(0.07 / 0.005)
    assert row[[f"above_{level}" for level in LEVELS]].tolist() == [1.0, 1.0, 1.0]


def test_a_level_of_zero_without_spread_or_unknown_gives_no_number():
    rows = overlaps_table([point(10)]).iloc[:1]
    flat = with_chances(rows.assign(chance_by_layer=0.0, chance_by_layer_sd=0.0, chance_live=np.nan)).iloc[0]
    assert np.isnan(flat["times_chance_by_layer"]) and np.isnan(flat["z_chance_by_layer"])
    assert flat["above_chance_by_layer"] == 1.0
    assert flat[["times_chance_live", "z_chance_live", "above_chance_live"]].isna().all()


def test_the_summary_has_means_over_seeds_their_standard_errors_and_joint_z_scores(raw):
    table = overlap_summary(raw["overlaps"])
    at = {"width": 1.0, "trainer": "sgd-b50", "split": "test", "method": "exact", "mask": "magnitude", "k": 10}
    row = only(table, **at, time=10)
    assert row["seeds"] == 2 and row["overlap"] == pytest.approx(0.05 * 2.5 * 1.1)
    assert row["overlap_standard_error"] == pytest.approx(0.05 * 2.5 * 0.1)  # half the difference of two values
    assert row["times_chance"] == pytest.approx(2.75) and row["times_chance_standard_error"] == pytest.approx(0.25)
    assert row["z_chance"] == pytest.approx((15.0 + 20.0) / np.sqrt(2))
    late = only(table, **at, time=100)  # 0.8 and 0.96 times chance, both below every level
    assert late[[f"above_{level}" for level in LEVELS]].tolist() == [0.0, 0.0, 0.0]
    assert late["z_chance"] == pytest.approx((-2.0 - 0.4) / np.sqrt(2))
    assert len(table) == len(raw["overlaps"]) / 2


def test_one_seed_has_no_standard_error():
    table = overlap_summary(overlaps_table(points((0,))))
    assert set(table["seeds"]) == {1} and table["overlap_standard_error"].isna().all()
    assert table["overlap"].notna().all()


def test_shares_above_are_over_checkpoints_and_seeds(raw):
    """Times chance at three checkpoints of two seeds: 1.6, 2.5, 0.8 and 1.92, 3, 0.96; by layer it takes 1.5."""
    chosen = {"width": 1.0, "trainer": "sgd-b50", "split": "train", "method": "exact", "mask": "magnitude", "k": 10}
    row = only(shares_above(raw["overlaps"]), **chosen)
    assert row["points"] == 6
    assert row[[f"above_{level}" for level in LEVELS]].tolist() == pytest.approx([4 / 6, 4 / 6, 4 / 6])
    assert row[[f"beyond_{level}" for level in LEVELS]].tolist() == pytest.approx([4 / 6, 3 / 6, 4 / 6])


def test_stabilisation_is_similarity_with_the_next_and_the_last_checkpoint():
    rows = [point(step, seed) for seed in (0, 1) for step in STEPS]
    table = stabilisation(stability_table(rows).sample(frac=1, random_state=0))
    masks = select(table, of="mask", ratio=0.05)
    assert masks["time"].tolist() == [0, 10] and set(masks["seeds"]) == {2} and set(masks["k"]) == {10}
    assert masks["to_last"].tolist() == [0.25, 0.5] and masks["to_next"].tolist() == [0.5, 0.5]
    assert len(table) == 2 * 2 * 3  # checkpoints but the last, ratios, masks and two splits
    assert masks["to_last_standard_error"].tolist() == [0.0, 0.0]
    assert masks["chance"].tolist() == pytest.approx([0.05 / 1.95] * 2)
    assert set(select(table, of="eigenspace", ratio=0.2)["chance"]) == {0.2}


def test_a_similarity_with_the_last_checkpoint_that_is_not_known_is_not_that_with_another():
    table = stability_table([point(step) for step in STEPS])
    table.loc[(table["second"] == STEPS[-1]) & (table["split"] == "test"), "similarity"] = np.nan
    spaces = select(stabilisation(table), split="test", ratio=0.05).set_index("time")
    assert spaces["to_last"].isna().all() and spaces.loc[0, "to_next"] == 0.9 and np.isnan(spaces.loc[10, "to_next"])


def test_a_sketch_is_held_against_the_exact_decomposition_of_the_same_point(raw):
    table = sketch_quality(raw["quality"])
    row = only(table, width=1.0, kind="step", split="train", method="sketched")
    assert row[["points", "pairs", "products", "seconds"]].tolist() == [6, 20, 50.0, 2.0]
    assert (row["times_faster"], row["residual_over_exact"], row["residual_share"]) == (5.0, 2.0, pytest.approx(0.1))
    assert row["eigenvalue_error"] == row["eigenvalue_error_largest"] == pytest.approx(0.01)
    assert (row["subspace_overlap"], row["subspace_overlap_least"]) == (pytest.approx(0.85), pytest.approx(0.8))
    exact = only(table, width=1.0, kind="step", split="train", method="exact")
    assert exact["products"] == 200 and np.isnan(exact["subspace_overlap"])
    alone = select(table, kind="round")
    assert alone[["times_faster", "residual_over_exact", "eigenvalue_error"]].isna().all(axis=None)


def test_networks_side_by_side_have_the_share_and_the_k_that_all_of_them_have():
    rows = points(widths=(1.0, 2.0))
    overlaps = overlaps_table(rows)
    smaller = overlaps[(overlaps["p"] == 200) | (overlaps["k"] <= 20)]  # the large network has 20 / 400 at most
    table = width_summary(smaller)
    chosen = {"split": "train", "method": "exact"}
    same_share, same_k = (select(table, at=at, **chosen).set_index("p") for at in ("same share", "same k"))
    assert same_share["k"].to_dict() == {200: 10, 400: 20} and same_k["k"].to_dict() == {200: 20, 400: 20}
    assert set(table["time"]) == {100} and set(table["seeds"]) == {2} and set(table["trainer"]) == {"sgd-b50"}
    assert same_share["times_chance"].to_numpy() == pytest.approx(0.88)
    assert same_share["times_chance_by_layer_standard_error"].to_numpy() == pytest.approx(0.08 / 1.5)


def test_a_federated_trainer_is_compared_with_the_uncompressed_run_of_its_seed(raw):
    table = federated_summary(raw["overlaps"])
    at = {"split": "train", "mask": "magnitude", "k": 10}
    plain, sketched = (only(table, trainer=one, time=5, **at) for one in ("uncompressed", "count_sketch-x10"))
    assert plain["difference"] == 0.0 and plain["pairs"] == 2
    overlaps = 0.05 * 1.2 * 0.9 * np.array([1.0, 1.2])  # of uncompressed training; a tenth less with Count-Sketch
    assert sketched["difference"] == pytest.approx(-0.1 * overlaps.mean())
    assert sketched["difference_standard_error"] == pytest.approx(0.1 * np.ptp(overlaps) / 2)
    assert only(table, trainer="count_sketch-x10", time=0, **at)["difference"] == 0.0
    assert set(table["time"]) == set(ROUNDS)


def test_without_uncompressed_training_there_is_no_difference(raw):
    overlaps = raw["overlaps"]
    table = federated_summary(overlaps[overlaps["trainer"] == "count_sketch-x10"])
    assert len(table) and table["difference"].isna().all() and set(table["pairs"]) == {0}


def test_a_metric_has_the_baseline_of_random_pairs_between_the_studied_ratios():
    """The study has ratios 0.1, 0.5, 1; medians of the third metric are 2 / 7 of the ratio. Ours are 0.05 and 0.2."""
    table = metric_baselines(metrics_table([point()]), metric_study_table())
    at = {(row.k, row.metric): row.baseline for row in table.itertuples()}
    assert at[40, "overlap"] == pytest.approx(0.2) and at[10, "overlap"] == pytest.approx(0.05)
    assert at[40, "chordal"] == pytest.approx(0.2 * 2 / 7) and np.isnan(at[10, "chordal"])
    alone = metric_baselines(metrics_table([point()]), metric_study_table().iloc[:0])
    assert set(alone.dropna()["metric"]) == {"overlap"}


@pytest.mark.parametrize(
    ("derive", "table"),
    [
        (overlap_summary, "overlaps"),
        (shares_above, "overlaps"),
        (width_summary, "overlaps"),
        (federated_summary, "overlaps"),
        (stabilisation, "stability"),
        (sketch_quality, "quality"),
    ],
)
def test_of_no_rows_each_derived_table_is_empty_and_has_its_columns(raw, derive, table):
    empty = derive(NOTHING)
    assert empty.empty and list(empty) == list(derive(raw[table]))


def test_means_over_seeds_of_a_missing_column_value_leave_it_out():
    rows = pd.DataFrame({"seed": [0, 1, 2], "key": [1, 1, 1], "value": [1.0, np.nan, 3.0]})
    (row,) = seed_means(rows, ["key"], ["value"]).to_dict("records")
    assert row == {"key": 1, "seeds": 3, "value": 2.0, "value_standard_error": pytest.approx(1.0)}


def test_runs_have_epochs_or_rounds_and_no_batch_size_where_clients_train():
    runs = runs_table([record(), record("diverged", trainer="uncompressed")])
    assert runs["batch_size"].tolist() == [50, 0]
    assert runs["epochs"].tolist()[0] == 10 and runs["rounds"].tolist()[1] == 5
    assert runs["epochs"].isna().tolist() == [False, True] and runs["test_loss"].isna().tolist() == [False, True]
    assert len(trained_by(runs, federated=True)) == 1


def test_each_raw_table_is_read_as_itself_and_refused_as_another(tmp_path):
    rows = [point()]
    raw = {**study(seeds=(0,), widths=(1.0,), trainers=()), "quality": quality_table(rows)}
    for name, table in raw.items():
        write_table(table, tmp_path / f"{name}.parquet")
    for name, own in TABLES.items():
        assert len(read_raw([tmp_path / f"{name}.parquet"], name, own)[0]) == len(raw[name]) > 0
        for other in set(TABLES) - {name}:
            with pytest.raises(InputError, match=rf"{other}.parquet: column '\w+' is missing, which .* {name} has"):
                read_raw([tmp_path / f"{other}.parquet"], name, own)


def test_the_script_joins_tables_and_writes_what_is_derived_from_them(tmp_path):
    for seed in (0, 1):
        for name, table in study(seeds=(seed,), steps=(0, 10), widths=(1.0,)).items():
            write_table(table, tmp_path / f"{seed}/{name}.parquet")
        write_record(record(seed=seed), tmp_path / f"{seed}/record.json")
    write_table(metric_study_table(), tmp_path / "metric_study.parquet")
    files = [[f"--{name}", *(tmp_path / f"{seed}/{name}.parquet" for seed in (0, 1))] for name in TABLES]
    files += [["--metric-study", tmp_path / "metric_study.parquet"]]
    files += [["--records", *(tmp_path / f"{seed}/record.json" for seed in (0, 1))]]
    (tmp_path / "files.txt").write_text("\n".join(str(part) for arguments in files for part in arguments))
    script = runpy.run_path(str(SCRIPT))
    arguments = script["parser"].parse_args([f"@{tmp_path}/files.txt", "--output", f"{tmp_path}/tables"])
    script["tabulate"](arguments, SimpleNamespace(say=lambda line: None))
    written = {path.stem: read_table(path) for path in (tmp_path / "tables").glob("*.parquet")}
    derived = {"overlap_summary", "shares_above", "stabilisation", "sketch_quality", "width_summary"}
    assert set(written) == {*TABLES, "metric_study", "runs", *derived, "federated_summary"}
    assert len(written["runs"]) == 2 and set(written["overlaps"]["seed"]) == {0, 1}
    assert set(written["overlap_summary"]["seeds"]) == {2} and set(written["overlap_summary"]["k"]) == {10, 40}
    assert set(written["shares_above"]["k"]) == {1, 3, 10, 20, 40}
    assert len(written["sketch_quality"]) == len(SPLITS) * (len(METHODS) + 2)  # two federated trainers, sketched only
