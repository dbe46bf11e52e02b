"""Claims on large parameters, subspaces and sketches against made tables whose values are known by hand."""

import numpy as np
import pandas as pd
import pytest
from made_runs import decided, of_seeds, run, tables, values

from hessketch.claims.claim import NotTested
from hessketch.claims.eigenspaces import CLAIMS

NAMED = {claim.name: claim for claim in CLAIMS}
STUDY = "eigenspaces"
TIMES = (0, 100, 1000)
P = 7030
MEASURED = {"network": "mlp_tanh", "p": P, "n": 1000, "classes": 10, "kind": "step", "split": "train"}
_LEVELS = ("chance", "chance_by_layer", "chance_live")


def measured(**changes):
    return run(**{**MEASURED, **changes})


def overlaps(*times_chance, k=350, sketched=None, **changes):
    """Overlaps over chance k / p at TIMES; sketched ones `sketched` times as large, where it is given."""
    levels = {**dict.fromkeys(_LEVELS, 0.05), **{f"{level}_sd": 0.01 for level in _LEVELS}}
    methods = {"exact": 1.0, **({} if sketched is None else {"sketched": sketched})}
    rows = [
        {**measured(**changes), **levels, "time": time, "mask": mask, "k": k, "method": method, "overlap": factor * x}
        for method, size in methods.items()
        for mask, factor in (("magnitude", 0.05 * size), ("best", 1.0))
        for time, x in zip(TIMES, times_chance, strict=True)
    ]
    return tables(STUDY, overlaps=of_seeds(rows))


def joined(*parts):
    """One set of tables of several."""
    return tables(STUDY, overlaps=pd.concat([part[f"{STUDY}/overlaps"] for part in parts], ignore_index=True))


def of_sizes(small, large):
    """Overlaps over chance, 5 % of networks of 1000 and of 2000 parameters."""
    return joined(
        overlaps(9, 9, small, k=50, p=1000, width=0.5),
        overlaps(9, 9, large, k=100, p=2000, width=1.0),
    )


def stability(eigenspace, mask, late_mask=0.9, start=0):
    """Similarities of the first step with 20 and 250, and of 100 with 250; those with step 1000 count nowhere."""
    pairs = [(start, 20, "first"), (start, 250, "first"), (100, 250, "late"), (start, 1000, "other")]
    pairs += [(250, 1000, "other")]
    similar = {
        "eigenspace": {"first": eigenspace, "late": 0.1, "other": 0.1},
        "mask": {"first": mask, "late": late_mask, "other": 0.1},
    }
    rows = [
        {**measured(split=split), "of": of, "ratio": 0.05, "first": first, "second": second, "similarity": own[pair]}
        for of, own in similar.items()
        for split in (("train", "test") if of == "eigenspace" else ("",))
        for first, second, pair in pairs
    ]
    return tables(STUDY, stability=of_seeds(rows))


def eigenvalues(error):
    """Exact ones, and sketched ones of which the fourth is off by `error` and the fifth by much."""
    rows = [
        {**measured(), "time": time, "method": method, "rank": rank, "eigenvalue": -10.0 / rank * factor}
        for time in TIMES
        for method, off in (("exact", {}), ("sketched", {4: 1 + error, 5: 3.0}))
        for rank in range(1, 6)
        for factor in (off.get(rank, 1.0),)
    ]
    return tables(STUDY, eigenvalues=of_seeds(rows))


def quality(norm=100.0, residual=1.0, seconds=1.0, pairs=350, methods=("exact", "sketched"), **changes):
    """Exactly a squared norm of 100 in 10 s; `residual` counts after the first step, where it is 90."""
    exact = {"frobenius_squared": 100.0, "residual_squared": 1.0, "seconds": 10.0}
    sketched = {"frobenius_squared": norm, "residual_squared": residual, "seconds": seconds}
    rows = [
        {**measured(**changes), "time": time, "pairs": pairs, "method": method, **found}
        | ({"residual_squared": 90.0} if time == 0 else {})
        for time in TIMES
        for method, found in (("exact", exact), ("sketched", sketched))
        if method in methods
    ]
    return tables(STUDY, quality=of_seeds(rows))


def metric_study(off=0.0, saturated=0.0, ratio=0.1):
    """Medians of random pairs at D = 100 and 1000; `saturated` at the larger D, 0.5 at the smaller."""
    rows = [
        {"pair": pair, "dimension": d, "ratio": ratio, "k": int(ratio * d), "metric": metric, "q50": median}
        for pair in ("subspaces", "subspace and mask", "masks")
        for d in (100, 1000)
        for metric, median in (
            ("overlap", ratio + off),
            ("geodesic", 0.5),
            ("chordal_max", saturated if d == 1000 else 0.5),
            ("fubini_study", 0.0),
        )
    ]
    return {f"{STUDY}/metric_study": pd.DataFrame(rows)}


TABLES = {
    "large_parameters_overlap_above_chance": (overlaps(3, 2, 1.5), overlaps(3, 2, 0.9)),
    "small_masks_fall_below_chance_late": (overlaps(2, 2, 0.5, k=10), overlaps(0.5, 0.5, 2, k=10)),
    "overlap_reaches_twice_chance": (overlaps(3, 2, 2), overlaps(2, 1, 1)),
    "overlap_stays_below_three_times_chance": (overlaps(4, 2, 2), overlaps(4, 4, 3)),
    "overlap_peaks_early_then_falls": (overlaps(2, 3, 1.5), overlaps(2, 1, 4)),
    "effect_grows_with_network_size": (of_sizes(2, 3), of_sizes(3, 2)),
    "initial_overlap_is_layer_scale": (overlaps(0.9, 3, 3), overlaps(2.0, 1, 1)),
    "overlap_exceeds_layer_sizes": (overlaps(0.1, 2, 1), overlaps(9, 0.5, 0.5)),
    "overlap_exceeds_dead_inputs": (overlaps(2, 2, 2), overlaps(0.5, 0.5, 0.5)),
    "eigenspaces_alike_from_the_start": (stability(0.9, 0.1), stability(0.2, 0.1)),
    "masks_settle_after_a_hundred_steps": (stability(0.9, 0.1, 0.8), stability(0.9, 0.9, 0.3)),
    "eigenspaces_settle_before_masks": (stability(0.9, 0.5), stability(0.6, 0.5)),
    "overlap_is_share_of_dimensions": (metric_study(off=0.001), metric_study(off=0.1)),
    "other_metrics_saturate": (metric_study(saturated=0.002), metric_study(saturated=0.2)),
    "sketched_overlap_agrees_with_exact": (overlaps(2, 2, 2, sketched=1.01), overlaps(2, 2, 2, sketched=0.7)),
    "sketched_eigenvalues_near_exact": (eigenvalues(0.01), eigenvalues(0.1)),
    "a_posteriori_norm_estimate": (quality(norm=110.0), quality(norm=150.0)),
    "few_pairs_hold_the_hessian": (quality(residual=5.0), quality(residual=50.0)),
    "sketching_is_faster": (quality(seconds=2.0), quality(seconds=20.0)),
    "thousand_eigenpairs_of_ten_million_parameters": (
        quality(pairs=1500, p=11_000_000, methods=("sketched",)),
        quality(pairs=100, p=11_000_000, methods=("sketched",)),
    ),
}
EXPECTED = {
    "large_parameters_overlap_above_chance": 1.5,
    "overlap_reaches_twice_chance": 7 / 3,
    "overlap_peaks_early_then_falls": 0.5,  # the peak of 3 at step 100
    "effect_grows_with_network_size": 1.5,
    "initial_overlap_is_layer_scale": 0.1,
    "overlap_exceeds_layer_sizes": 1.5,
    "masks_settle_after_a_hundred_steps": 0.8,
    "sketched_overlap_agrees_with_exact": 0.01,
    "sketched_eigenvalues_near_exact": 0.01,
    "a_posteriori_norm_estimate": 0.1,
    "few_pairs_hold_the_hessian": 0.05,
    "sketching_is_faster": 5.0,
    "thousand_eigenpairs_of_ten_million_parameters": 1500.0,
}


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.name)
def test_each_claim_can_be_supported_and_contradicted(claim):
    good, bad = TABLES[claim.name]
    assert (decided(claim, good), decided(claim, bad)) == ("supported", "contradicted")


@pytest.mark.parametrize("claim", [c for c in CLAIMS if len(c.tables) > 1], ids=lambda claim: claim.name)
def test_runs_that_diverged_test_no_claim(claim):
    found = {name: frame.copy() for name, frame in TABLES[claim.name][0].items()}
    found[f"{STUDY}/runs"]["status"] = "diverged"
    with pytest.raises(NotTested, match="diverged"):
        claim.measure(found)


def test_what_is_measured_is_what_the_quantity_says():
    found = {name: list(values(NAMED[name], TABLES[name][0]).values()) for name in EXPECTED}
    assert found == {name: [pytest.approx(value)] for name, value in EXPECTED.items()}


def test_eigenspaces_are_compared_with_the_first_within_the_early_steps():
    found = values(NAMED["eigenspaces_alike_from_the_start"], stability(0.9, 0.1))
    assert found == {"train Hessian": pytest.approx(0.9), "test Hessian": pytest.approx(0.9)}


def test_masks_are_compared_with_eigenspaces_by_their_overlap():
    found = values(NAMED["eigenspaces_settle_before_masks"], stability(0.9, 0.5))
    assert found == {f"{split} Hessian": pytest.approx(0.9 - 2 / 3) for split in ("train", "test")}


def test_each_kind_of_random_pair_is_a_case_of_the_largest_dimension():
    found = values(NAMED["other_metrics_saturate"], metric_study(saturated=0.002))
    assert found == {f"random {pair} of R^1000": 0.002 for pair in ("subspaces", "subspace and mask", "masks")}


def test_the_most_trusted_method_of_each_run_counts():
    found = joined(overlaps(2, 2, 2, sketched=9.0), overlaps(3, 3, 3, seed=0, width=2.0))
    rows = found[f"{STUDY}/overlaps"]
    found[f"{STUDY}/overlaps"] = rows.assign(method=rows["method"].where(rows["width"] < 2, "sketched"))
    observations = NAMED["large_parameters_overlap_above_chance"].measure(found)
    assert observations.groupby("width")["value"].mean().to_dict() == {0.5: pytest.approx(2), 2.0: pytest.approx(3)}


def test_the_mask_nearest_to_a_twentieth_of_the_parameters_counts():
    found = joined(overlaps(9, 9, 9, k=100), overlaps(2, 2, 2, k=340), overlaps(9, 9, 9, k=1000))
    assert values(NAMED["large_parameters_overlap_above_chance"], found) == {"": pytest.approx(2)}


def test_a_method_that_lacks_the_largest_network_does_not_hide_it():
    large = of_sizes(2, 3)
    rows = large[f"{STUDY}/overlaps"]
    sketched = rows.assign(method="sketched")
    both = pd.concat([rows[rows["p"] == 1000].assign(overlap=0.9), sketched], ignore_index=True)
    assert values(NAMED["effect_grows_with_network_size"], tables(STUDY, overlaps=both)) == {"": pytest.approx(1.5)}


FEDERATED = overlaps(2, 2, 2, trainer="count_sketch-x10")


@pytest.mark.parametrize(
    ("name", "found", "reason"),
    [
        ("large_parameters_overlap_above_chance", FEDERATED, "SGD"),
        ("large_parameters_overlap_above_chance", overlaps(2, 2, 2, k=60), "eigenpairs of 5%"),
        ("overlap_exceeds_dead_inputs", overlaps(np.nan, np.nan, np.nan), "not known"),
        ("overlap_reaches_twice_chance", overlaps(2, 2, 2, p=7000), "7,030"),
        ("small_masks_fall_below_chance_late", overlaps(2, 2, 2), "k = 10"),
        ("effect_grows_with_network_size", overlaps(2, 2, 2), "several sizes"),
        ("eigenspaces_alike_from_the_start", stability(0.9, 0.1, start=10), "stability_steps"),
        ("sketched_overlap_agrees_with_exact", overlaps(2, 2, 2), "both exactly and by a sketch"),
        ("few_pairs_hold_the_hessian", quality(pairs=100), "5 % of the eigenpairs"),
        ("sketching_is_faster", quality(p=1000), "7,030"),
        ("sketching_is_faster", quality(methods=("sketched",)), "both exactly"),
        ("thousand_eigenpairs_of_ten_million_parameters", quality(), "GPU"),
        ("other_metrics_saturate", metric_study(ratio=0.9), "ratios"),
        ("overlap_is_share_of_dimensions", {f"{STUDY}/metric_study": pd.DataFrame()}, "no rows"),
    ],
)
def test_what_is_missing_is_named(name, found, reason):
    with pytest.raises(NotTested, match=reason):
        NAMED[name].measure(found)
