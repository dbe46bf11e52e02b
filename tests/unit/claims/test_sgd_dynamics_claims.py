"""Claims on SGD dynamics against made tables whose values are known by hand."""

import numpy as np
import pandas as pd
import pytest
from made_runs import decided, of_seeds, run, tables, values

from hessketch.claims.claim import NotTested
from hessketch.claims.sgd_dynamics import CLAIMS

NAMED = {claim.name: claim for claim in CLAIMS}
STEPS = (0, 10, 100)
STUDY = "sgd_dynamics"


def overlaps(*courses):
    """Of each (changes, overlaps at STEPS) a run."""
    pair = {"first": "hessian", "second": "second_moment", "k": 2, "chance": 0.02}
    return tables(
        STUDY,
        overlaps=of_seeds(
            {**run(**changes), **pair, "step": step, "overlap": value}
            for changes, course in courses
            for step, value in zip(STEPS, course, strict=True)
        ),
    )


def eigenvalues(*courses, moment=1.0, trace=None):
    """Of each (changes, [(first, second) at STEPS]) a run.

    The second moment has `moment` of each of the Hessian's, with label noise ten times that.
    """
    rows = [
        {**run(**changes), "step": step, "rank": rank, "operator": operator, "eigenvalue": factor * value}
        for changes, course in courses
        for step, both in zip(STEPS, course, strict=True)
        for rank, value in enumerate(both, start=1)
        for operator, factor in (("hessian", 1.0), ("second_moment", (10 if "label_noise" in changes else 1) * moment))
    ]
    named = {"eigenvalues": of_seeds(rows)}
    if trace:
        named["curvature"] = curvature(*(changes for changes, _ in courses), trace=trace)[f"{STUDY}/curvature"]
    return tables(STUDY, **named)


def curvature(*runs, trace=1.0, near_zero=0.9, smallest=-0.1):
    measured = {"trace": trace, "near_zero_share": near_zero, "smallest_eigenvalue": smallest, "largest_eigenvalue": 1}
    rows = [
        {**run(**changes), "step": step, "operator": operator, **measured}
        for changes in runs or ({},)
        for step in STEPS
        for operator in ("hessian", "second_moment")
    ]
    return tables(STUDY, curvature=of_seeds(rows))


def loss_changes(shares=(1.0, 0.7, 0.5), scheme="fixed", mean=-1.0, predicted=-1.0, upper=0.0, **changes):
    """Quantiles from -2.5 to -0.5 within the bounds -3 and `upper`."""
    levels = (1, 5, 10, 25, 50, 75, 90, 95, 99)
    quantiles = {f"q{q:02d}": value for q, value in zip(levels, np.linspace(-2.5, -0.5, 9), strict=True)}
    point = {
        "scheme": scheme, "mean": mean, "predicted_mean": predicted, "standard_error": 0.01, "bound_lower": -3.0,
        "bound_upper": upper, "bound_probability": 0.05, "regime": "decreases", **quantiles,
    }  # fmt: skip
    rows = [
        {**run(**changes), **point, "step": step, "share_decreasing": share}
        for step, share in zip(STEPS, shares, strict=True)
    ]
    return tables(STUDY, loss_changes=of_seeds(rows))


def bounds(*settings, active=(1, 10)):
    """Of each (label noise, bound, test error) a run, with two priors of which the narrower one is chosen."""
    rows = [
        {
            **run(label_noise=noise, classes=10),
            **{"sigma": sigma, "chosen": chosen, "bound": bound, "test_error": error, "active": count},
        }
        for noise, bound, error in settings
        for sigma, chosen, count in ((0.5, True, active[0]), (10.0, False, active[1]))
    ]
    return tables(STUDY, bounds=of_seeds(rows))


NOISY = {"label_noise": 0.5}
SMALL = {"trainer": "sgd-b5", "batch_size": 5}
FLAT = [(4.0, 2.0)] * 3
PEAK = [(1.0, 1.0), (4.0, 2.0), (2.0, 1.0)]
HIGHER = [(1.0, 1.0), (8.0, 4.0), (6.0, 3.0)]
TABLES = {
    "dominant_eigenspaces_agree_early": (overlaps(({}, (0.9, 0.8, 0.1))), overlaps(({}, (0.1, 0.2, 0.9)))),
    "dominant_eigenvalues_differ": (eigenvalues(({}, FLAT), moment=0.25), eigenvalues(({}, FLAT), moment=0.75)),
    "most_hessian_eigenvalues_near_zero": (curvature(near_zero=0.9), curvature(near_zero=0.3)),
    "second_moment_lies_in_as_many_directions_as_classes": (
        eigenvalues(({}, FLAT), trace=8.0),
        eigenvalues(({}, FLAT), trace=60.0),
    ),
    "hessian_keeps_negative_eigenvalues": (curvature(smallest=-0.1), curvature(smallest=-1e-9)),
    "top_eigenvalues_rise_then_fall": (eigenvalues(({}, PEAK)), eigenvalues(({}, FLAT))),
    "label_noise_raises_top_eigenvalue": (
        eigenvalues(({}, PEAK), (NOISY, HIGHER)),
        eigenvalues(({}, HIGHER), (NOISY, PEAK)),
    ),
    "label_noise_keeps_top_eigenvalue": (
        eigenvalues(({}, PEAK), (NOISY, FLAT)),
        eigenvalues(({}, FLAT), (NOISY, PEAK)),
    ),
    "overlap_falls_late": (overlaps(({}, (0.9, 0.9, 0.1))), overlaps(({}, (0.1, 0.1, 0.9)))),
    "overlap_falls_with_label_noise": (
        overlaps(({}, (0.9, 0.9, 0.9)), (NOISY, (0.5, 0.5, 0.5))),
        overlaps(({}, (0.5, 0.5, 0.5)), (NOISY, (0.9, 0.9, 0.9))),
    ),
    "batch_size_leaves_spectral_shape": (
        eigenvalues(({}, FLAT), (SMALL, [(8.0, 0.0), (8.0, 4.0), (8.0, 4.0)])),
        eigenvalues(({}, FLAT), (SMALL, [(4.0, 1.0)] * 3)),
    ),
    "steps_lower_the_loss_early": (loss_changes((1.0, 0.5, 0.5)), loss_changes((0.6, 1.0, 1.0))),
    "loss_change_symmetric_late": (loss_changes((1.0, 1.0, 0.52)), loss_changes((0.5, 0.5, 0.9))),
    "quantile_bounds_hold": (loss_changes(upper=0.0), loss_changes(upper=-1.0)),
    "second_order_mean_predicts_loss_change": (loss_changes(predicted=-1.05), loss_changes(predicted=-0.5)),
    "adaptive_steps_lower_the_mean_loss": (
        loss_changes(scheme="adaptive", mean=-1.0),
        loss_changes(scheme="adaptive", mean=0.1),
    ),
    "bound_rises_with_label_noise": (
        bounds((0.0, 0.3, 0.1), (0.5, 0.8, 0.1)),
        bounds((0.0, 0.8, 0.1), (0.5, 0.3, 0.1)),
    ),
    "effective_curvature_counts_few_parameters": (
        bounds((0.0, 0.3, 0.1), active=(1, 10)),
        bounds((0.0, 0.3, 0.1), active=(1, 90)),
    ),
    "bound_ranks_test_errors": (
        bounds((0.0, 0.3, 0.1), (0.2, 0.4, 0.2), (0.5, 0.5, 0.3)),
        bounds((0.0, 0.3, 0.3), (0.2, 0.4, 0.2), (0.5, 0.5, 0.1)),
    ),
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
    expected = {
        "dominant_eigenspaces_agree_early": 0.85,  # of 0.9 and 0.8, the first two of three
        "dominant_eigenvalues_differ": 0.75,
        "second_moment_lies_in_as_many_directions_as_classes": 0.75,
        "hessian_keeps_negative_eigenvalues": 0.1,
        "label_noise_raises_top_eigenvalue": np.log10(2),  # 4 to 8
        "label_noise_keeps_top_eigenvalue": np.log10(2),  # 2 to 4
        "overlap_falls_late": -0.8,
        "overlap_falls_with_label_noise": -0.4,
        "batch_size_leaves_spectral_shape": 0.0,  # both have half of the first, but before training
        "loss_change_symmetric_late": 0.02,
        "second_order_mean_predicts_loss_change": 0.05,
        "bound_rises_with_label_noise": 0.5,
        "effective_curvature_counts_few_parameters": 0.1,  # 10 of 100, at the wider prior
        "bound_ranks_test_errors": 1.0,
    }
    found = {name: list(values(NAMED[name], TABLES[name][0]).values()) for name in expected}
    assert found == {name: [pytest.approx(value)] for name, value in expected.items()}


def test_cases_are_told_apart_by_trainer_and_scheme():
    both = of_seeds(run(trainer=name, batch_size=size) for name, size in (("sgd-b50", 50), ("sgd-b5", 5)))
    both = both.merge(loss_changes()[f"{STUDY}/loss_changes"].drop(columns=["trainer", "batch_size"]))
    both = pd.concat([both, both.assign(scheme="adaptive", mean=2.0)])
    found = values(NAMED["second_order_mean_predicts_loss_change"], tables(STUDY, loss_changes=both))
    assert found == {
        "sgd-b50, fixed steps": 0.0, "sgd-b5, fixed steps": 0.0,
        "sgd-b50, adaptive steps": 1.5, "sgd-b5, adaptive steps": 1.5,
    }  # fmt: skip


def test_a_seed_without_one_end_of_a_sweep_is_left_out():
    found = overlaps(({}, (0.9, 0.9, 0.9)), ({"label_noise": 0.2}, (0.8, 0.8, 0.8)), (NOISY, (0.5, 0.5, 0.5)))
    rows = found[f"{STUDY}/overlaps"]
    found[f"{STUDY}/overlaps"] = rows[(rows["seed"] == 0) | (rows["label_noise"] < 0.5)]
    observations = NAMED["overlap_falls_with_label_noise"].measure(found)
    assert observations[["seed", "value"]].to_numpy().tolist() == [[0, pytest.approx(-0.4)]]


def test_an_overlap_that_is_not_defined_is_left_out():
    found = overlaps(({}, (np.nan, 0.8, 0.1)))
    assert values(NAMED["dominant_eigenspaces_agree_early"], found) == {"": pytest.approx(0.8)}


@pytest.mark.parametrize(
    ("name", "found", "reason"),
    [
        ("dominant_eigenspaces_agree_early", overlaps((NOISY, (1.0, 1.0, 1.0))), "true labels"),
        ("dominant_eigenspaces_agree_early", overlaps(({"classes": 3}, (1.0, 1.0, 1.0))), "as many dimensions"),
        ("dominant_eigenspaces_agree_early", overlaps(({}, (np.nan,) * 3)), "not known"),
        ("dominant_eigenvalues_differ", eigenvalues(({"classes": 3}, FLAT)), "top: classes"),
        ("most_hessian_eigenvalues_near_zero", curvature(near_zero=np.nan), "exact_up_to"),
        ("top_eigenvalues_rise_then_fall", eigenvalues(({"batch_size": 500}, PEAK)), "fewer than all examples"),
        ("label_noise_raises_top_eigenvalue", eigenvalues(({}, PEAK)), "label_noise"),
        ("label_noise_raises_top_eigenvalue", eigenvalues(({"label_noise": 0.2}, PEAK), (NOISY, PEAK)), "label_noise"),
        ("batch_size_leaves_spectral_shape", eigenvalues(({}, PEAK)), "batch_size"),
        ("adaptive_steps_lower_the_mean_loss", loss_changes(scheme="fixed"), "adaptive"),
        ("steps_lower_the_loss_early", loss_changes(batch_size=500), "fewer than all examples"),
        ("bound_ranks_test_errors", bounds((0.0, 0.3, 0.1), (0.2, 0.4, 0.2)), "3 settings"),
        ("bound_ranks_test_errors", bounds((0.0, 0.5, 0.1), (0.2, 0.5, 0.2), (0.5, 0.5, 0.3)), "differ"),
        ("bound_ranks_test_errors", bounds((0.0, 0.9, 0.1), (0.2, 0.95, 0.2), (0.5, 1.0, 0.3)), "above guessing"),
        ("bound_ranks_test_errors", bounds((0.0, 0.4, 0.1), (0.2, 0.5, 0.2), (0.5, 0.9, 0.3)), "3 settings"),
        ("bound_rises_with_label_noise", bounds((0.0, 0.9, 0.1), (0.5, 0.95, 0.1)), "above guessing"),
        ("bound_rises_with_label_noise", bounds((0.0, 0.3, 0.1), (0.5, 0.95, 0.1)), "of every pair one bound"),
    ],
)  # fmt: skip
def test_what_is_missing_is_named(name, found, reason):
    with pytest.raises(NotTested, match=reason):
        NAMED[name].measure(found)
