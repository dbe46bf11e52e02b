"""Measures of the claims on large parameters: their overlap with the top eigenspace, against levels of chance."""

import numpy as np
import pandas as pd

from hessketch.claims.claim import Tables
from hessketch.claims.measuring import (
    SHORT,
    at_first,
    at_last,
    by_seed,
    ends_along,
    finished,
    first_half,
    of_runs,
    worded_cases,
)
from hessketch.claims.observations import required
from hessketch.runs import IDENTITY
from hessketch.studies.eigenspaces import METHODS, nearest_k, trained_by
from hessketch.studies.eigenspaces_comparisons import width_summary

STUDY = "eigenspaces"
THEIR_SIZE = 7030
"""Parameters of the authors' network whose numbers are known."""
_THEIR_SMALL_K = 10
_SHARE = 0.05
_LEAST_SHARE = 0.02  # of p: below it the authors' own logs are below chance
_SPLITS = {"trainer": "{}", "split": "{} Hessian"}
_NETWORK = ["dataset", "label_noise", "loss", "trainer", "split"]


def least_times_chance(tables: Tables) -> pd.DataFrame:
    """Overlap over chance at 5 % of p, the least over checkpoints."""
    return _observed(_of_splits(_times(overlaps(tables), "chance"), "min"))


def mean_times_chance(tables: Tables) -> pd.DataFrame:
    """Overlap over chance at 5 % of p, mean over checkpoints, of the authors' network."""
    return _observed(_of_splits(_times(_their_network(overlaps(tables)), "chance")))


def small_mask_times_chance(tables: Tables) -> pd.DataFrame:
    """Overlap over chance of ten parameters at the last checkpoint, of the authors' network."""
    frame = _their_network(most_trusted(_magnitude(tables)))
    frame = required(frame[frame["k"] == _THEIR_SMALL_K], f"needs overlaps at k = {_THEIR_SMALL_K}")
    return _observed(_times(required(frame[at_last(frame, "time")], SHORT), "chance"))


def last_over_early_peak(tables: Tables) -> pd.DataFrame:
    """Overlap at the last checkpoint over the highest in the first half, at 5 % of p."""
    frame = overlaps(tables)
    last = required(frame[at_last(frame, "time")], SHORT).assign(value=lambda own: own["overlap"])
    early = _of_splits(frame[first_half(frame, "time")].assign(value=frame["overlap"]), "max")
    both = last.merge(early[[*IDENTITY, "split", "value"]], on=[*IDENTITY, "split"], suffixes=("", "_early"))
    return _observed(both.assign(value=both["value"] / both["value_early"]))


def size_on_times_chance(tables: Tables) -> pd.DataFrame:
    """Overlap over chance of the largest network over the smallest's, by the method that knows most networks."""
    frame = by_seed(_magnitude(tables), width_summary)
    frame = frame[frame["at"] == "same share"]
    sizes = frame.groupby([*_NETWORK, "method"], dropna=False)["p"].transform("nunique")
    preferred = frame["method"].map(dict(zip(METHODS, np.arange(len(METHODS)) / len(METHODS), strict=True)))
    rank = sizes - preferred  # of equally many networks the more trusted method's
    frame = frame[rank == rank.groupby([frame[name] for name in _NETWORK]).transform("max")]
    pairs = ends_along(frame.assign(value=frame["times_chance"]), "p", _NETWORK)
    pairs = required(pairs, "needs networks of several sizes on one data set")
    pairs = pairs.assign(value=pairs["value_high"] / pairs["value_low"], p=pairs["p_high"], n=np.nan)
    return _observed(pairs.assign(network="smallest to largest", norm="none", width=np.nan))


def initial_beyond_layers(tables: Tables) -> pd.DataFrame:
    """Distance from 1 of the overlap over chance by layer before training, at 5 % of p."""
    frame = _times(overlaps(tables), "chance_by_layer")
    frame = required(frame[frame["time"] == 0], "no checkpoint before training was measured (step 0)")
    return _observed(frame.assign(value=(frame["value"] - 1).abs()))


def trained_beyond_layers(tables: Tables) -> pd.DataFrame:
    """Overlap over chance by layer at 5 % of p, mean over checkpoints after the first."""
    frame = _times(overlaps(tables), "chance_by_layer")
    return _observed(_of_splits(required(frame[~at_first(frame, "time")], SHORT)))


def beyond_dead_inputs(tables: Tables) -> pd.DataFrame:
    """Overlap over chance among live parameters at 5 % of p, mean over checkpoints."""
    return _observed(_of_splits(_times(overlaps(tables), "chance_live")))


def overlaps(tables: Tables) -> pd.DataFrame:
    """Overlaps of magnitude masks of 5 % of p in runs by SGD, by each run's most trusted method."""
    return at_share(most_trusted(_magnitude(tables)))


def at_share(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows of the k nearest to 5 % of p that each run has. Raises NotTested where no run has 2 % or more."""
    found = frame.groupby(list(IDENTITY), dropna=False)["k"]
    nearest = frame["p"].groupby(found.ngroup()).first() * _SHARE
    chosen = {group: nearest_k(ks, nearest[group]) for group, ks in frame["k"].groupby(found.ngroup())}
    frame = frame[frame["k"] == found.ngroup().map(chosen)]
    enough = frame[frame["k"] >= _LEAST_SHARE * frame["p"]]
    return required(enough, f"needs eigenpairs of {_SHARE:.0%} of the parameters, at the least {_LEAST_SHARE:.0%}")


def by_sgd(tables: Tables, name: str) -> pd.DataFrame:
    """Rows of finished runs by SGD, which the paper is about. Raises NotTested without any."""
    return required(trained_by(finished(tables, f"{STUDY}/{name}"), federated=False), "needs runs trained by SGD")


def most_trusted(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows by each run's first of METHODS."""
    place = frame["method"].map({method: place for place, method in enumerate(METHODS)})
    return frame[place == place.groupby([frame[name] for name in IDENTITY], dropna=False).transform("min")]


def _magnitude(tables: Tables) -> pd.DataFrame:
    frame = by_sgd(tables, "overlaps")
    return required(frame[frame["mask"] == "magnitude"], "no mask of the largest parameters was measured")


def _their_network(frame: pd.DataFrame) -> pd.DataFrame:
    missing = f"no network has the authors' {THEIR_SIZE:,} parameters (mlp_tanh of width 1 on 16x16 pixels)"
    return required(frame[frame["p"] == THEIR_SIZE], missing)


def _times(frame: pd.DataFrame, level: str) -> pd.DataFrame:
    return frame.assign(value=frame["overlap"] / frame[level].where(frame[level] > 0))


def _of_splits(frame: pd.DataFrame, how: str = "mean") -> pd.DataFrame:
    return of_runs(frame, how, also=["split"])


def _observed(frame: pd.DataFrame) -> pd.DataFrame:
    return worded_cases(frame, _SPLITS)
