"""Claims on whole spectra against made tables whose values are known by hand."""

import numpy as np
import pytest
from made_runs import SEEDS, decided, of_seeds, run, tables, values

from hessketch.claims.claim import NotTested
from hessketch.claims.over_parametrized import CLAIMS
from hessketch.studies.over_parametrized import QUANTITIES

NAMED = {claim.name: claim for claim in CLAIMS}
STUDY = "over_parametrized"
OPERATORS = ("hessian", "ggn", "output_gradients")
OUTSIDE = {"negative_ratio": 9.0, "near_zero_share": 0.01, "near_zero": 1, "top_eigenvalue": 99.0, "bulk_90": 99.0}


def counts(*runs, initial_ratio=0.5):
    """Of each set of changes (of identity or counts) a run: trained Hessian; the GGN and what came before differ."""
    plain = {
        **dict.fromkeys(QUANTITIES, 1.0), "outliers": 2, "near_zero_share": 0.9, "near_zero": 900, "zero": 500,
        "negative_ratio": 0.01, "top_eigenvalue": 4.0, "bulk_90": 0.1, "least_zeros": np.nan,
    }  # fmt: skip
    rows = []
    for changes in runs or ({},):
        row = {**run(p=1000, n=100), **plain, **changes, "kind": "step"}
        ggn = {"least_zeros": max(0, row["p"] - row["n"] * (row["classes"] - 1))}
        for operator in OPERATORS:
            own = {} if operator == "hessian" else {**OUTSIDE, **(ggn if operator == "ggn" else {})}
            rows.append({**row, **own, "operator": operator, "stage": "trained", "time": 100})
            before = {**OUTSIDE, "negative_ratio": initial_ratio if operator == "hessian" else 1e-9}
            rows.append({**row, **before, "operator": operator, "stage": "initial", "time": 0})
    return tables(STUDY, counts=of_seeds(rows))


def match(*differences, overlap=0.9, **changes):
    """Differences of the r-th eigenvalues to the GGN's; overlaps only at rank C = 2 as given."""
    rows = [
        {**run(**changes), "stage": stage, "time": time, "rank": rank, "relative_difference": value,
         "overlap_output_gradients": overlap if rank == 2 and stage == "trained" else 0.5}
        for stage, time in (("initial", 0), ("trained", 100))
        for rank, value in enumerate(differences if stage == "trained" else (7.0,) * len(differences), start=1)
    ]  # fmt: skip
    return tables(STUDY, outlier_match=of_seeds(rows))


def widths(**of_size):
    """Networks of 1000, 2000 and 4000 parameters, with the counts at each."""
    named = [dict(zip(of_size, values_, strict=True)) for values_ in zip(*of_size.values(), strict=True)]
    return counts(*({"p": 1000 * 2**i, "width": 2.0**i, **own} for i, own in enumerate(named)))


def clusters(**of_number):
    """2, 4 and 8 clusters."""
    named = [dict(zip(of_number, values_, strict=True)) for values_ in zip(*of_number.values(), strict=True)]
    return counts(
        *({"dataset": f"clusters-k{2**i}-d10-s4", "classes": 2**i, **own} for i, own in enumerate(named, start=1))
    )


def separations(least, middle, greatest):
    tops = {2: least, 4: middle, 8: greatest}
    return counts(*({"dataset": f"clusters-k2-d10-s{s}", "top_eigenvalue": top} for s, top in tops.items()))


FEW = {"n": 100, "classes": 2}  # p - n (C - 1) = 900 zeros of the GGN, p - n C = 800
TABLES = {
    "trained_spectrum_is_mostly_zero": (counts(), counts({"near_zero_share": 0.2})),
    "outliers_number_the_classes": (counts({"outliers": 1}), counts({"outliers": 4})),
    "negative_eigenvalues_shrink": (counts(initial_ratio=0.5), counts(initial_ratio=0.005)),
    "negative_eigenvalues_small_after_training": (counts(), counts({"negative_ratio": 0.5})),
    "too_few_examples_leave_zeros": (counts({"zero": 900}), counts({"zero": 899})),
    "hessian_degenerate_after_training": (counts({"near_zero": 850}), counts({"near_zero": 700})),
    "outliers_are_those_of_the_first_term": (match(0.05, -0.01, 9.0), match(-0.3, 0.3, 0.0)),
    "outlier_directions_come_from_output_gradients": (match(0.0, 0.0, overlap=0.9), match(0.0, 0.0, overlap=0.2)),
    "near_zeros_grow_with_width": (widths(near_zero=(800, 1800, 4050)), widths(near_zero=(800, 900, 1000))),
    "outliers_do_not_grow_with_width": (widths(outliers=(2, 2, 2)), widths(outliers=(2, 4, 8))),
    "outliers_keep_their_size_with_width": (widths(top_eigenvalue=(4, 5, 4)), widths(top_eigenvalue=(4, 2, 1))),
    "clusters_set_the_number_of_outliers": (clusters(outliers=(2, 4, 8)), clusters(outliers=(2, 2, 2))),
    "clusters_leave_the_bulk": (clusters(bulk_90=(0.1, 0.1, 0.1)), clusters(bulk_90=(0.4, 0.2, 0.1))),
    "less_separation_makes_larger_outliers": (separations(100, 5, 10), separations(1, 5, 10)),
}
EXPECTED = {
    "trained_spectrum_is_mostly_zero": 0.9,
    "outliers_number_the_classes": 0.0,
    "negative_eigenvalues_shrink": 0.02,
    "negative_eigenvalues_small_after_training": 0.01,
    "too_few_examples_leave_zeros": 0.0,
    "hessian_degenerate_after_training": 0.05,
    "outliers_are_those_of_the_first_term": 0.03,
    "outlier_directions_come_from_output_gradients": 0.9,
    "near_zeros_grow_with_width": np.log(4050 / 800) / np.log(4),
    "outliers_do_not_grow_with_width": 0.0,
    "clusters_set_the_number_of_outliers": 1.0,
    "less_separation_makes_larger_outliers": 1.0,
}


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.name)
def test_each_claim_can_be_supported_and_contradicted(claim):
    good, bad = TABLES[claim.name]
    assert (decided(claim, good), decided(claim, bad)) == ("supported", "contradicted")


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.name)
def test_runs_that_diverged_test_no_claim(claim):
    found = {name: frame.copy() for name, frame in TABLES[claim.name][0].items()}
    found[f"{STUDY}/runs"]["status"] = "diverged"
    with pytest.raises(NotTested, match="diverged"):
        claim.measure(found)


def test_what_is_measured_is_what_the_quantity_says():
    found = {name: list(values(NAMED[name], TABLES[name][0]).values()) for name in EXPECTED}
    assert found == {name: [pytest.approx(value)] for name, value in EXPECTED.items()}


@pytest.mark.parametrize(("outliers", "off"), [(8, 0.1), (9, 0.0), (10, 0.0), (13, 0.3)])
def test_one_outlier_less_than_classes_is_none_too_few(outliers, off):
    found = counts({"classes": 10, "outliers": outliers})
    assert values(NAMED["outliers_number_the_classes"], found) == {"": pytest.approx(off)}


def test_each_run_is_one_observation():
    for name in ("negative_eigenvalues_shrink", "outliers_are_those_of_the_first_term", "clusters_leave_the_bulk"):
        assert NAMED[name].measure(TABLES[name][0])["seed"].tolist() == list(SEEDS)


def test_a_seed_without_the_whole_sweep_is_left_out():
    found = widths(outliers=(2, 2, 2))
    rows = found[f"{STUDY}/counts"]
    found[f"{STUDY}/counts"] = rows[(rows["seed"] == 0) | (rows["p"] < 4000)]
    assert NAMED["outliers_do_not_grow_with_width"].measure(found)["seed"].tolist() == [0]


@pytest.mark.parametrize(
    ("name", "found", "reason"),
    [
        ("trained_spectrum_is_mostly_zero", counts({"n": 1000}), "more parameters than examples"),
        ("outliers_number_the_classes", counts({"dataset": "clusters-k2-d10-s4"}), "images"),
        ("too_few_examples_leave_zeros", counts({"n": 1000}), "examples times C - 1"),
        ("hessian_degenerate_after_training", counts({"n": 500}), "examples times classes"),
        ("near_zeros_grow_with_width", counts(), "several sizes"),
        ("clusters_set_the_number_of_outliers", counts(), "clusters of several numbers"),
        ("less_separation_makes_larger_outliers", counts(), "clusters of several separations"),
        ("outlier_directions_come_from_output_gradients", match(0.0, 0.0, overlap=np.nan), "not known"),
    ],
)
def test_what_is_missing_is_named(name, found, reason):
    with pytest.raises(NotTested, match=reason):
        NAMED[name].measure(found)
