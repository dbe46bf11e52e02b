"""Measures of the claims on subspaces: how they settle, what metrics say of random ones, how sketches find them."""

import numpy as np
import pandas as pd

from hessketch.claims.claim import Tables
from hessketch.claims.eigenspaces_measures import STUDY, THEIR_SIZE, at_share, by_sgd
from hessketch.claims.measuring import SHORT, at_first, finished, of_runs, worded_cases
from hessketch.claims.observations import MANY_PARAMETERS, observed, required, rows
from hessketch.runs import IDENTITY

EARLY_STEPS = 250
"""Steps of the authors' maps of early training."""
SETTLED_STEPS = 100
_FEW_STEPS = "needs checkpoints within the first 250 steps (stability_steps)"
_SATURATING = ("chordal_max", "projection_max", "fubini_study")
_RATIOS = (0.05, 0.3)
_SHARES = (0.04, 0.06)  # of p: what counts as 5 % of the eigenpairs
_LEADING = 4
_WORDS = {"trainer": "{}", "split": "{} Hessian"}
_POINT = [*IDENTITY, "time", "split"]
_NO_PAIR = "no network was decomposed both exactly and by a sketch"


def similarity_to_start(tables: Tables) -> pd.DataFrame:
    """Overlap of the first checkpoint's eigenspace with those of early ones, mean, each ratio."""
    frame = _with_start(tables, "eigenspace")
    return _observed(of_runs(frame.assign(value=frame["similarity"]), also=["split", "ratio"]))


def settled_masks(tables: Tables) -> pd.DataFrame:
    """Intersection over union of the masks of two checkpoints between 100 and 250 steps, mean, each ratio."""
    frame = _of(tables, "mask")
    frame = frame[(frame["first"] >= SETTLED_STEPS) & (frame["second"] <= EARLY_STEPS)]
    frame = required(frame, "needs two checkpoints between 100 and 250 steps (stability_steps)")
    return _observed(of_runs(frame.assign(value=frame["similarity"]), also=["ratio"]))


def eigenspaces_less_masks(tables: Tables) -> pd.DataFrame:
    """Overlap of the first eigenspace with early ones less that of masks, mean, each ratio."""
    spaces, masks = _with_start(tables, "eigenspace"), _with_start(tables, "mask")
    masks = masks.assign(overlap=2 * masks["similarity"] / (1 + masks["similarity"]))  # of intersection over union
    keys = [*IDENTITY, "ratio", "first", "second"]
    both = spaces.merge(masks[[*keys, "overlap"]], on=keys)
    return _observed(of_runs(both.assign(value=both["similarity"] - both["overlap"]), also=["split", "ratio"]))


def overlap_off_diagonal(tables: Tables) -> pd.DataFrame:
    """Largest difference of the median overlap of random pairs and k / D, over ratios, each D and kind of pair."""
    frame = rows(tables, f"{STUDY}/metric_study")
    frame = frame[(frame["metric"] == "overlap") & frame["pair"].isin(("subspaces", "subspace and mask"))]
    frame = required(frame, "the overlap of random subspaces was not measured")
    return _of_metrics(frame.assign(value=(frame["q50"] - frame["k"] / frame["dimension"]).abs()))


def saturated_similarity(tables: Tables) -> pd.DataFrame:
    """Largest median similarity of random pairs by the metrics that saturate, at the largest D, each kind of pair."""
    frame = rows(tables, f"{STUDY}/metric_study")
    low, high = _RATIOS
    frame = frame[frame["metric"].isin(_SATURATING) & frame["ratio"].between(low, high)]
    frame = required(frame, f"needs ratios k / D from {low} to {high}")
    return _of_metrics(frame[frame["dimension"] == frame["dimension"].max()].assign(value=frame["q50"]))


def sketched_overlap_error(tables: Tables) -> pd.DataFrame:
    """Relative difference of sketched and exact overlap of magnitude masks at 5 % of p, mean over checkpoints."""
    frame = by_sgd(tables, "overlaps")
    both = _exact_and_sketched(at_share(frame[frame["mask"] == "magnitude"]), "overlap", ["k"])
    return _observed(of_runs(both, also=["split"]))


def sketched_eigenvalue_error(tables: Tables) -> pd.DataFrame:
    """Largest relative error of the four leading eigenvalues, mean over checkpoints."""
    frame = by_sgd(tables, "eigenvalues")
    both = _exact_and_sketched(frame[frame["rank"] <= _LEADING], "eigenvalue", ["rank"])
    return _observed(of_runs(of_runs(both, "max", also=["time", "split"]), also=["split"]))


def norm_estimate_error(tables: Tables) -> pd.DataFrame:
    """Relative error of the sketch's estimate of the squared Frobenius norm, mean over checkpoints."""
    both = _exact_and_sketched(by_sgd(tables, "quality"), "frobenius_squared", [])
    return _observed(of_runs(both, also=["split"]))


def residual_share(tables: Tables) -> pd.DataFrame:
    """Share of the squared Frobenius norm that a sketch of 5 % of the pairs leaves, mean over later checkpoints."""
    frame = by_sgd(tables, "quality")
    frame = frame[(frame["method"] == "sketched") & (frame["pairs"] / frame["p"]).between(*_SHARES)]
    frame = required(frame, "no sketch has 5 % of the eigenpairs (pairs: 0.05)")
    frame = required(frame[~at_first(frame, "time")], SHORT)
    return _observed(
        of_runs(frame.assign(value=frame["residual_squared"] / frame["frobenius_squared"]), also=["split"])
    )


def times_faster(tables: Tables) -> pd.DataFrame:
    """Exact seconds over sketched seconds, mean over checkpoints, of networks as large as the authors'."""
    frame = by_sgd(tables, "quality")
    frame = required(frame[frame["p"] >= THEIR_SIZE], f"no network has {THEIR_SIZE:,} parameters or more")
    both = _exact_and_sketched(frame, "seconds", [])
    return _observed(of_runs(both.assign(value=both["seconds_exact"] / both["seconds"]), also=["split"]))


def pairs_at_scale(tables: Tables) -> pd.DataFrame:
    """Eigenpairs that were found of networks of more than ten million parameters."""
    frame = finished(tables, f"{STUDY}/quality")
    large = required(
        frame[frame["p"] > MANY_PARAMETERS],
        f"the largest network has {frame['p'].max():,} parameters, more than {MANY_PARAMETERS:,} are needed: a "
        "ResNet18 of width 1 with pairs: 1500, on a GPU",
    )
    return _observed(of_runs(large.assign(value=large["pairs"].astype(float)), "max", also=["split"]))


def _with_start(tables: Tables, of: str) -> pd.DataFrame:
    frame = _of(tables, of)
    frame = frame[(frame["first"] == 0) & (frame["second"] > 0) & (frame["second"] <= EARLY_STEPS)]
    return required(frame, _FEW_STEPS)


def _of(tables: Tables, of: str) -> pd.DataFrame:
    frame = by_sgd(tables, "stability")
    return required(frame[(frame["of"] == of) & (frame["first"] < frame["second"])], _FEW_STEPS)


def _of_metrics(frame: pd.DataFrame) -> pd.DataFrame:
    largest = frame.groupby(["pair", "dimension"], sort=False)["value"].max().reset_index()
    words = "random " + largest["pair"] + " of R^" + largest["dimension"].astype(str)
    none = {"dataset": "", "network": "", "norm": "none", "width": np.nan, "n": np.nan, "seed": 0}
    return observed(largest.assign(**none, p=largest["dimension"]), "no medians", words)


def _exact_and_sketched(frame: pd.DataFrame, column: str, also: list[str]) -> pd.DataFrame:
    """Sketched rows with the exact `column` as `column_exact`, `value` their relative difference."""
    keys = [*_POINT, *also]
    exact = frame.loc[frame["method"] == "exact", [*keys, column]]
    both = frame[frame["method"] == "sketched"].merge(exact, on=keys, suffixes=("", "_exact"))
    difference = (both[column] - both[f"{column}_exact"]).abs() / both[f"{column}_exact"].abs()
    return required(both.assign(value=difference), _NO_PAIR)


def _observed(frame: pd.DataFrame) -> pd.DataFrame:
    words = _WORDS if "split" in frame else {"trainer": "{}"}
    words = {**words, "ratio": "k = {:g} p"} if "ratio" in frame else words
    return worded_cases(frame, words)
