"""Measures of the claims on Hessian and second moment along SGD: spectra, dominant eigenspaces, the effect of noise."""

import numpy as np
import pandas as pd

from hessketch.claims.claim import Tables
from hessketch.claims.measuring import (
    SHORT,
    at_first,
    at_last,
    decades,
    ends_along,
    finished,
    first_half,
    of_runs,
    worded_cases,
)
from hessketch.claims.observations import NOT_KNOWN, required
from hessketch.runs import IDENTITY
from hessketch.studies.sgd_dynamics import courses

STUDY = "sgd_dynamics"
TRAINERS = {"trainer": "{}"}
_NETWORK = ["dataset", "examples_per_class", "network", "norm", "width", "loss", "n", "p"]
_LEAST_COURSE = 3  # checkpoints that can show a rise and a fall
_NO_SWEEP = "needs runs with label noise beside the same ones without (label_noise: [0, 0.5])"


def early_overlap(tables: Tables) -> pd.DataFrame:
    """Overlap of Hessian and second moment, mean over the first half of the checkpoints, without label noise."""
    frame = clean(_overlaps(tables))
    return _observed(of_runs(frame[first_half(frame, "step")]))


def eigenvalue_difference(tables: Tables) -> pd.DataFrame:
    """Relative difference of both matrices' eigenvalues, mean over ranks to C and the first half of checkpoints."""
    frame = clean(_leading(finished(tables, f"{STUDY}/eigenvalues")))
    frame = frame[first_half(frame, "step")]
    keys = [*IDENTITY, "step", "rank"]
    hessian, moment = (frame[frame["operator"] == name] for name in ("hessian", "second_moment"))
    both = hessian.merge(moment[[*keys, "eigenvalue"]], on=keys, suffixes=("", "_moment"))
    larger = both[["eigenvalue", "eigenvalue_moment"]].abs().max(axis="columns")
    apart = (both["eigenvalue"] - both["eigenvalue_moment"]).abs()
    return _observed(of_runs(both.assign(value=apart / larger.where(larger > 0))))


def near_zero_share(tables: Tables) -> pd.DataFrame:
    """Share of the Hessian's eigenvalues near zero, mean over checkpoints."""
    frame = _of(finished(tables, f"{STUDY}/curvature"), "hessian")
    missing = "no Hessian was decomposed whole: exact_up_to is below every network's number of parameters"
    return _observed(of_runs(frame.assign(value=frame["near_zero_share"])), missing)


def leading_trace_share(tables: Tables) -> pd.DataFrame:
    """Share of the second moment's trace in its C largest eigenvalues, mean over checkpoints."""
    leading = _of(_leading(finished(tables, f"{STUDY}/eigenvalues")), "second_moment")
    keys = [*IDENTITY, "step"]
    sums = leading.groupby(keys, dropna=False)["eigenvalue"].agg(lambda values: values.sum(skipna=False)).reset_index()
    frame = _of(finished(tables, f"{STUDY}/curvature"), "second_moment").merge(sums, on=keys)
    return _observed(of_runs(frame.assign(value=frame["eigenvalue"] / frame["trace"].where(frame["trace"] > 0))))


def negative_ratio(tables: Tables) -> pd.DataFrame:
    """- smallest / largest eigenvalue of the Hessian, mean over checkpoints."""
    frame = _of(finished(tables, f"{STUDY}/curvature"), "hessian")
    largest = frame["largest_eigenvalue"]
    return _observed(of_runs(frame.assign(value=-frame["smallest_eigenvalue"] / largest.where(largest > 0))))


def rises_then_falls(tables: Tables) -> pd.DataFrame:
    """1 where the largest eigenvalue rises and then falls, 0 where not, mean of both matrices, by mini-batches."""
    frame = clean(random_steps(finished(tables, f"{STUDY}/eigenvalues")))
    frame = frame[frame["operator"].isin(("hessian", "second_moment"))]
    steps = frame.groupby(list(IDENTITY), dropna=False)["step"].transform("nunique")
    frame = required(frame[steps >= _LEAST_COURSE], f"needs runs with {_LEAST_COURSE} checkpoints or more")
    course = courses(frame).merge(frame[[*IDENTITY, "n", "p"]].drop_duplicates(), on=list(IDENTITY))
    return _observed(of_runs(course.assign(value=(course["course"] == "rises then falls").astype(float))))


def noise_on_peak(tables: Tables) -> pd.DataFrame:
    """Decades from the Hessian's highest top eigenvalue without label noise to that with the most."""
    frame = _top(tables)
    frame = of_runs(frame.assign(value=frame["eigenvalue"]), "max")
    return _observed(_effect_of_noise(frame.assign(value=decades(frame["value"]))))


def noise_on_last(tables: Tables) -> pd.DataFrame:
    """Decades from the Hessian's top eigenvalue after training without label noise to that with the most."""
    frame = _top(tables)
    frame = required(frame[at_last(frame, "step")], SHORT)
    return _observed(_effect_of_noise(frame.assign(value=decades(frame["eigenvalue"]))))


def late_overlap_change(tables: Tables) -> pd.DataFrame:
    """Overlap at the last checkpoint less its mean over the first half, without label noise."""
    frame = clean(_overlaps(tables))
    last = required(frame[at_last(frame, "step")], SHORT)
    early = of_runs(frame[first_half(frame, "step")])[[*IDENTITY, "value"]]
    both = last.merge(early, on=list(IDENTITY), suffixes=("", "_early"))
    return _observed(both.assign(value=both["value"] - both["value_early"]))


def noise_on_overlap(tables: Tables) -> pd.DataFrame:
    """Overlap, mean over checkpoints, with the most label noise less that without."""
    return _observed(_effect_of_noise(of_runs(_overlaps(tables))))


def batch_on_shape(tables: Tables) -> pd.DataFrame:
    """Difference of the Hessian's eigenvalues over the largest between batch sizes, mean over ranks and checkpoints."""
    frame = _of(_leading(finished(tables, f"{STUDY}/eigenvalues")), "hessian")
    top = frame[frame["rank"] == 1].rename(columns={"eigenvalue": "top"})[[*IDENTITY, "step", "top"]]
    frame = frame[~at_first(frame, "step") & (frame["rank"] > 1)].merge(top, on=[*IDENTITY, "step"])
    frame = frame.assign(value=frame["eigenvalue"] / frame["top"].where(frame["top"] > 0))
    pairs = ends_along(frame, "batch_size", [*_NETWORK, "label_noise", "step", "rank"])
    pairs = required(pairs, "needs runs that differ in batch_size alone, with two checkpoints or more")
    pairs = pairs.assign(value=(pairs["value_high"] - pairs["value_low"]).abs())
    return _observed(of_runs(pairs))


def clean(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows of runs on true labels. Raises NotTested without any."""
    return required(frame[frame["label_noise"] == 0], "needs runs on true labels (label_noise: [0])")


def random_steps(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows of runs by mini-batches of fewer than all examples. Raises NotTested without any."""
    return required(frame[frame["batch_size"] < frame["n"]], "needs runs with fewer than all examples in a batch")


def effect_of_noise(frame: pd.DataFrame, held: list[str]) -> pd.DataFrame:
    """`value` with the most label noise less that without, of each of `held` and seed. Raises NotTested without any."""
    pairs = ends_along(frame, "label_noise", held)
    pairs = required(pairs[pairs["label_noise_low"] == 0], _NO_SWEEP)
    return pairs.assign(value=pairs["value_high"] - pairs["value_low"], label_noise=pairs["label_noise_high"])


def _effect_of_noise(frame: pd.DataFrame) -> pd.DataFrame:
    return effect_of_noise(frame, [*_NETWORK, "trainer"])


def _observed(frame: pd.DataFrame, missing: str = NOT_KNOWN) -> pd.DataFrame:
    return worded_cases(frame, TRAINERS, missing)


def _of(frame: pd.DataFrame, operator: str) -> pd.DataFrame:
    return required(frame[frame["operator"] == operator], f"the {operator.replace('_', ' ')} was not measured")


def _leading(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows of the C largest eigenvalues, of runs that have so many."""
    ranks = frame.groupby(list(IDENTITY), dropna=False)["rank"].transform("max")
    enough = frame[ranks >= frame["classes"]]
    return required(enough[enough["rank"] <= enough["classes"]], "needs as many eigenvalues as classes (top: classes)")


def _top(tables: Tables) -> pd.DataFrame:
    frame = _of(finished(tables, f"{STUDY}/eigenvalues"), "hessian")
    return frame[frame["rank"] == 1]


def _overlaps(tables: Tables) -> pd.DataFrame:
    """`value`: overlap of Hessian and second moment at k = C; NaN where an eigenspace is not defined."""
    frame = finished(tables, f"{STUDY}/overlaps")
    frame = frame[(frame["first"] == "hessian") & (frame["second"] == "second_moment")]
    frame = required(frame[frame["k"] == frame["classes"]], "needs eigenspaces of as many dimensions as classes")
    return frame.assign(value=frame["overlap"].astype(float).where(np.isfinite(frame["overlap"])))
