"""Derived tables of *Connecting Parameter Magnitudes and Hessian Eigenspaces at Scale using Sketched Methods*.

Fernandez, Schneider, Mahsereci, Hennig 2025, arXiv 2504.14701. A mask is the set of the k parameters of largest
magnitude, its overlap with the eigenspace U_k of the k eigenvalues of largest magnitude is the mean over the mask of
the squared norms of U_k's rows: k / p for a random mask. Two further chance levels ask what layer sizes and dead inputs
alone explain: random masks with as many entries in each layer, and random ones among parameters with curvature.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from pandas.core.groupby import SeriesGroupBy

from hessketch.errors import InputError
from hessketch.runs import IDENTITY
from hessketch.studies.sgd_dynamics import SETTING
from hessketch.studies.spectra import select, with_network_labels
from hessketch.trainers import Trainer

TABLES = {
    "overlaps": ["mask", "k", "overlap", "chance_by_layer"],
    "layers": ["k", "layer", "in_mask", "energy"],
    "eigenvalues": ["split", "method", "rank", "eigenvalue"],
    "quality": ["pairs", "products", "seconds", "residual_squared"],
    "metrics": ["mask", "k", "metric", "similarity"],
    "stability": ["of", "ratio", "first", "second", "similarity", "chance"],
}
"""What the jobs measure, one table a job, a run's identity in each row: what tells it from the others."""

METHODS = ("exact", "sketched", "lanczos")
"""From the most to the least trusted: of several, a figure with room for one shows the first."""
LEVELS = ("chance", "chance_by_layer", "chance_live")
"""Columns of the chance levels: of any random mask, of one like it in each layer, of one among live parameters."""
POINT = (*SETTING, "kind", "time", "split", "method", "mask", "k", "p")
_SERIES = tuple(column for column in POINT if column != "time")


def trained_by(frame: pd.DataFrame, federated: bool) -> pd.DataFrame:
    """Rows of the runs by federated trainers, or of those by SGD."""
    labels = [label for label in frame["trainer"].unique() if Trainer.parse(label).federated == federated]
    return frame[frame["trainer"].isin(labels)]


def of_network(frame: pd.DataFrame, dataset: str, network: str, federated: bool = False) -> pd.DataFrame:
    """Rows of one of `networks`, its label in the column `network`, trained by SGD or else federated.

    Raises InputError where the table has no such network, with what exists; none of the trainer's kind is no error, and
    an empty table stays empty.
    """
    if frame.empty:
        return frame
    return trained_by(select(with_network_labels(frame), dataset=dataset, network=network), federated)


def first_method(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows of the first of METHODS that the table has."""
    present = [method for method in METHODS if (frame["method"] == method).any()]
    return frame[frame["method"] == present[0]] if present else frame.iloc[:0]


def seed_means(rows: pd.DataFrame, keys: Sequence[str], names: Sequence[str]) -> pd.DataFrame:
    """Of each group of `keys`: `seeds`, and of each of the columns `names` its mean and NAME_standard_error over them.

    Standard errors are NaN with one seed. Without rows the table is empty and has its columns.
    """
    ordered = [*keys, "seeds", *(column for name in names for column in (name, f"{name}_standard_error"))]
    if rows.empty:
        return pd.DataFrame(columns=ordered)
    groups = rows.groupby(list(keys), dropna=False, sort=False)
    columns = {"seeds": groups["seed"].nunique()}
    for name in names:
        columns |= {name: groups[name].mean(), f"{name}_standard_error": groups[name].sem()}
    return pd.DataFrame(columns).reset_index()[ordered]


def largest_common_k(frame: pd.DataFrame, what: str) -> int:
    """The largest k that every run has at each time, split and method; masks that none of them has do not count.

    Raises InputError, which names `what`, where there is none.
    """
    groups = frame.groupby([*IDENTITY, "time", "split", "method"], dropna=False)["k"].agg(set)
    common = set.intersection(*groups) if len(groups) else set()
    if not common:
        raise InputError(f"{what}: no k that was measured at every checkpoint; measure them with the same settings")
    return int(max(common))


def nearest_k(present: Iterable[int], wanted: float) -> int:
    """The k nearest to `wanted` in ratio; of two equally near ones the smaller."""
    candidates = sorted({int(k) for k in present})
    if not candidates or candidates[0] < 1 or wanted <= 0:
        raise InputError(f"nearest of {candidates} to {wanted}: give at least one k; all must be positive")
    return min(candidates, key=lambda k: abs(np.log(k / wanted)))


def at_ratios(overlaps: pd.DataFrame, metrics: pd.DataFrame) -> pd.DataFrame:
    """Rows of the overlaps at the k of a ratio that was asked for: those at which the metrics were measured too."""
    if overlaps.empty or metrics.empty:
        return overlaps.iloc[:0]
    keys = ["dataset", "network", "norm", "width", "trainer", "p", "k"]
    return overlaps.merge(metrics[keys].drop_duplicates(), on=keys)


def overlap_summary(overlaps: pd.DataFrame) -> pd.DataFrame:
    """What the seeds of each point say together of the overlap against each chance level.

    Parameters
    ----------
    overlaps : the raw table, or the rows of it `at_ratios`

    Returns
    -------
    A row for each setting, checkpoint, split, method, mask and k: `seeds`, mean `overlap` with its
    `overlap_standard_error` over seeds (NaN with one), and for each of LEVELS: its mean, `times_LEVEL` (mean over seeds
    of overlap / level, NaN where the level is 0) with `times_LEVEL_standard_error`, `z_LEVEL` (the seeds' deviations
    from the level in standard deviations of random masks, summed over the root of the number of seeds: standard normal
    if every mask were random; NaN where random masks do not vary) and `above_LEVEL` (share of seeds above it).
    """
    known = overlaps.dropna(subset=["overlap"]) if len(overlaps) else overlaps
    means = ["overlap", *(f"times_{level}" for level in LEVELS)]
    others = [f"{word}{level}" for level in LEVELS for word in ("", "above_", "z_")]
    if known.empty:
        return seed_means(known, POINT, means).assign(**{name: [] for name in others})
    rows = with_chances(known)
    groups = rows.groupby(list(POINT), dropna=False, sort=False)
    found = {name: _together(groups[name]) if name.startswith("z_") else groups[name].mean() for name in others}
    return pd.concat([seed_means(rows, POINT, means), pd.DataFrame(found).reset_index(drop=True)], axis="columns")


def _together(z: SeriesGroupBy) -> pd.Series:
    """Independent z-scores of each group as one."""
    return z.sum(min_count=1) / np.sqrt(z.count())


def with_chances(overlaps: pd.DataFrame) -> pd.DataFrame:
    """A copy with `times_LEVEL`, `z_LEVEL` and `above_LEVEL` (0 or 1) of each of LEVELS."""
    added = {}
    for level in LEVELS:
        chance, sd = overlaps[level], overlaps[f"{level}_sd"]
        excess = overlaps["overlap"] - chance
        added[f"times_{level}"] = (overlaps["overlap"] / chance).where(chance > 0)
        added[f"z_{level}"] = (excess / sd).where(sd > 0)
        added[f"above_{level}"] = (excess > 0).astype(float).where(chance.notna())
    return overlaps.assign(**added)


def shares_above(overlaps: pd.DataFrame) -> pd.DataFrame:
    """How often the overlap is above each chance level, over all checkpoints and seeds.

    Returns
    -------
    A row for each setting, split, method, mask and k: `points` (checkpoints of every seed), `above_LEVEL` (share of
    them whose overlap is above the level) and `beyond_LEVEL` (share of them more than two standard deviations of random
    masks above it) for each of LEVELS.
    """
    names = [f"{word}_{level}" for level in LEVELS for word in ("above", "beyond")]
    known = overlaps.dropna(subset=["overlap"]) if len(overlaps) else overlaps
    if known.empty:
        return pd.DataFrame(columns=[*_SERIES, "points", *names])
    rows = with_chances(known)
    rows = rows.assign(
        **{f"beyond_{v}": (rows[f"z_{v}"] > 2.0).astype(float).where(rows[f"z_{v}"].notna()) for v in LEVELS}
    )
    groups = rows.groupby(list(_SERIES), dropna=False, sort=False)
    return pd.concat([groups.size().rename("points"), groups[names].mean()], axis="columns").reset_index()


def stabilisation(stability: pd.DataFrame) -> pd.DataFrame:
    """How soon masks and eigenspaces are what they stay: similarity of each checkpoint with the last and the next.

    Two checkpoints whose similarity is not known (too few eigenpairs converged) are not among the means.

    Returns
    -------
    A row for each setting, `of`, `split`, `ratio` and checkpoint `time` but the last: `seeds`, and means over seeds
    with standard errors of `to_last` and `to_next`; `chance`, the similarity of two random masks or spaces of k.
    """
    keys, names = [*SETTING, "of", "split", "ratio", "k", "time"], ["to_last", "to_next"]
    if stability.empty:
        return seed_means(stability, keys, names).assign(chance=[])
    own = [*IDENTITY, "of", "split", "ratio", "k", "time"]
    pairs = stability[stability["first"] < stability["second"]].rename(columns={"first": "time"})
    groups = pairs.sort_values("second").groupby(own, dropna=False, sort=False)
    similarity = groups["similarity"]  # of the next and the last even where it is not known
    ends = {"to_next": similarity.first(skipna=False), "to_last": similarity.last(skipna=False)}
    both = pd.DataFrame({**ends, "chance": groups["chance"].first()}).reset_index()
    found = seed_means(both, keys, [*names, "chance"]).drop(columns="chance_standard_error")
    return found.sort_values(keys, ignore_index=True)
