"""Tables of the outliers' hierarchy against values worked out by hand from planted spectra."""

import importlib.util
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from synthetic_outlier_hierarchy import CELL, CLASSES, P, eigenvalues_of, keys, parts_table, study

from hessketch.errors import InputError
from hessketch.records import read_table, write_table
from hessketch.studies.outlier_hierarchy import (
    COLUMNS,
    PARTS,
    attribution,
    densities_of,
    matches,
    of_network,
    trained_runs,
)

SCRIPT = Path(__file__).parents[3] / "workflow/scripts/tabulate_outlier_hierarchy.py"


@pytest.fixture(scope="module")
def raw():
    return study()


def test_the_parts_stand_beside_g_by_rank_and_what_they_lack_is_not_known(raw):
    table = attribution(raw["parts"])
    assert len(table) == 4 * 2 * CLASSES
    own = table[(table["seed"] == 1) & (table["examples_per_class"] == 10)].set_index("rank")
    for part, values in eigenvalues_of(1).items():
        assert own[part].dropna().tolist() == pytest.approx(values[: 2 * CLASSES])
    assert own.loc[CLASSES + 1 :, "G1"].isna().all()
    assert own.loc[1, "difference_G1"] == pytest.approx(1 / 1.02 - 1)
    assert own.loc[1, "difference_G1+2"] == pytest.approx(1 / 1.01 - 1)


def test_matches_are_medians_and_largest_differences_beside_the_overlap(raw):
    table = matches(attribution(raw["parts"]), raw["alignment"])
    assert len(table) == 4 * 2 * 2 and set(table["k"]) == {CLASSES - 1, CLASSES}
    own = table[(table["seed"] == 0) & (table["examples_per_class"] == 20)].set_index(["part", "k"])
    first = own.loc[("G1", CLASSES - 1)]
    assert first[["median_difference", "largest_difference"]].tolist() == pytest.approx([1 - 1 / 1.02] * 2)
    values = eigenvalues_of(0)
    fifth = 1 - values["G1"][CLASSES - 1] / values["G"][CLASSES - 1]
    assert own.loc[("G1", CLASSES), "largest_difference"] == pytest.approx(fifth)
    assert own.loc[("G1", CLASSES), "median_difference"] == pytest.approx(1 - 1 / 1.02)
    assert first[["overlap", "chance"]].tolist() == pytest.approx([0.98, CLASSES / P])
    assert first["times_chance"] == pytest.approx(0.98 * P / CLASSES)


def test_a_part_with_fewer_eigenvalues_than_k_has_no_match(raw):
    parts = parts_table([keys()])
    few = parts[(parts["part"] != "G1") | (parts["rank"] < CLASSES)]
    table = matches(attribution(few), raw["alignment"]).set_index(["part", "k"])
    assert np.isnan(table.loc[("G1", CLASSES), "median_difference"])
    assert table.loc[("G1", CLASSES - 1), "median_difference"] == pytest.approx(1 - 1 / 1.02)


def test_parts_of_which_g_was_not_found_have_no_rows(raw):
    without = raw["parts"][raw["parts"]["part"] != "G"]
    assert attribution(without).empty and matches(attribution(without), raw["alignment"]).empty


def test_densities_are_the_raw_ones_of_the_same_ggn(raw):
    chosen = raw["parts"][(raw["parts"]["seed"] == 1) & (raw["parts"]["examples_per_class"] == 10)]
    table = densities_of(pd.concat([raw["density"], raw["density"].assign(split="test")]), chosen)
    assert len(table) == 512 and set(table["seed"]) == {1} and set(table["examples_per_class"]) == {10}
    assert set(table["operator"]) == {"ggn"} and not table["deflated"].any() and set(table["split"]) == {"train"}


def test_runs_are_those_of_the_selected_rate_and_of_what_the_hierarchy_is_of(raw):
    runs = trained_runs(pd.concat([raw["runs"], raw["runs"].assign(label_noise=0.1), raw["runs"].assign(loss="mse")]))
    assert len(runs) == 4 and set(runs["learning_rate"]) == {0.1}


def test_rows_of_a_network_are_of_its_largest_size_or_of_the_one_named(raw):
    assert set(of_network(raw["parts"], *CELL)["examples_per_class"]) == {20}
    assert set(of_network(raw["parts"], *CELL, 10)["examples_per_class"]) == {10}
    every = raw["parts"].assign(examples_per_class=raw["parts"]["examples_per_class"].where(raw["parts"]["seed"] == 0))
    assert set(of_network(every, *CELL)["seed"]) == {1}  # every example is the largest size
    with pytest.raises(InputError, match=r"examples_per_class = 30; the table has \[10, 20\]"):
        of_network(raw["parts"], *CELL, 30)


def test_the_script_writes_every_table_from_those_of_the_jobs(raw, tmp_path):
    for seed in (0, 1):
        for name in COLUMNS:
            write_table(raw[name][raw[name]["seed"] == seed], tmp_path / f"{seed}/{name}.parquet")
    for name in ("density", "runs"):
        write_table(raw[name], tmp_path / f"full/{name}.parquet")
    spec = importlib.util.spec_from_file_location("tabulate_outlier_hierarchy", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    files = {name: [tmp_path / f"{seed}/{name}.parquet" for seed in (0, 1)] for name in COLUMNS}
    arguments = SimpleNamespace(**files, full_spectrum=tmp_path / "full", output=tmp_path / "tables")
    script.tabulate(arguments, SimpleNamespace(say=lambda line: None))
    written = {path.stem: read_table(path) for path in (tmp_path / "tables").glob("*.parquet")}
    assert set(written) == {*COLUMNS, "attribution", "matches", "density", "runs"}
    assert set(written["parts"]["part"]) == set(PARTS) and len(written["matches"]) == 16
    assert len(written["density"]) == 4 * 512 and len(written["runs"]) == 4
