"""The verdicts as a table in plain text."""

import math

import pandas as pd
import pytest
from test_verdicts import claim, observations, results  # noqa: F401 - a fixture

from hessketch.claims.text import WIDTH, claims_text, measured_text, observations_text
from hessketch.claims.verdicts import judged


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (0.12345, 0.0123, "0.123 ± 0.012"),
        (123.4, 25.0, "123 ± 25"),
        (0.12345, math.nan, "0.123"),
        (2.0, 0.0, "2"),
        (math.nan, math.nan, ""),
        (math.inf, math.nan, "inf"),
        (1.5e-9, 2.5e-10, "1.5e-09 ± 2.5e-10"),
    ],
)
def test_a_value_has_as_many_places_as_its_standard_error_shows(value, error, text):
    assert measured_text(value, error) == text


def test_the_table_tells_statement_criterion_value_cases_scale_and_verdict_and_counts_them(results):  # noqa: F811
    long = "A statement so long that it is wrapped into its column, and not cut anywhere within a word of it. " * 3
    claims = [
        claim({"a": [2.0, 2.5], "b": [3.0, 3.5]}, statement=long),
        claim({"": [0.5]}, name="second", unit="decades"),
        claim(name="third", paper="papyan2018", tables=("other_study/table",)),
    ]
    text = claims_text(judged(results, claims, studies=["made_study"]).claims)
    assert max(map(len, text.splitlines())) <= WIDTH
    words = " ".join(text.split())
    assert text.index("Papyan (2018)") < text.index("Sagun, Evci, Guney, Dauphin, Bottou (2017)")
    for part in ("at least 1: a share", "2.25 ± 0.25", "2 of 2", "0 of 1", "decided by: digits, mlp x 0.5, a", "p 100",
                 "at least 1 decades", "note: one seed", "note: the profile has no study other_study"):  # fmt: skip
        assert part in words
    assert "wrapped" in text and [line.split() for line in text.splitlines()[-3:]] == [
        ["papyan2018", "0", "0", "1", "1"], ["sagun2017", "1", "1", "0", "2"], ["all", "1", "1", "1", "3"],
    ]  # fmt: skip


def test_observations_are_told_case_by_case():
    text = observations_text(observations({"a": [1.0, 2.0], "b": [0.25]}))
    assert [line.split()[-1] for line in text.splitlines()] == ["value", "1", "2", "0.25"]
    assert "digits, mlp x 0.5, b" in text
    assert observations_text(pd.DataFrame()) == "no observations"
