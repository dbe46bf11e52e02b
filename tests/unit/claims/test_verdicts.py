"""The rule of the verdicts, exactly, on made observations; and what judging a folder of results does."""

from dataclasses import replace
from math import isnan, nan, sqrt

import pandas as pd
import pytest

from hessketch.claims.claim import OBSERVED, Claim, NotTested
from hessketch.claims.verdicts import (
    CLOSE,
    COLUMNS,
    CONTRADICTED,
    NOT_TESTED,
    ONE_SEED,
    SUPPORTED,
    cases_of,
    judged,
    verdict,
)
from hessketch.errors import InputError
from hessketch.records import write_table


def observations(cases: dict[str, list[float]], **others) -> pd.DataFrame:
    """One row a case and seed, seeds numbered from 0."""
    base = {"dataset": "digits", "network": "mlp", "width": 0.5, "p": 100.0, "n": 50.0, **others}
    rows = [
        {**base, "case": case, "seed": seed, "value": value}
        for case, values in cases.items()
        for seed, value in enumerate(values)
    ]
    return pd.DataFrame(rows, columns=list(OBSERVED))


def claim(found: dict[str, list[float]] | None = None, **others) -> Claim:
    own = {
        "name": "made", "paper": "sagun2017", "place": "Figure 1", "statement": "So it is.", "quantity": "a share",
        "sense": "at least", "threshold": 1.0, "why": "Because.", "study": "made_study",
        "tables": ("made_study/table",), "figure": "*", "pictured": "a line",
        "measure": lambda tables: observations(found or {"": [2.0]}),
    }  # fmt: skip
    return Claim(**{**own, **others})


def decided(cases: dict[str, list[float]], **others) -> tuple[str, str]:
    found = verdict(claim(**others), observations(cases))
    return found["verdict"], found["reason"]


def test_a_mean_on_its_side_by_more_than_a_standard_error_is_supported_and_on_the_other_contradicted():
    assert decided({"": [1.2, 1.4]}) == (SUPPORTED, "")  # 1.3, standard error 0.1
    assert decided({"": [0.6, 0.8]}) == (CONTRADICTED, "")
    assert decided({"": [0.6, 0.8]}, sense="at most") == (SUPPORTED, "")
    assert decided({"": [1.2, 1.4]}, sense="at most") == (CONTRADICTED, "")


def test_a_mean_within_a_standard_error_of_the_threshold_is_not_tested_on_either_side():
    for values in ([1.0, 1.25], [0.75, 1.0], [0.5, 1.5]):
        assert decided({"": values}) == (NOT_TESTED, CLOSE.format(""))
        assert decided({"": values}, sense="at most") == (NOT_TESTED, CLOSE.format(""))


def test_one_seed_is_decided_by_its_value_alone_and_says_so():
    assert decided({"": [1.0]}) == (SUPPORTED, ONE_SEED)
    assert decided({"": [0.999]}) == (CONTRADICTED, ONE_SEED)
    assert decided({"": [1.0]}, sense="at most") == (SUPPORTED, ONE_SEED)


def test_seeds_that_do_not_differ_are_decided_by_their_value():
    assert decided({"": [1.0, 1.0, 1.0]}) == (SUPPORTED, "")
    assert decided({"": [0.5, 0.5]}) == (CONTRADICTED, "")


def test_a_case_that_is_certainly_wrong_contradicts_whatever_noisier_case_is_worse():
    found = verdict(claim(), observations({"noisy": [-3.0, 3.0], "wrong": [0.8, 0.9], "worse": [0.5, 0.5]}))
    assert (found["verdict"], found["deciding_case"], found["value"]) == (CONTRADICTED, "digits, mlp x 0.5, worse", 0.5)
    assert (found["reason"], found["cases_met"]) == ("", 0)


def test_all_cases_must_be_certainly_right_to_support():
    found = verdict(claim(), observations({"wide": [0.9, 1.5], "right": [1.1, 1.1]}))  # the worst mean is certain
    assert (found["verdict"], found["deciding_case"]) == (NOT_TESTED, "digits, mlp x 0.5, wide")
    assert found["reason"] == CLOSE.format(" in digits, mlp x 0.5, wide") and found["cases_met"] == 2
    assert decided({"clear": [1.4, 1.5], "right": [1.1, 1.1]}) == (SUPPORTED, "")


def test_cases_that_were_not_measured_are_counted_in_the_reason():
    assert decided({"a": [2.0, 2.0], "b": [nan, nan], "c": [3.0, nan]}) == (SUPPORTED, "1 of 3 cases not measured")
    assert decided({"a": [2.0], "b": [nan]}) == (SUPPORTED, f"{ONE_SEED}; 1 of 2 cases not measured")
    assert decided({"a": [2.0], "b": [nan]}, over="mean of cases")[1] == f"{ONE_SEED}; 1 of 2 cases not measured"


def test_cases_tell_their_means_sizes_and_side():
    found = cases_of(observations({"a": [1.0, 3.0], "b": [0.5]}, n=nan), "at least", 1.0)
    assert found["name"].tolist() == ["digits, mlp x 0.5, a", "digits, mlp x 0.5, b"]
    assert found[["mean", "seeds", "margin"]].to_numpy().tolist() == [[2.0, 2.0, 1.0], [0.5, 1.0, -0.5]]
    assert found[["met", "certain"]].to_numpy().tolist() == [[True, False], [False, True]]  # 1 is within an error of 1
    assert found["p"].tolist() == [[100.0], [100.0]] and found["n"].tolist() == [[None], [None]]


def test_of_every_case_the_worst_decides_with_its_own_standard_error():
    found = verdict(claim(), observations({"small": [5.0, 6.0], "large": [1.5, 2.5], "both": [3.0, 3.0]}))
    assert (found["value"], found["standard_error"], found["deciding_case"]) == (2.0, 0.5, "digits, mlp x 0.5, large")
    assert (found["verdict"], found["cases"], found["cases_met"], found["seeds"]) == (SUPPORTED, 3, 3, 2)
    found = verdict(claim(sense="at most"), observations({"small": [0.1, 0.1], "large": [1.5, 2.5]}))
    assert (found["value"], found["verdict"], found["cases_met"]) == (2.0, CONTRADICTED, 1)


def test_a_mean_of_cases_is_taken_within_each_seed_first():
    made = observations({"a": [1.0, 3.0], "b": [3.0, 1.0]})
    found = verdict(claim(over="mean of cases"), made)
    assert (found["value"], found["standard_error"]) == (2.0, 0.0)  # each seed's mean is 2
    assert (found["seeds"], found["cases"], found["cases_met"], found["deciding_case"]) == (2, 2, 2, "mean of 2")
    found = verdict(claim(over="mean of cases"), observations({"a": [1.0, 3.0], "b": [3.0, 9.0]}))
    assert (found["value"], found["standard_error"]) == (4.0, pytest.approx(sqrt(8) / sqrt(2)))


def test_a_network_without_a_width_is_a_case_too():
    found = verdict(claim(), observations({"": [2.0, 3.0]}, width=nan))
    assert (found["cases"], found["deciding_case"]) == (1, "digits, mlp")


def test_the_scale_tells_data_networks_sizes_and_seeds():
    found = verdict(claim(), observations({"": [2.0, 3.0]}, p=16_842.0))
    assert found["scale"] == "digits; mlp x 0.5; p 16,842; n 50; 2 seeds"


@pytest.fixture
def results(tmp_path):
    write_table(pd.DataFrame({"x": [1.0]}), tmp_path / "made_study/table.parquet")
    return tmp_path


def judge(results, *claims: Claim):
    return judged(results, claims, studies=["made_study", "other_study"])


def test_judged_holds_every_claim_against_its_tables_and_keeps_what_it_saw(results):
    first = claim({"a": [2.0, 4.0], "b": [5.0, nan]})
    found = judge(results, first, replace(first, name="other", measure=lambda tables: observations({"": [0.0]})))
    assert tuple(found.claims) == COLUMNS and found.claims["verdict"].tolist() == [SUPPORTED, CONTRADICTED]
    assert found.claims["value"].tolist() == [3.0, 0.0] and found.claims["seeds"].tolist() == [2, 1]
    assert tuple(found.observations) == ("claim", *OBSERVED)
    assert found.observations["claim"].tolist() == ["made"] * 3 + ["other"]  # the missing value is left out


def test_a_measure_is_given_the_tables_that_its_claim_names(results):
    def measure(tables):
        assert list(tables) == ["made_study/table"] and tables["made_study/table"]["x"].tolist() == [1.0]
        return observations({"": [2.0]})

    assert judge(results, claim(measure=measure)).claims["verdict"].tolist() == [SUPPORTED]


def cannot(tables):
    raise NotTested("it takes a larger network")


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"measure": cannot}, "it takes a larger network"),
        ({"tables": ("other_study/table",)}, "the profile has no study other_study"),
        ({"tables": ("made_study/table", "made_study/other")}, "the table made_study/other is missing"),
        ({"measure": lambda tables: observations({})}, "nothing was measured"),
        ({"measure": lambda tables: observations({"": [nan]})}, "nothing was measured"),
    ],
)
def test_what_cannot_be_decided_is_not_tested_and_has_its_reason(results, changed, reason):
    found = judge(results, claim(**changed))
    row = found.claims.iloc[0]
    assert row["verdict"] == NOT_TESTED and reason in row["reason"] and found.observations.empty
    assert isnan(row["value"]) and (row["cases"], row["seeds"], row["scale"], row["deciding_case"]) == (0, 0, "", "")


def test_a_study_that_the_profile_does_not_have_is_not_looked_at_even_if_its_tables_lie_there(results):
    found = judged(results, [claim(tables=("made_study/table",))], studies=["made_study"])
    assert found.claims["verdict"].tolist() == [SUPPORTED]
    write_table(pd.DataFrame({"x": [1.0]}), results / "other_study/table.parquet")
    found = judged(results, [claim(tables=("made_study/table",))], studies=["other_study"])
    assert found.claims["reason"].tolist() == ["the profile has no study made_study"]


def test_a_folder_without_tables_of_a_study_and_a_damaged_table_are_refused(tmp_path, results):
    with pytest.raises(InputError, match=r"no tables of a study there; give .* full_spectrum"):
        judged(tmp_path / "elsewhere")
    (results / "made_study/table.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match=r"table\.parquet"):
        judge(results, claim())
