"""Claims of Papyan 2018: measures on tables whose answer is known, and both verdicts of each."""

import numpy as np
import pandas as pd
import pytest
from made_spectra import SPECTRUM, components, eigenvalues, matches, of_two_sizes, outliers, positions, ritz, tails

from hessketch.claims import full_spectrum, full_spectrum_bulk, outlier_hierarchy
from hessketch.claims.claim import OBSERVED, NotTested
from hessketch.claims.verdicts import CONTRADICTED, SUPPORTED, verdict

CLAIMS = {claim.name: claim for claim in (*full_spectrum.CLAIMS, *full_spectrum_bulk.CLAIMS, *outlier_hierarchy.CLAIMS)}


def tables(**changed: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The tables of a network that behaves as the paper says, but for those that are given."""
    own = {
        "outliers": outliers(), "eigenvalues": eigenvalues(moved=0.01), "ritz": ritz(), "components": components(),
        "outlier_positions": positions([0.01] * 10), "tails": tails(), **changed,
    }  # fmt: skip
    matched = own.pop("matches", matches())
    return {"outlier_hierarchy/matches": matched, **{f"full_spectrum/{name}": table for name, table in own.items()}}


def decided(name: str, **changed: pd.DataFrame) -> dict:
    return verdict(CLAIMS[name], CLAIMS[name].measure(tables(**changed)))


# Claim: the value that the first tables have, the tables of a network that contradicts it, and the value they have.
KNOWN = {
    "outliers_are_about_as_many_as_classes": (0.0, {}, {"outliers": outliers(3)}, 0.7),
    "about_classes_outliers_at_scale": (0.0, {}, {"outliers": outliers(13)}, 0.3),
    "hundred_classes_separate_in_part": (
        0.5,
        {"outliers": outliers(50, classes=100)},
        {"outliers": outliers(95, classes=100)},
        0.95,
    ),
    "test_hessian_has_the_same_structure": (0.0, {}, {"outliers": outliers(0)}, 1.0),
    "test_hessian_has_other_magnitudes": (2.0, {}, {"outliers": outliers(top=80.0)}, 1.25),
    "outliers_stand_where_those_of_the_ggn_do": (
        0.01,
        {},
        {"outlier_positions": positions([-0.5] * 6 + [0.0] * 4)},
        0.5,
    ),
    "residual_has_no_outliers": (2 / 5.01, {}, {"outliers": outliers(edge=10.02)}, 2.0),
    "outliers_grow_in_number_with_sample_size": (
        4.0,
        {"outliers": of_two_sizes(6, 10)},
        {"outliers": of_two_sizes(10, 10)},
        0.0,
    ),
    "deflation_finds_the_peaks_of_lanczos": (0.01 / 51, {}, {"eigenvalues": eigenvalues(moved=1.02)}, 0.02),
    "most_eigenvalues_are_near_zero": (0.99, {}, {"ritz": ritz(near_zero=0.45)}, 0.45),
    "negative_eigenvalues_remain": (0.02, {}, {"ritz": ritz(smallest=1e-9)}, -2e-11),
    "bulk_is_that_of_the_residual": (0.9, {}, {"components": components(residual=0.25)}, 0.25),
    "bulk_of_the_ggn_is_far_smaller": (0.01 / 0.9, {}, {"components": components(ggn=0.45)}, 0.5),
    "residual_is_nearly_symmetric": (0.1, {}, {"tails": tails(asymmetry=1.5)}, 1.5),
    "tails_follow_a_power_law": (0.99, {}, {"tails": tails(r_squared=0.5)}, 0.5),
    "tails_are_not_marchenko_pastur": (0.49, {}, {"tails": tails(mp=0.995)}, -0.005),
    "tails_fall_off_with_exponent_of_about_2_6": (0.0, {}, {"tails": tails(exponent=1.1)}, 1.5),
    "class_means_make_the_outliers": (0.1, {}, {"matches": matches(means=0.8)}, 0.8),
    "cross_class_means_refine_the_outliers": (0.05, {}, {"matches": matches(sums=0.3)}, -0.2),
    "outliers_span_the_class_means": (0.9, {}, {"matches": matches(overlap=0.1)}, 0.1),
}


@pytest.mark.parametrize("name", CLAIMS)
def test_a_network_as_the_paper_says_supports_a_claim_and_another_contradicts_it(name):
    value, supporting, contradicting, other = KNOWN[name]
    observations = CLAIMS[name].measure(tables(**supporting))
    assert tuple(observations) == OBSERVED and set(observations["network"]) == {"vgg11-batch"}
    assert set(observations["p"]) == {SPECTRUM["p"]} and set(observations["n"]) == {SPECTRUM["n"]}
    found = verdict(CLAIMS[name], observations)
    assert (found["verdict"], found["value"]) == (SUPPORTED, pytest.approx(value, abs=1e-12))
    found = decided(name, **contradicting)
    assert (found["verdict"], found["value"]) == (CONTRADICTED, pytest.approx(other, abs=1e-12))


@pytest.mark.parametrize("name", CLAIMS)
def test_a_table_without_rows_or_with_noisy_labels_alone_decides_nothing(name):
    claim, made = CLAIMS[name], tables(**KNOWN[name][1])
    with pytest.raises(NotTested, match="has no rows"):
        claim.measure({key: table.iloc[:0] for key, table in made.items()})
    with pytest.raises(NotTested, match="true labels"):
        claim.measure({key: table.assign(label_noise=0.2) for key, table in made.items()})


# Claim: tables that cannot decide it, and a word of the reason.
UNDECIDED = {
    "outliers_are_about_as_many_as_classes": ({"outliers": outliers(0).assign(examined=19)}, "lanczos_steps"),
    "about_classes_outliers_at_scale": ({"outliers": outliers().assign(p=17_000)}, "17,000 parameters"),
    "hundred_classes_separate_in_part": ({}, "10 classes at most"),
    "test_hessian_has_the_same_structure": ({"outliers": outliers().query("split == 'train'")}, "no test Hessian"),
    "test_hessian_has_other_magnitudes": ({"outliers": outliers(top=-1.0)}, "both a train and a test"),
    "outliers_stand_where_those_of_the_ggn_do": ({"outlier_positions": positions([0.1] * 9)}, "deflation_rank"),
    "residual_has_no_outliers": ({"outliers": outliers(edge=np.nan)}, "no residual"),
    "outliers_grow_in_number_with_sample_size": ({"outliers": of_two_sizes(6, 10, times=4)}, "5 times"),
    "residual_has_no_outliers, few counted": ({"outliers": outliers(9)}, "needs C counted outliers; at most 9"),
    "outliers_grow_in_number_with_sample_size, few examined": (
        {"outliers": of_two_sizes(6, 10).assign(examined=19)},
        "lanczos_steps",
    ),
    "deflation_finds_the_peaks_of_lanczos, not converged": (
        {"eigenvalues": eigenvalues(moved=0.01, residual=0.16)},  # 0.003 of the range of 51 is 0.153
        "deflation_iterations",
    ),
    "deflation_finds_the_peaks_of_lanczos": ({"eigenvalues": eigenvalues()}, "method: paper"),
    "bulk_is_that_of_the_residual": ({"components": components(deflated=False)}, "deflation_rank: 0"),
    "residual_is_nearly_symmetric": ({"tails": tails(asymmetry=np.nan, reason="too short")}, "too short"),
    "tails_follow_a_power_law": ({"tails": tails(r_squared=np.nan, reason="too short")}, "too short"),
    "class_means_make_the_outliers": ({"matches": matches(means=np.nan)}, "fewer than C"),
}


@pytest.mark.parametrize("name", UNDECIDED)
def test_what_a_table_cannot_decide_is_not_tested_and_says_why(name):
    changed, reason = UNDECIDED[name]
    with pytest.raises(NotTested, match=reason):
        CLAIMS[name.split(",")[0]].measure(tables(**changed))


def test_the_largest_sample_of_each_network_is_looked_at_every_example_being_the_largest():
    sizes = [outliers(10).assign(examples_per_class=size) for size in (10, 500)] + [
        outliers(4).assign(examples_per_class=None)
    ]
    found = full_spectrum.CLAIMS[0].measure(tables(outliers=pd.concat(sizes)))
    assert found["value"].tolist() == [0.6] and found["case"].tolist() == [""]


def test_growth_is_told_for_each_split_with_its_sizes():
    found = CLAIMS["outliers_grow_in_number_with_sample_size"].measure(tables(outliers=of_two_sizes(2, 9)))
    assert found["case"].tolist() == ["test, 100 to 1000 examples", "train, 100 to 1000 examples"]
    assert found["value"].tolist() == [7.0, 7.0]


def test_the_residual_reaches_every_outlier_where_the_hessian_has_fewer_positive_ones():
    found = decided("residual_has_no_outliers", eigenvalues=eigenvalues(least=-5.0))
    assert (found["value"], found["verdict"]) == (np.inf, CONTRADICTED)
