"""Claims of Shrivastava et al. 2024: measures on tables whose answer is known, and both verdicts of each."""

import numpy as np
import pandas as pd
import pytest
from made_trainings import bad, curvature, densities, good, kappa, rounds, runs

from hessketch.claims import predictor_hessian, sharper_sketching
from hessketch.claims.claim import OBSERVED, NotTested
from hessketch.claims.verdicts import CONTRADICTED, SUPPORTED, verdict

CLAIMS = {claim.name: claim for claim in (*sharper_sketching.CLAIMS, *predictor_hessian.CLAIMS)}
LOG_C = np.log(10)


def of_sketching(accuracy=good, lift: float = 1.0, of_kappa: float = 10.0) -> dict[str, pd.DataFrame]:
    made = runs(accuracy)
    tables = {"runs": made, "rounds": rounds(made, lift), "curvature": curvature(of_kappa)}
    return {f"sharper_sketching/{name}": table for name, table in tables.items()}


def of_predictor(width: float | None = None, **changed) -> dict[str, pd.DataFrame]:
    table = kappa(**changed)
    return {"predictor_hessian/kappa": table, "predictor_hessian/density": densities(table, width) if width else table}


def of_widths(rounds_of_wide: int, b_of_wide: int = 100) -> dict[str, pd.DataFrame]:
    """Two widths, p 16 times apart: the narrow one reaches half of log C in round 4, the wide one later or never."""
    narrow = runs(good, seeds=1, reductions=[10.0]).assign(width=1.0, p=1000)
    wide = runs(good, seeds=1, reductions=[160.0]).assign(width=4.0, p=16_000, upload_numbers=b_of_wide)
    both = pd.concat([narrow, wide], ignore_index=True)

    def losses(row: dict) -> list[float]:
        reached = 4 if row["width"] == 1 else rounds_of_wide
        return [LOG_C if number < reached else LOG_C / 2 for number in range(1, 64)]

    return {"sharper_sketching/runs": both, "sharper_sketching/rounds": rounds(both, losses=losses)}


# Claim: tables that support it and the value they have, tables that contradict it and theirs.
KNOWN = {
    "count_sketch_competes_with_top_r_with_feedback": (of_sketching(), 0.0, of_sketching(bad), -0.4),
    "count_sketch_competes_with_fetch_sgd_with_feedback": (of_sketching(), 0.0, of_sketching(bad), -0.4),
    "count_sketch_keeps_the_accuracy": (of_sketching(), 0.0, of_sketching(bad), 0.5),
    "count_sketch_needs_no_feedback": (of_sketching(), 0.0, of_sketching(bad), 0.4),
    "top_r_needs_feedback": (of_sketching(), 0.2, of_sketching(bad), -0.2),
    "fetch_sgd_needs_feedback": (of_sketching(), 0.2, of_sketching(bad), -0.2),
    "feedback_matters_more_at_high_reduction": (of_sketching(), 0.1, of_sketching(bad), -0.1),
    "lift_has_the_variance_of_theory": (of_sketching(lift=0.95), 0.05, of_sketching(lift=2.0), 1.0),
    "kappa_of_the_loss_hessian_is_far_below_p": (
        of_sketching(of_kappa=16.842), 0.001, of_sketching(of_kappa=1684.2), 0.1,
    ),
    "rounds_do_not_grow_with_p": (of_widths(8), 0.25, of_widths(64), 1.0),  # 64: never, thus one more than 63
    "kappa_of_the_predictor_is_far_below_p": (of_predictor(value=22.0), 2e-6, of_predictor(value=2.2e5), 0.02),
    "kappa_of_the_predictor_at_scale": (of_predictor(value=22.0), 2e-6, of_predictor(value=2.2e5), 0.02),
    "kappa_of_the_predictor_stays_small_under_sketching": (
        of_predictor(value=22.0), 2e-6, of_predictor(value=2.2e5), 0.02,
    ),
    "kappa_keeps_its_order_over_epochs": (of_predictor(last=10.0), 2.0, of_predictor(last=1000.0), 50.0),
    "predictor_spectrum_is_concentrated_at_zero": (of_predictor(width=0.1), 1.0, of_predictor(width=1.0), 0.2),
    "predictor_spectrum_has_both_signs": (of_predictor(), 0.5, of_predictor(smallest=1e-3), 0.0),
}  # fmt: skip


@pytest.mark.parametrize("name", CLAIMS)
def test_trainings_as_the_paper_says_support_a_claim_and_others_contradict_it(name):
    supporting, value, contradicting, other = KNOWN[name]
    observations = CLAIMS[name].measure(supporting)
    assert tuple(observations) == OBSERVED and observations[["value", "p", "n"]].notna().all(axis=None)
    assert not observations.duplicated(["dataset", "network", "width", "case", "seed"]).any()
    found = verdict(CLAIMS[name], observations)
    assert (found["verdict"], found["value"]) == (SUPPORTED, pytest.approx(value, abs=1e-3 * abs(value) + 1e-12))
    found = verdict(CLAIMS[name], CLAIMS[name].measure(contradicting))
    assert (found["verdict"], found["value"]) == (CONTRADICTED, pytest.approx(other, abs=0.05 * abs(other) + 1e-12))


@pytest.mark.parametrize("name", CLAIMS)
def test_tables_without_rows_decide_nothing(name):
    with pytest.raises(NotTested):
        CLAIMS[name].measure({key: table.iloc[:0] for key, table in KNOWN[name][0].items()})


def test_each_reduction_is_a_case_and_the_worst_decides():
    def accuracy(method: str, feedback: bool, reduction: float) -> float:
        return 0.8 - 0.3 * (method == "count_sketch" and reduction == 1000)

    claim = CLAIMS["count_sketch_keeps_the_accuracy"]
    found = verdict(claim, claim.measure(of_sketching(accuracy)))
    assert found["value"] == pytest.approx(0.3) and (found["cases"], found["cases_met"]) == (3, 2)
    assert found["deciding_case"] == "fashion_mnist, mlp x 1, x1000" and found["seeds"] == 3


def test_a_run_that_diverged_counts_as_a_guess_whether_its_rate_was_selected_or_none_was():
    claim = CLAIMS["top_r_needs_feedback"]
    for selected in (True, False):
        made = runs(good, seeds=1)
        lost = (made["method"] == "top_r") & ~made["error_feedback"]
        made.loc[lost, ["status", "selected", "test_accuracy"]] = ["diverged", selected, np.nan]
        assert claim.measure({"sharper_sketching/runs": made})["value"].tolist() == pytest.approx([0.7] * 3)


def test_rates_that_were_not_selected_are_not_looked_at():
    claim, made = CLAIMS["top_r_needs_feedback"], runs(good, seeds=1)
    others = made.assign(learning_rate=0.5, selected=False, test_accuracy=0.99)
    found = claim.measure({"sharper_sketching/runs": pd.concat([others, made], ignore_index=True)})
    assert found["value"].tolist() == pytest.approx([0.1, 0.2, 0.3])


def test_two_reductions_make_no_trend():
    made = {"sharper_sketching/runs": runs(good, reductions=[10.0, 100.0])}
    with pytest.raises(NotTested, match="3 reductions"):
        CLAIMS["feedback_matters_more_at_high_reduction"].measure(made)


def test_rounds_of_sketches_of_unequal_size_are_not_compared():
    with pytest.raises(NotTested, match="equal size"):
        CLAIMS["rounds_do_not_grow_with_p"].measure(of_widths(8, b_of_wide=200))


def test_kappa_at_scale_takes_a_large_network_and_names_the_largest_there_is():
    with pytest.raises(NotTested, match="44,540 parameters"):
        CLAIMS["kappa_of_the_predictor_at_scale"].measure(of_predictor(p=44_540))


def test_undefined_kappas_are_left_out_and_other_losses_are_other_cases():
    tables = of_predictor(value=22.0)
    table = tables["predictor_hessian/kappa"]
    table.loc[table["time"] == 0, "kappa"] = np.nan
    found = CLAIMS["kappa_of_the_predictor_is_far_below_p"].measure(tables)
    assert found["value"].tolist() == pytest.approx([2e-6, 2e-6])
    assert sorted(found["case"]) == ["binary_cross_entropy", "sigmoid_squared_error"]


def test_a_density_blurred_over_a_tenth_of_its_range_is_not_looked_at():
    tables = of_predictor(width=0.1)
    tables["predictor_hessian/density"]["broadening"] = 0.1
    with pytest.raises(NotTested, match="resolves"):
        CLAIMS["predictor_spectrum_is_concentrated_at_zero"].measure(tables)
