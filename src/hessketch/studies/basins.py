"""Do solutions of small and of large batches lie in one basin? Tables after Sagun et al. 2017 (arXiv 1706.04454).

A pair is two trained networks: `continued` (large batches, and the same run gone on with small ones), `same_start`
(small and large batches from one initialisation), `other_start` (from two). A barrier is the largest height of the
training loss along a path above the straight line between the losses at its ends.
"""

import math

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from hessketch.runs import IDENTITY
from hessketch.studies.spectra import select, with_network_labels

COLUMNS = {
    "paths": ("pair", "path", "t", "first_trainer", "second_trainer"),
    "barriers": ("pair", "path", "barrier", "distance", "length"),
}
"""What the jobs measure, and what tells each table from the others."""
KEYS = tuple(name for name in IDENTITY if name != "trainer")
"""Of rows of two runs each, which name no single trainer."""
PAIRS = ("continued", "same_start", "other_start")
PATHS = ("line", "found")
LOW = 0.05
"""A barrier is low up to this share of ln C, the cross-entropy of a guess that gives all C classes the same."""

_SETTING = [*(name for name in IDENTITY if name not in ("trainer", "seed")), "first_trainer", "second_trainer", "pair"]
_SUMMARISED = (
    "barrier", "test_barrier", "highest_loss", "distance", "length", "move_in_top", "move_chance",
)  # fmt: skip


def with_low(barriers: pd.DataFrame) -> pd.DataFrame:
    """Added columns `threshold` = LOW ln C and `low`, whether the barrier of the training loss is at most that."""
    threshold = LOW * np.log(barriers["classes"].astype(float))
    return barriers.assign(threshold=threshold, low=barriers["barrier"] <= threshold)


def barrier_summary(barriers: pd.DataFrame) -> pd.DataFrame:
    """Barriers of each kind of pair and path over the pairs (one a seed).

    Returns
    -------
    One row a setting, `pair` and `path`: `pairs`; `same_examples`, the share of them whose ends were trained on the
    same examples (of others the second end's training loss is on examples that it has not seen); of each measured
    number its mean and `_standard_error` (NaN with one pair); `share_low`, the pairs whose barrier is at most
    `threshold`, and the ends of Wilson's 95% interval of that share, `share_low_from` and `share_low_to` (NaN with one
    pair): it is no point where all pairs agree.
    """
    rows = []
    for key, group in with_low(barriers).groupby([*_SETTING, "path"], dropna=False, sort=False):
        interval = _wilson(int(group["low"].sum()), len(group))
        means = {name: group[name].mean() for name in _SUMMARISED}
        errors = {f"{name}_standard_error": group[name].sem() for name in _SUMMARISED}
        rows.append(
            {
                **dict(zip([*_SETTING, "path"], key, strict=True)),
                **{name: group[name].iloc[0] for name in ("n", "p", "classes", "threshold")},
                "pairs": len(group),
                "same_examples": float(group["same_examples"].mean()),
                "share_low": float(group["low"].mean()),
                **dict(zip(("share_low_from", "share_low_to"), interval, strict=True)),
                **{name: value for both in zip(means.items(), errors.items(), strict=True) for name, value in both},
            }
        )
    return pd.DataFrame(rows)


def _wilson(hits: int, count: int) -> tuple[float, float]:
    """Ends of Wilson's 95% interval of a share (Wilson 1927); NaN of a single trial."""
    if count < 2:
        return math.nan, math.nan
    interval = binomtest(hits, count).proportion_ci(0.95, method="wilson")
    return float(interval.low), float(interval.high)


def best_places(paths: pd.DataFrame) -> pd.DataFrame:
    """Where along the straight line each pair is best: 0 is the first end (large batches), 1 the second.

    Returns
    -------
    One row a pair of networks: setting, `seed`, `second_seed`; `highest_test_accuracy`, `lowest_test_loss` and
    `lowest_train_loss` on the line and the place `at_` which each is (of equal ones the mean of their places).
    """
    line = paths[paths["path"] == "line"]
    rows = []
    for key, group in line.groupby([*_SETTING, "seed", "second_seed"], dropna=False, sort=False):
        row = dict(zip([*_SETTING, "seed", "second_seed"], key, strict=True))
        for name, best in (("test_accuracy", "highest"), ("test_loss", "lowest"), ("train_loss", "lowest")):
            value = group[name].max() if best == "highest" else group[name].min()
            row |= {f"{best}_{name}": value, f"at_{best}_{name}": group.loc[group[name] == value, "t"].mean()}
        rows.append(row)
    return pd.DataFrame(rows)


def of_network(frame: pd.DataFrame, dataset: str, network: str) -> pd.DataFrame:
    """Rows of one data set and network label, which stands in the column `network` afterwards."""
    return select(with_network_labels(frame), dataset=dataset, network=network)
