"""Measures of the claims on single steps of SGD, and on the generalisation bound from the Hessian."""

import numpy as np
import pandas as pd

from hessketch.claims.claim import Tables
from hessketch.claims.measuring import SHORT, at_first, at_last, finished, of_runs, worded_cases
from hessketch.claims.observations import NOT_KNOWN, observed, required
from hessketch.claims.sgd_dynamics_measures import STUDY, TRAINERS, effect_of_noise, random_steps
from hessketch.runs import IDENTITY
from hessketch.studies.sgd_dynamics import SETTING, rank_correlation
from hessketch.studies.sgd_dynamics_coverage import with_checks

_LEAST_SETTINGS = 3
_VACUOUS = "all bounds are above guessing, 1 - 1/C: more examples needed"


def early_decrease(tables: Tables) -> pd.DataFrame:
    """Share of steps from the first checkpoint that lower the loss, fixed step size."""
    frame = _changes(tables, "fixed")
    frame = frame[at_first(frame, "step")]
    return _observed(frame.assign(value=frame["share_decreasing"]))


def late_asymmetry(tables: Tables) -> pd.DataFrame:
    """Distance from 1/2 of the share of steps from the last checkpoint that lower the loss, fixed step size."""
    frame = _changes(tables, "fixed")
    frame = required(frame[at_last(frame, "step")], SHORT)
    return _observed(frame.assign(value=(frame["share_decreasing"] - 0.5).abs()))


def bounds_coverage(tables: Tables) -> pd.DataFrame:
    """Share of checkpoints whose quantiles lie within the predicted bounds, each scheme."""
    frame = with_checks(_changes(tables))
    return _observed(of_runs(frame.assign(value=frame["bounds_hold"]), also=["scheme"]))


def mean_error(tables: Tables) -> pd.DataFrame:
    """Relative error of the predicted mean change, median over checkpoints, each scheme."""
    frame = with_checks(_changes(tables))
    return _observed(of_runs(frame.assign(value=frame["relative_error"]), "median", also=["scheme"]))


def adaptive_decrease(tables: Tables) -> pd.DataFrame:
    """Share of checkpoints from which an adaptive step lowers the mean loss."""
    frame = _changes(tables, "adaptive")
    return _observed(of_runs(frame.assign(value=(frame["mean"] < 0).astype(float))))


def noise_on_bound(tables: Tables) -> pd.DataFrame:
    """Bound with the most label noise less that without, not known where either is no better than guessing."""
    frame = _chosen(tables)
    held = [name for name in SETTING if name != "label_noise"]
    missing = "of every pair one bound is above guessing, 1 - 1/C: more examples needed"
    value = frame["bound"].where(~frame["vacuous"])
    return _observed(effect_of_noise(frame.assign(value=value), [*held, "n", "p"]), missing)


def active_share(tables: Tables) -> pd.DataFrame:
    """Share of the parameters whose curvature is active in the bound, at each run's widest prior."""
    frame = finished(tables, f"{STUDY}/bounds")
    frame = frame[frame["sigma"] == frame.groupby(list(IDENTITY), dropna=False)["sigma"].transform("max")]
    return _observed(frame.assign(value=frame["active"] / frame["p"]))


def bound_rank_correlation(tables: Tables) -> pd.DataFrame:
    """Spearman's rank correlation of bound and test error over a data set's settings, within each seed.

    Bounds that are no better than guessing are left out.
    """
    frame = _chosen(tables)
    found = []
    for (dataset, seed), own in frame.groupby(["dataset", "seed"], sort=False):
        spearman, settings = rank_correlation(own["bound"].where(~own["vacuous"]), own["test_error"])
        value = spearman if settings >= _LEAST_SETTINGS else np.nan
        networks = " and ".join(own["network"].unique())
        found.append({"dataset": dataset, "network": networks, "seed": seed, "value": value})
    table = pd.DataFrame(found).assign(norm="none", width=np.nan, p=np.nan, n=np.nan)
    return observed(table, f"needs {_LEAST_SETTINGS} settings of a data set whose bounds and test errors differ")


def _chosen(tables: Tables) -> pd.DataFrame:
    """Rows of each run's chosen prior, `vacuous` where the bound is. Raises NotTested where it is in all of them."""
    frame = finished(tables, f"{STUDY}/bounds")
    frame = frame[frame["chosen"].astype(bool)]
    frame = frame.assign(vacuous=frame["bound"] >= 1 - 1 / frame["classes"])
    required(frame[~frame["vacuous"]], _VACUOUS)
    return frame


def _changes(tables: Tables, scheme: str | None = None) -> pd.DataFrame:
    frame = random_steps(finished(tables, f"{STUDY}/loss_changes"))
    return frame if scheme is None else required(frame[frame["scheme"] == scheme], f"no {scheme} steps were measured")


def _observed(frame: pd.DataFrame, missing: str = NOT_KNOWN) -> pd.DataFrame:
    words = {**TRAINERS, "scheme": "{} steps"} if "scheme" in frame else TRAINERS
    return worded_cases(frame, words, missing)
