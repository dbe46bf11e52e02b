"""Tables of a study are found without naming their paths."""

import pandas
import pytest

import hessketch
from hessketch.errors import InputError
from hessketch.records import write_table


def test_a_study_is_loaded_from_an_argument_or_the_environment(tmp_path, monkeypatch):
    write_table(pandas.DataFrame({"n": [1]}), tmp_path / "full_spectrum/runs.parquet")
    assert list(hessketch.load("full_spectrum", tmp_path)) == ["runs"]
    monkeypatch.setenv("HESSKETCH_RESULTS", str(tmp_path))
    assert hessketch.load("full_spectrum")["runs"].n.tolist() == [1]
    with pytest.raises(InputError, match="snakemake --cores all"):
        hessketch.load("another_study")
