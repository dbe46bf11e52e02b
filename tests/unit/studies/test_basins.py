"""Tables of the study of basins against values worked out by hand from planted barriers."""

import importlib.util
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from synthetic_basins import BARRIERS, CELL, barrier_row, path_rows, record, study

from hessketch.errors import InputError
from hessketch.records import read_table, write_record, write_table
from hessketch.studies.basins import COLUMNS, KEYS, LOW, barrier_summary, best_places, of_network, with_low
from hessketch.studies.raw_tables import read_raw

SCRIPT = Path(__file__).parents[3] / "workflow/scripts/tabulate_basins.py"


@pytest.fixture(scope="module")
def raw():
    return study()


def test_a_barrier_is_low_up_to_a_twentieth_of_the_loss_of_a_guess():
    rows = pd.DataFrame([barrier_row("continued", 0, "line")] * 3)
    threshold = 0.05 * np.log(10)
    found = with_low(rows.assign(barrier=[threshold - 1e-9, threshold, threshold + 1e-9]))
    assert found["low"].tolist() == [True, True, False] and set(found["threshold"]) == {LOW * np.log(10)}
    assert with_low(rows.assign(classes=2))["threshold"].tolist() == pytest.approx([0.05 * np.log(2)] * 3)


def test_barriers_have_means_and_standard_errors_over_pairs_and_the_share_that_is_low(raw):
    table = barrier_summary(raw["barriers"]).set_index(["pair", "path"])
    assert len(table) == 6 and set(table["pairs"]) == {3}
    line = table.loc[("same_start", "line")]
    assert line["barrier"] == pytest.approx(0.55)  # 0.5, 0.55, 0.6
    assert line["barrier_standard_error"] == pytest.approx(0.05 / np.sqrt(3))
    assert line["length"] == pytest.approx(4.0) and line["move_chance"] == pytest.approx(0.005)
    assert (line["same_examples"], table.loc[("other_start", "line"), "same_examples"]) == (1.0, 0.0)
    assert table["share_low"].to_dict() == {
        ("continued", "line"): 1.0, ("continued", "found"): 1.0, ("same_start", "line"): 0.0,
        ("same_start", "found"): 1.0, ("other_start", "line"): 0.0, ("other_start", "found"): 0.0,
    }  # fmt: skip


def test_the_share_that_is_low_has_wilsons_interval(raw):
    """(s + z^2 / 2n -+ z sqrt(s (1 - s) / n + z^2 / 4n^2)) / (1 + z^2 / n) of a share s of n pairs, z = 1.96."""
    rows = raw["barriers"].query("pair == 'continued' and path == 'line'")
    z, n = 1.959964, 3
    for low in range(4):
        row = barrier_summary(rows.assign(barrier=[0.0] * low + [9.0] * (3 - low))).iloc[0]
        share = low / n
        middle, half = share + z**2 / (2 * n), z * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
        assert row["share_low"] == pytest.approx(share)
        assert row["share_low_from"] == pytest.approx((middle - half) / (1 + z**2 / n), abs=1e-6)
        assert row["share_low_to"] == pytest.approx((middle + half) / (1 + z**2 / n), abs=1e-6)


def test_one_pair_has_no_standard_error_and_settings_are_kept_apart(raw):
    rows = raw["barriers"].query("seed == 0 and pair == 'continued' and path == 'line'")
    table = barrier_summary(pd.concat([rows, rows.assign(width=1.0, barrier=3.0)]))
    assert table["barrier"].tolist() == pytest.approx([0.01, 3.0])
    assert table["barrier_standard_error"].isna().all() and table["pairs"].tolist() == [1, 1]
    assert table[["share_low_from", "share_low_to"]].isna().all().all()


def test_the_best_place_is_that_on_the_line_alone(raw):
    table = best_places(raw["paths"])
    assert len(table) == 9 and set(table["at_lowest_train_loss"]) == {1.0}
    rows = path_rows("continued", 0, "line")
    moved = rows.assign(
        test_accuracy=np.where(np.isclose(rows["t"], 0.3), 0.99, 0.5),
        test_loss=np.where(rows["t"].between(0.39, 0.61), 0.01, 0.5),
    )
    found = path_rows("continued", 0, "found").assign(test_accuracy=1.0)
    best = best_places(pd.concat([moved, found])).iloc[0]
    assert best["at_highest_test_accuracy"] == pytest.approx(0.3) and best["highest_test_accuracy"] == 0.99
    assert best["at_lowest_test_loss"] == pytest.approx(0.5)  # the mean of 0.4, 0.5 and 0.6
    assert best["lowest_train_loss"] == pytest.approx(0.05)


def test_tables_without_rows_have_summaries_without_rows(raw):
    assert barrier_summary(raw["barriers"].iloc[:0]).empty and best_places(raw["paths"].iloc[:0]).empty


def test_rows_are_of_one_data_set_and_network_label(raw):
    rows = of_network(raw["barriers"], *CELL)
    assert len(rows) == len(raw["barriers"]) and set(rows["network"]) == {CELL[1]}
    with pytest.raises(InputError, match=r"network = 'mlp'; the table has \['mlp-none-w0\.5'\]"):
        of_network(raw["barriers"], CELL[0], "mlp")


def test_a_raw_table_is_read_as_itself_and_refused_as_another(raw, tmp_path):
    for name, table in raw.items():
        write_table(table, tmp_path / f"{name}.parquet")
        assert len(read_raw([tmp_path / f"{name}.parquet"], name, COLUMNS[name], KEYS)) == 1
    with pytest.raises(InputError, match=r"paths\.parquet: column 'barrier' is missing, which the table barriers has"):
        read_raw([tmp_path / "paths.parquet"], "barriers", COLUMNS["barriers"], KEYS)


def test_the_script_writes_every_table_from_those_of_the_jobs(tmp_path):
    for seed in (0, 1):
        for name, table in study((seed,)).items():
            write_table(table, tmp_path / f"{seed}/{name}.parquet")
        write_record(record(seed=seed), tmp_path / f"{seed}/record.json")
    spec = importlib.util.spec_from_file_location("tabulate_basins", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    files = {name: [tmp_path / f"{seed}/{name}.parquet" for seed in (0, 1)] for name in COLUMNS}
    records = [tmp_path / f"{seed}/record.json" for seed in (0, 1)]
    arguments = SimpleNamespace(**files, records=records, output=tmp_path / "tables")
    script.tabulate(arguments, SimpleNamespace(say=lambda line: None))
    written = {path.stem: read_table(path) for path in (tmp_path / "tables").glob("*.parquet")}
    assert set(written) == {*COLUMNS, "runs", "barrier_summary", "best_places"}
    assert set(written["barrier_summary"]["pairs"]) == {2} and len(written["runs"]) == 2
    assert len(written["best_places"]) == 2 * len(BARRIERS)
