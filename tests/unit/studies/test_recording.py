"""Recorded studies: small tables that say the same, and what they were made with."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest

from hessketch.errors import InputError
from hessketch.provenance import source_version
from hessketch.recordings import recorded_figures
from hessketch.records import read_record, read_table, write_record, write_table
from hessketch.studies.recording import DIGITS, EXACT, provenance, record_study, rounded

FIGURES = {"digits-mlp/line": "line --dataset 'two words'"}


@pytest.fixture
def study(tmp_path):
    """Folder of a study with one table, and its run's record."""
    values = np.random.default_rng(0).normal(size=2000) ** 9
    table = pd.DataFrame({"dataset": "digits", "rank": range(2000), "p": 5.0, "eigenvalue": values})
    write_table(table, tmp_path / "made/spectra.parquet")
    (tmp_path / "made/table1.csv").write_text("a\n1\n")
    write_record({"profile": "tiny"}, tmp_path / "config.json")
    record(tmp_path / "run/record.json")
    return tmp_path


def record(path, commit="abc", seed=0):
    environment = {"device": "cpu", "source": {"commit": commit, "uncommitted_changes": False}}
    write_record({"identity": {"seed": seed}, "wall_seconds": 2.5, "environment": environment}, path)


def recorded(study, figures=FIGURES):
    output = study / "reference/tiny/spectra"
    given = (study / "made", output, figures, study / "config.json", [study / "run/record.json"])
    return output, record_study(*given)


def test_numbers_keep_their_leading_digits_and_settings_all_of_them():
    odd = [np.pi, -1e-300, 0.0, np.nan, np.inf, -np.inf]
    values = np.concatenate([odd, np.random.default_rng(0).normal(size=EXACT)])
    table = pd.DataFrame({"x": values, "rank": range(len(values)), "width": 0.02, "name": "mlp"})
    found = rounded(table)
    np.testing.assert_allclose(found["x"], table["x"], rtol=2.0**-DIGITS)
    assert found["x"][0] != np.pi
    others = ["rank", "width", "name"]
    pd.testing.assert_frame_equal(found[others], table[others], check_exact=True)
    pd.testing.assert_frame_equal(rounded(found), found, check_exact=True)
    few = table.iloc[:EXACT]
    pd.testing.assert_frame_equal(rounded(few), few, check_exact=True)


def test_a_recorded_study_is_smaller_and_says_the_same(study):
    output, sizes = recorded(study)
    table = read_table(output / "spectra.parquet")
    before = read_table(study / "made/spectra.parquet")
    pd.testing.assert_frame_equal(table, before, rtol=2.0**-DIGITS)
    assert sizes["spectra.parquet"] < 0.6 * (study / "made/spectra.parquet").stat().st_size
    assert (output / "table1.csv").read_text() == "a\n1\n"
    assert read_record(output / "config.json") == {"profile": "tiny"}
    words = {"digits-mlp/line": ["line", "--dataset", "two words"]}
    assert recorded_figures(study / "reference") == {("tiny", "spectra"): words}


def test_recording_again_replaces_all_but_pictures(study):
    output, _ = recorded(study)
    for name in ("old.parquet", "old.csv", "line.png"):
        (output / name).write_text("old")
    recorded(study)
    assert not (output / "old.parquet").exists() and not (output / "old.csv").exists()
    assert (output / "line.png").exists()


def test_provenance_condenses_run_records(tmp_path):
    for number, commit in enumerate(["abc", "def", "abc"]):
        record(tmp_path / f"{number}/record.json", commit, seed=number)
    found = provenance(tmp_path.glob("*/record.json"))
    assert found["records"] == 3
    assert found["commits"] == ["abc", "def"]
    assert found["seeds"] == [0, 1, 2]
    assert found["wall_seconds"] == 7.5
    assert found["environments"] == [{"records": 3, "device": "cpu"}]
    assert found["uncommitted_changes"] is False
    assert found["written"]["first"] <= found["written"]["last"]


def test_a_copy_without_git_knows_neither_commit_nor_changes_unless_told(tmp_path, monkeypatch):
    monkeypatch.setattr("hessketch.provenance._git", lambda *arguments: None)
    monkeypatch.delenv("HESSKETCH_COMMIT", raising=False)
    assert source_version.__wrapped__() == {"commit": None, "uncommitted_changes": None}
    monkeypatch.setenv("HESSKETCH_COMMIT", "abc")
    environment = {"device": "cuda", "source": dict(source_version.__wrapped__())}
    write_record({"environment": environment}, tmp_path / "record.json")
    found = provenance([tmp_path / "record.json"])
    assert found["commits"] == ["abc"] and found["uncommitted_changes"] is None


def test_without_records_or_tables_nothing_is_recorded(study):
    output = study / "reference"
    with pytest.raises(InputError, match="record"):
        record_study(study / "made", output, FIGURES, study / "config.json", [])
    assert not output.exists()
    shutil.rmtree(study / "made")
    with pytest.raises(InputError, match="no table"):
        recorded(study)


@pytest.mark.parametrize("name", ["../../evil", "a/..", "a", "a/b/c", "/a", "a/b;c", "a/ b"])
def test_a_figure_cannot_lie_outside_its_folder(study, name):
    with pytest.raises(InputError, match="folder/figure"):
        recorded(study, {name: "line"})
    output, _ = recorded(study)
    (output / "figures.json").write_text(json.dumps({name: ["line"]}))
    with pytest.raises(InputError, match="folder/figure"):
        recorded_figures(study / "reference")
