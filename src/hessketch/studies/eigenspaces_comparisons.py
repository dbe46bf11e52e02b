"""What is compared in the study of eigenspaces: sketches with exact ones, network sizes, trainers, metrics."""

import numpy as np
import pandas as pd

from hessketch.runs import IDENTITY
from hessketch.studies.eigenspaces import LEVELS, nearest_k, seed_means, trained_by, with_chances
from hessketch.studies.sgd_dynamics import SETTING

UNCOMPRESSED = "uncompressed"
_QUALITY = ("eigenvalue_error", "subspace_overlap_half", "subspace_overlap")
BASELINE_PAIR = "subspace and mask"


def sketch_quality(quality: pd.DataFrame) -> pd.DataFrame:
    """What each method costs and how near it comes to the exact decomposition, over all checkpoints and seeds.

    Returns
    -------
    A row for each setting, split and method: `points`, `pairs`, means of `products` and `seconds`; `residual_share`
    (mean of |H - H_k|_F^2 / |H|_F^2, for a sketch both by its a-posteriori estimate). Where the exact decomposition is
    known too: `times_faster` (exact seconds over the method's, mean), `eigenvalue_error` (median and `_largest`),
    `subspace_overlap_half` and `subspace_overlap` (mean and `_least`, with the exact eigenspaces of k / 2 and k), and
    `residual_over_exact` (mean of the residual over the least that k eigenpairs can leave). Else these are NaN.
    """
    keys = [*SETTING, "kind", "split", "method"]
    over_exact = ["times_faster", "residual_over_exact"]
    extremes = ["eigenvalue_error_largest", "subspace_overlap_half_least", "subspace_overlap_least"]
    columns = [*keys, "points", "pairs", "products", "seconds", "residual_share", *over_exact, *_QUALITY, *extremes]
    if quality.empty:
        return pd.DataFrame(columns=columns)
    point = [*IDENTITY, "kind", "time", "split"]
    exact = quality.loc[quality["method"] == "exact", [*point, "seconds", "residual_squared"]]
    rows = quality.merge(exact, on=point, how="left", suffixes=("", "_exact"))
    rows = rows.assign(
        residual_share=rows["residual_squared"] / rows["frobenius_squared"],
        times_faster=rows["seconds_exact"] / rows["seconds"],
        residual_over_exact=rows["residual_squared"] / rows["residual_squared_exact"],
    )
    groups = rows.groupby(keys, dropna=False, sort=False)
    means = groups[["products", "seconds", "residual_share", *over_exact, *_QUALITY[1:]]].mean()
    error, least = groups["eigenvalue_error"], groups[list(_QUALITY[1:])].min().add_suffix("_least")
    single = {"points": groups.size(), "pairs": groups["pairs"].first(), "eigenvalue_error": error.median()}
    found = pd.concat([pd.DataFrame(single), means, least, error.max().rename(extremes[0])], axis="columns")
    return found.reset_index()[columns]


def width_summary(overlaps: pd.DataFrame) -> pd.DataFrame:
    """How far above chance the overlap of magnitude masks is at the last checkpoint, by the network's size.

    For each data set and trainer by SGD, of networks side by side, `at` the same share: k / p nearest to the largest
    that all of them have, and `at` the same k: nearest to the largest k that all of them have.

    Returns
    -------
    A row for each setting, split, method and `at`: `p`, `k`, `time`, `seeds`, means over seeds with standard errors of
    `overlap` and `times_LEVEL` for each of LEVELS.
    """
    keys = [*SETTING, "split", "method", "at", "p", "k", "time"]
    names = ["overlap", *(f"times_{level}" for level in LEVELS)]
    parts = []
    if len(overlaps):
        rows = trained_by(overlaps, federated=False)
        rows = with_chances(rows[rows["mask"] == "magnitude"])
        rows = rows[rows["time"] == rows.groupby(list(IDENTITY), dropna=False)["time"].transform("max")]
        for _, sweep in rows.groupby(["dataset", "label_noise", "loss", "trainer", "split", "method"], sort=False):
            parts += _side_by_side(sweep)
    return seed_means(pd.concat(parts) if parts else overlaps.iloc[:0], keys, names)


def _side_by_side(sweep: pd.DataFrame) -> list[pd.DataFrame]:
    """The rows of each network of a sweep at the k that goes with the other networks'."""
    by_network = [group for _, group in sweep.groupby(["network", "norm", "width", "p"], sort=False)]
    share = min((group["k"] / group["p"]).max() for group in by_network)
    least = min(group["k"].max() for group in by_network)
    parts = []
    for group in by_network:
        for at, wanted in (("same share", share * group["p"].iloc[0]), ("same k", least)):
            k = nearest_k(group["k"], wanted)
            parts.append(group[group["k"] == k].assign(at=at))
    return parts


def federated_summary(overlaps: pd.DataFrame) -> pd.DataFrame:
    """The overlap at the kept rounds of each federated trainer, and its difference to training uncompressed.

    Returns
    -------
    A row for each setting, round (`time`), split, method, mask and k: `seeds`, means over seeds with standard errors of
    `overlap`, `times_LEVEL` for each of LEVELS, and `difference` of the overlap to that of the same seed's uncompressed
    training at the same round (NaN where there is none; `pairs` is the number of seeds that have both).
    """
    keys = [*SETTING, "time", "split", "method", "mask", "k", "p"]
    names = ["overlap", *(f"times_{level}" for level in LEVELS), "difference"]
    rows = trained_by(overlaps, federated=True) if len(overlaps) else overlaps
    if rows.empty:
        return seed_means(rows, keys, names).assign(pairs=[])
    own = [column for column in (*keys, "seed") if column != "trainer"]
    plain = rows.loc[rows["trainer"] == UNCOMPRESSED, [*own, "overlap"]]
    both = with_chances(rows).merge(plain, on=own, how="left", suffixes=("", "_uncompressed"))
    both = both.assign(difference=both["overlap"] - both["overlap_uncompressed"])
    pairs = both.groupby(keys, dropna=False, sort=False)["difference"].count().rename("pairs").reset_index()
    return seed_means(both, keys, names).merge(pairs, on=keys)


def metric_baselines(metrics: pd.DataFrame, metric_study: pd.DataFrame) -> pd.DataFrame:
    """The similarity of a random subspace with a random mask, by each metric at each k / p of the measured metrics.

    The overlap's is k / p. Others are medians of the synthetic study at its largest dimension, where they hardly
    spread, between its ratios by straight lines; NaN outside of these.

    Returns
    -------
    A row for each `k`, `p` and `metric`: `baseline`.
    """
    found = metrics[["k", "p", "metric"]].drop_duplicates(ignore_index=True)
    if metric_study.empty or found.empty:
        return found.assign(baseline=(found["k"] / found["p"]).where(found["metric"] == "overlap"))
    studied = metric_study[metric_study["pair"] == BASELINE_PAIR]
    studied = studied[studied["dimension"] == studied["dimension"].max()].sort_values("ratio")
    values = []
    for row in found.itertuples():
        here = studied[studied["metric"] == row.metric]
        known = len(here) > 0 and row.metric != "overlap"
        ratio = row.k / row.p
        between = np.interp(ratio, here["ratio"], here["q50"], left=np.nan, right=np.nan) if known else np.nan
        values.append(ratio if row.metric == "overlap" else between)
    return found.assign(baseline=values)
