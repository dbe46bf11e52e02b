"""Derived tables of *Sketching for Distributed Deep Learning: A Sharper Analysis* (Shrivastava et al., NeurIPS 2024).

A group is all runs that differ in learning rate and seed alone: one data set, network, loss and trainer. A cell is all
groups that differ in the trainer alone: what one figure compares. Reductions are factors: dense bytes over bytes sent.
"""

from collections.abc import Iterable

import numpy as np
import pandas as pd

from hessketch.runs import IDENTITY
from hessketch.studies.spectra import of_variant, require_one, select, variants, with_network_labels
from hessketch.trainers import FEDERATED
from hessketch.training.selection import select_rate

TRAINER = ("method", "error_feedback", "reduction")
CELL = tuple(column for column in IDENTITY if column not in ("trainer", "learning_rate", "seed"))
MIB = 2**20
_GROUP = [*CELL, "trainer", *TRAINER]


def cells(runs: pd.DataFrame) -> list[tuple[str, str, str]]:
    """The (data set, network label, variant) of a table whose rows name their networks by the registry, sorted."""
    return sorted(
        (dataset, network, variant)
        for variant in variants(runs)
        for dataset, network in with_network_labels(of_variant(runs, variant))[["dataset", "network"]]
        .drop_duplicates()
        .itertuples(index=False)
    )


def of_cell(frame: pd.DataFrame, dataset: str, network: str, variant: str) -> pd.DataFrame:
    """Rows of one of `cells`, its label in the column `network`: what a figure takes. An empty table stays empty.

    Raises InputError, listing what exists, where a table that is not empty has no such row.
    """
    if frame.empty:
        return frame
    return select(with_network_labels(of_variant(frame, variant)), dataset=dataset, network=network)


def one_cell(frame: pd.DataFrame, what: str) -> pd.DataFrame:
    """The frame itself, if it has rows, all of one cell; else InputError that names `what` is missing or is mixed."""
    remedy = "choose a data set, network and variant by of_cell, and a sample size by select"
    require_one(frame, CELL, what, remedy)
    return frame


def in_order(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows by cell, then by FEDERATED, other methods behind, without error feedback first, then by reduction."""
    rank = frame["method"].map({method: i for i, method in enumerate(FEDERATED)}).fillna(len(FEDERATED))
    order = [*CELL, "_method", "method", "error_feedback", "reduction"]
    ordered = frame.assign(_method=rank).sort_values(order, na_position="first", kind="stable", ignore_index=True)
    return ordered.drop(columns="_method")


def mark_selected(runs: pd.DataFrame) -> pd.DataFrame:
    """A copy with the column `selected`: whether a run has its group's rate by `training.selection.select_rate`.

    Where every rate has a diverged seed, diverged runs at the selected rate are marked too.
    """
    selected = pd.Series(False, index=runs.index)
    for _, group in _groups(runs):
        rate = select_rate(group[["learning_rate", "status", "test_accuracy"]].to_dict("records"))
        selected[group.index] = group["learning_rate"] == rate
    return runs.assign(selected=selected)


def _groups(runs: pd.DataFrame) -> Iterable[tuple[tuple, pd.DataFrame]]:
    # Every example of a data set is a missing examples_per_class, no compression a missing reduction: both are keys.
    return runs.groupby(_GROUP, dropna=False, sort=False)


def learning_rates(runs: pd.DataFrame) -> pd.DataFrame:
    """The grid of every group and where its selected rate lies in it.

    Parameters
    ----------
    runs : all runs with `selected` (`mark_selected`), at every rate

    Returns
    -------
    One row a group: `learning_rates` (the grid, largest first, as text), `learning_rate` (the selected one; NaN where
    all runs diverged), `position` of it in the grid (inside, largest, smallest; only: a grid of one; none), `seeds`,
    `runs`, `diverged` (counts over the grid), `test_accuracy` (mean over seeds at the selected rate) and
    `test_accuracy_standard_error` (NaN with one seed). A winner at an end of the grid means that a better rate may lie
    beyond it.
    """
    rows = []
    for key, group in _groups(runs):
        chosen = group[group["selected"]]
        grid = sorted(group["learning_rate"].unique(), reverse=True)
        rate = float(chosen["learning_rate"].iloc[0]) if len(chosen) else np.nan
        rows.append(
            {
                **dict(zip(_GROUP, key, strict=True)),
                "learning_rates": ", ".join(f"{rate:g}" for rate in grid),
                "learning_rate": rate,
                "position": _position(rate, grid),
                "seeds": group["seed"].nunique(),
                "runs": len(group),
                "diverged": int((group["status"] == "diverged").sum()),
                **_mean_and_error(chosen, "test_accuracy"),
            }
        )
    return in_order(pd.DataFrame(rows))


def _position(rate: float, grid: list[float]) -> str:
    if np.isnan(rate):
        return "none"
    if len(grid) == 1:
        return "only"
    return {grid[0]: "largest", grid[-1]: "smallest"}.get(rate, "inside")


def _mean_and_error(rows: pd.DataFrame, column: str) -> dict[str, float]:
    """Mean over the seeds that finished, and its standard error (NaN with one)."""
    values = rows.loc[rows["status"] == "finished", column]
    return {column: float(values.mean()), f"{column}_standard_error": float(values.sem())}


def accuracy_table(runs: pd.DataFrame) -> pd.DataFrame:
    """Accuracy of every trainer at its selected rate against what it sends (Shrivastava et al. 2024, Figure 1).

    Parameters
    ----------
    runs : all runs with `selected` (`mark_selected`)

    Returns
    -------
    One row a group: `learning_rate`; `test_accuracy` and `train_accuracy` (fractions, means over the seeds that
    finished), each with its `_standard_error` (NaN with one seed); `seeds` (that finished) and `diverged` (counts at
    the selected rate; of a group whose runs all diverged over all rates, with NaN accuracy); `reduction_numbers` and
    `reduction_bytes`; `upload_bytes` and `download_bytes` (per round and participating client); `rounds` planned (the
    most of the cell's runs); `upload_mib` and `download_mib`, the MiB of a client that takes part in all rounds.
    """
    planned = runs.groupby(list(CELL), dropna=False)["rounds"].transform("max")
    rows = []
    for key, group in _groups(runs.assign(rounds=planned)):
        chosen = group[group["selected"]]
        tried = chosen if len(chosen) else group
        sent = tried[["reduction_numbers", "reduction_bytes", "upload_bytes", "download_bytes"]].mean().to_dict()
        rounds = int(group["rounds"].iloc[0])
        rows.append(
            {
                **dict(zip(_GROUP, key, strict=True)),
                "learning_rate": float(chosen["learning_rate"].iloc[0]) if len(chosen) else np.nan,
                **_mean_and_error(chosen, "test_accuracy"),
                **_mean_and_error(chosen, "train_accuracy"),
                "seeds": int((chosen["status"] == "finished").sum()),
                "diverged": int((tried["status"] == "diverged").sum()),
                **sent,
                "rounds": rounds,
                "upload_mib": sent["upload_bytes"] * rounds / MIB,
                "download_mib": sent["download_bytes"] * rounds / MIB,
            }
        )
    return in_order(pd.DataFrame(rows))


def equal_loss(curvature: pd.DataFrame, trainers: Iterable[str] | None = None) -> pd.DataFrame:
    """Rows of the checkpoints at which the compared trainers had the same training loss.

    For each cell and seed that is the lowest `target_loss` of the checkpoints of kind `loss` that every compared
    trainer reached. Compared are `trainers` (labels), else all that the table has of the cell. A seed for which there
    is no such target has no rows, and with none at all the frame is empty.
    """
    compared = curvature if trainers is None else curvature[curvature["trainer"].isin(list(trainers))]
    kept = []
    for _, cell in compared.groupby(list(CELL), dropna=False, sort=False):
        wanted = set(cell["trainer"] if trainers is None else trainers)
        for _, seed in cell[cell["kind"] == "loss"].groupby("seed", sort=False):
            reached = seed.groupby("target_loss")["trainer"].agg(set)
            common = [target for target, labels in reached.items() if wanted <= labels]
            if common:
                kept.append(seed[seed["target_loss"] == min(common)])
    return pd.concat(kept).sort_index() if kept else curvature.iloc[:0]
