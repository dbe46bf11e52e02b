"""Measures of the claims on federated training: from the tables of the sketching study to observations."""

import numpy as np
import pandas as pd

from hessketch.claims.claim import NotTested, Tables
from hessketch.claims.observations import observed, required, rows

RUNS = "sharper_sketching/runs"
_CELL = ["dataset", "label_noise", "examples_per_class", "network", "norm", "width", "loss"]
_LEAST_REDUCTIONS = 3
_LEAST_RATIO_OF_P = 4
_SAME_SIZE = 1.25  # sketches within this ratio are of equal size


def count_sketch_less_top_r_with_feedback(tables: Tables) -> pd.DataFrame:
    """Test accuracy of Count-Sketch less that of Top-r with error feedback."""
    return _difference(tables, ("count_sketch", False), ("top_r", True))


def count_sketch_less_fetch_sgd_with_feedback(tables: Tables) -> pd.DataFrame:
    """Test accuracy of Count-Sketch less that of FetchSGD with error feedback."""
    return _difference(tables, ("count_sketch", False), ("fetch_sgd", True))


def gain_of_feedback_for_count_sketch(tables: Tables) -> pd.DataFrame:
    """Test accuracy of Count-Sketch with error feedback less that without."""
    return _difference(tables, ("count_sketch", True), ("count_sketch", False))


def gain_of_feedback_for_top_r(tables: Tables) -> pd.DataFrame:
    """Test accuracy of Top-r with error feedback less that without."""
    return _difference(tables, ("top_r", True), ("top_r", False))


def gain_of_feedback_for_fetch_sgd(tables: Tables) -> pd.DataFrame:
    """Test accuracy of FetchSGD with error feedback less that without."""
    return _difference(tables, ("fetch_sgd", True), ("fetch_sgd", False))


def loss_to_uncompressed(tables: Tables) -> pd.DataFrame:
    """Test accuracy of uncompressed training less that of Count-Sketch, at each reduction."""
    accuracies = _accuracies(rows(tables, RUNS))
    whole = accuracies.loc[accuracies["method"] == "uncompressed", [*_CELL, "seed", "accuracy"]]
    pairs = _of_method(accuracies, "count_sketch", False).merge(whole, on=[*_CELL, "seed"], suffixes=("", "_whole"))
    pairs = pairs.assign(value=pairs["accuracy_whole"] - pairs["accuracy"])
    return observed(pairs, "no uncompressed training beside count_sketch", _reductions(pairs))


def trend_of_feedback(tables: Tables) -> pd.DataFrame:
    """Slope of the gain by error feedback in log10 of the reduction, for Top-r and FetchSGD."""
    accuracies = _accuracies(rows(tables, RUNS))
    found = []
    for method in ("top_r", "fetch_sgd"):
        gains = _pairs(accuracies, (method, True), (method, False))
        for _, group in gains.groupby([*_CELL, "seed"], dropna=False):
            if group["reduction"].nunique() >= _LEAST_REDUCTIONS:
                slope = np.polyfit(np.log10(group["reduction"].to_numpy()), group["value"].to_numpy(), 1)[0]
                found.append({**group.iloc[0], "value": slope})
    if not found:
        raise NotTested(
            f"a trend needs {_LEAST_REDUCTIONS} reductions with and without error feedback, of top_r or fetch_sgd"
        )
    table = pd.DataFrame(found)
    return observed(table, "no slope", table["method"])


def _difference(tables: Tables, one: tuple[str, bool], other: tuple[str, bool]) -> pd.DataFrame:
    """Test accuracy of one method less that of another, pairs of one cell, reduction and seed."""
    pairs = _pairs(_accuracies(rows(tables, RUNS)), one, other)
    names = [f"{method} {'with' if feedback else 'without'} error feedback" for method, feedback in (one, other)]
    return observed(pairs, f"{' and '.join(names)} were not both trained at one reduction", _reductions(pairs))


def _pairs(accuracies: pd.DataFrame, one: tuple[str, bool], other: tuple[str, bool]) -> pd.DataFrame:
    keys = [*_CELL, "reduction", "seed"]
    second = _of_method(accuracies, *other)[[*keys, "accuracy"]]
    pairs = _of_method(accuracies, *one).merge(second, on=keys, suffixes=("", "_other"))
    return pairs.assign(value=pairs["accuracy"] - pairs["accuracy_other"])


def _of_method(accuracies: pd.DataFrame, method: str, feedback: bool) -> pd.DataFrame:
    return accuracies[(accuracies["method"] == method) & (accuracies["error_feedback"] == feedback)]


def _reductions(pairs: pd.DataFrame) -> pd.Series:
    return pairs["reduction"].map("x{:g}".format)


def _accuracies(runs: pd.DataFrame) -> pd.DataFrame:
    """One row a trainer and seed at the selected rate: `accuracy`, which of a run that diverged is that of a guess."""
    group = [*_CELL, "method", "error_feedback", "reduction"]
    none_selected = ~runs.groupby(group, dropna=False)["selected"].transform("any")
    chosen = runs[runs["selected"] | none_selected].drop_duplicates([*group, "seed"])
    finished = chosen["status"] == "finished"
    return chosen.assign(accuracy=chosen["test_accuracy"].where(finished, 1 / chosen["classes"]))


def lift_error_from_theory(tables: Tables) -> pd.DataFrame:
    """|mean over rounds of the lift's squared error over that of theory - 1|, Count-Sketch without error feedback."""
    rounds = rows(tables, "sharper_sketching/rounds")
    own = rounds[(rounds["method"] == "count_sketch") & ~rounds["error_feedback"]]
    ratio = own["lift_error"] / own["lift_error_theory"].where(own["lift_error_theory"] > 0)
    keys = [*_CELL, "reduction", "seed"]
    means = own.assign(ratio=ratio).groupby(keys, dropna=False)["ratio"].mean().reset_index()
    sizes = _of_method(rows(tables, RUNS), "count_sketch", False).drop_duplicates(keys)
    pairs = means.merge(sizes[[*keys, "p", "n"]], on=keys)
    missing = "no Count-Sketch without error feedback, or its processes did not know the error of the lift"
    return observed(pairs.assign(value=(pairs["ratio"] - 1).abs()), missing, _reductions(pairs))


def kappa_of_hessian_over_p(tables: Tables) -> pd.DataFrame:
    """Largest kappa / p of the train Hessian over the checkpoints of each trainer."""
    table = rows(tables, "sharper_sketching/curvature")
    own = table[(table["operator"] == "hessian") & (table["split"] == "train") & np.isfinite(table["kappa"])]
    own = own.assign(value=own["kappa"] / own["p"]).sort_values("value", ascending=False)
    worst = own.drop_duplicates([*_CELL, "trainer", "seed"])
    return observed(worst, "no checkpoint has a kappa of its train Hessian", worst["trainer"])


def exponent_of_rounds(tables: Tables) -> pd.DataFrame:
    """log(ratio of rounds) / log(ratio of p) of two widths whose sketches have as many numbers.

    Rounds are those to half of the training loss of a guess, log C. A wider network that does not get there counts with
    one round more than it has; pairs whose narrower one does not are left out.
    """
    runs = rows(tables, RUNS)
    runs = runs[(runs["method"] == "count_sketch") & ~runs["error_feedback"] & (runs["loss"] == "cross_entropy")]
    runs = runs[runs["selected"] & (runs["status"] == "finished")]
    keys = [*_CELL, "reduction", "seed"]
    reached = _rounds_to_half(runs, rows(tables, "sharper_sketching/rounds"), keys)
    sized = required(runs, "no Count-Sketch without error feedback finished").merge(reached, on=keys)
    same = [name for name in _CELL if name != "width"]
    pairs = sized.merge(sized, on=[*same, "seed"], suffixes=("_narrow", ""))
    equal = np.abs(np.log(pairs["upload_numbers"] / pairs["upload_numbers_narrow"])) <= np.log(_SAME_SIZE)
    pairs = pairs[equal & (pairs["p"] >= _LEAST_RATIO_OF_P * pairs["p_narrow"]) & pairs["reached_narrow"].notna()]
    more = pairs["reached"].fillna(pairs["last"] + 1) / pairs["reached_narrow"]
    pairs = pairs.assign(value=np.log(more) / np.log(pairs["p"] / pairs["p_narrow"]))
    missing = (
        f"needs two widths of one network with p {_LEAST_RATIO_OF_P} times apart and sketches of equal size b: "
        "give federation.networks two widths and reductions in proportion to p"
    )
    return observed(pairs, missing, "b = " + pairs["upload_numbers"].astype(str))


def _rounds_to_half(runs: pd.DataFrame, rounds: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Of each run the first round whose training loss is at most log(C) / 2 (NaN: none) and the last one."""
    own = rounds.merge(runs[[*keys, "trainer", "classes"]], on=[*keys, "trainer"])
    low = own["train_loss"] <= np.log(own["classes"]) / 2
    own = own.assign(reached=own["round"].where(low).astype(float))
    return own.groupby(keys, dropna=False).agg(reached=("reached", "min"), last=("round", "max")).reset_index()
