"""Derived tables of the predictor Hessian during training (Shrivastava et al., NeurIPS 2024, Figures 2 to 24).

The predictor Hessian of training example i is H_i = l'_i d2 f(theta; x_i); kappa is the sum of its eigenvalues'
magnitudes over the largest magnitude. A setup is all runs that differ in the seed alone. Times are epochs of a
trajectory (kind `epoch`) or rounds of a federated training (kind `round`).
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from hessketch.errors import InputError
from hessketch.records import read_table
from hessketch.runs import IDENTITY, Run
from hessketch.studies.sharper_sketching import TRAINER
from hessketch.studies.spectra import select, with_network_labels
from hessketch.trainers import Trainer, trainer_columns
from hessketch.training.selection import select_rate

SETUP = (*(column for column in IDENTITY if column != "seed"), *TRAINER)
_TIME = ["estimator", "kind", "time"]
_RESULTS = ("train_loss", "train_accuracy", "test_loss", "test_accuracy")
_FACTS = ("status", "diverged_at", "epochs", "n", "p", "classes", "wall_seconds")

_KINDS = {"label_noise": "float64", "width": "float64", "learning_rate": "float64", "seed": "int64"}
_KINDS |= {"error_feedback": "bool", "reduction": "float64"}


def columns_of(table: str) -> dict[str, str]:
    """Columns of the raw table `kappa` or `density`, in their order, and their dtypes."""
    from hessketch.curvature.predictor_spectra import SPECTRUM, TABLES

    return {**{name: _KINDS.get(name, "object") for name in (*IDENTITY, *TRAINER)}, **SPECTRUM, **TABLES[table]}


def joined(paths: Iterable[str | Path], table: str) -> pd.DataFrame:
    """The raw tables `kappa` or `density` of many jobs as one, with `columns_of` it.

    Without files, or where all are empty, it is empty and has its columns. Raises InputError, naming the file, for one
    that is missing, damaged, given twice or has another schema.
    """
    files = [Path(path) for path in paths]
    for place, path in enumerate(files):
        if path.resolve() in [other.resolve() for other in files[:place]]:
            raise InputError(f"{path}: given twice as the table {table}; allowed: each file once")
    columns = columns_of(table)
    kinds = {name: kind[0] for name, kind in columns.items() if name not in (*IDENTITY, *TRAINER)}
    frames = [read_table(path, kinds) for path in files]
    # An empty frame has columns without values, whose kinds would spoil the others'.
    full = [frame[list(columns)] for frame in frames if len(frame)]
    if full:
        return pd.concat(full, ignore_index=True)
    return pd.DataFrame({name: pd.Series(dtype=kind) for name, kind in columns.items()})


def runs_table(records: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """One row a trained run, from its record: identity, trainer, whether it is looked at, status, sizes, cost, results.

    `records` are those of the trajectories, and of all rates and seeds of the federated trainers. `selected` are runs
    at the rate whose spectra are computed: of a federated trainer the one of `training.selection.select_rate`, none
    where every run diverged; of trajectories each. `epochs` are those (or the rounds) that a run did. Losses and
    accuracies (fractions) of a diverged run are NaN: its weights are those of the last finite epoch or round.
    """
    records = list(records)
    rates = _selected_rates(records)
    rows = []
    for record in records:
        identity, finished = record["identity"], record["status"] == "finished"
        rows.append(
            {
                **identity,
                **trainer_columns(Run(**identity)),
                "selected": rates.get(_setup(identity), identity["learning_rate"]) == identity["learning_rate"],
                **{name: record[name] for name in _FACTS},
                **{name: float(record[name]) if finished else np.nan for name in _RESULTS},
            }
        )
    return pd.DataFrame(rows, columns=[*IDENTITY, *TRAINER, "selected", *_FACTS, *_RESULTS])


def _setup(identity: Mapping[str, Any]) -> tuple:
    return tuple(identity[name] for name in IDENTITY if name not in ("learning_rate", "seed"))


def _selected_rates(records: Iterable[Mapping[str, Any]]) -> dict[tuple, float | None]:
    """The selected learning rate of each federated trainer's runs; None where every run diverged."""
    groups: dict[tuple, list] = {}
    for record in records:
        if Trainer.parse(record["identity"]["trainer"]).federated:
            groups.setdefault(_setup(record["identity"]), []).append(record)
    return {setup: select_rate(group) for setup, group in groups.items()}


def kappa_over_time(kappa: pd.DataFrame) -> pd.DataFrame:
    """Kappa of every setup at every time, over its examples and seeds.

    Parameters
    ----------
    kappa : the raw table `kappa` (`joined`)

    Returns
    -------
    One row for each setup, p, outputs, estimator, kind and time, in this order:
    `train_loss` (mean over seeds), `rows` (estimates with a kappa), `undefined` (those without: a Hessian of zero has
    none), `examples`, `seeds` (numbers of both); `kappa` (mean over rows), `kappa_standard_error` (of that mean, from
    the spread over rows; NaN with one), `kappa_estimate_standard_error` (mean of the estimates' own),
    `kappa_least`, `kappa_largest` (over rows), `kappa_over_p` (mean over p); `kappa_lower`, `kappa_smoothed`,
    `kappa_floor` (means) and `smoothed_over_kappa` (mean of the rows' ratios), NaN for the estimator `fast`;
    `products` and `seconds` (means for one estimate).
    """
    keys = [*SETUP, "p", "outputs", *_TIME]
    ratios = kappa.assign(smoothed_over_kappa=kappa["kappa_smoothed"] / kappa["kappa"])
    grouped = ratios.groupby(keys, dropna=False, sort=True)
    table = grouped.agg(
        train_loss=("train_loss", "mean"),
        rows=("kappa", "count"),
        undefined=("kappa", "size"),
        examples=("example", "nunique"),
        seeds=("seed", "nunique"),
        kappa=("kappa", "mean"),
        kappa_standard_error=("kappa", "sem"),
        kappa_estimate_standard_error=("kappa_standard_error", "mean"),
        kappa_least=("kappa", "min"),
        kappa_largest=("kappa", "max"),
        kappa_lower=("kappa_lower", "mean"),
        kappa_smoothed=("kappa_smoothed", "mean"),
        kappa_floor=("kappa_floor", "mean"),
        smoothed_over_kappa=("smoothed_over_kappa", "mean"),
        products=("products", "mean"),
        seconds=("seconds", "mean"),
    ).reset_index()
    table["undefined"] -= table["rows"]
    table.insert(table.columns.get_loc("kappa_lower"), "kappa_over_p", table["kappa"] / table["p"])
    return table


def against_p(over_time: pd.DataFrame) -> pd.DataFrame:
    """How far kappa stays below p at all times of each setup: what Assumption 4.2 of the paper needs.

    `over_time` is `kappa_over_time`. One row for each setup, kind and estimator: `times`, `p`, `kappa_least` and
    `kappa_largest` of single examples over all times, `largest_over_p`, and the range of `smoothed_over_kappa`
    (`smoothing_least`, `smoothing_largest`: by how much the authors' smoothing raises kappa).
    """
    table = (
        over_time.groupby([*SETUP, "kind", "estimator"], dropna=False)
        .agg(
            times=("time", "nunique"),
            p=("p", "first"),
            kappa_least=("kappa_least", "min"),
            kappa_largest=("kappa_largest", "max"),
            smoothing_least=("smoothed_over_kappa", "min"),
            smoothing_largest=("smoothed_over_kappa", "max"),
        )
        .reset_index()
    )
    table.insert(table.columns.get_loc("smoothing_least"), "largest_over_p", table["kappa_largest"] / table["p"])
    return table


def moved_by_sketching(kappa: pd.DataFrame) -> pd.DataFrame:
    """Kappa of each way of sketching less that of uncompressed federation, of the same seed, example and round.

    Parameters
    ----------
    kappa : the raw table; its rows of kind `round` count

    Returns
    -------
    One row for each sketched setup, estimator and time: `seeds` (those that both have), `kappa_uncompressed` (mean),
    `difference` (mean over seeds of the mean over examples), its `standard_error` over seeds, `in_standard_errors`
    (their ratio), `probability` of a ratio as large by chance if sketching moved nothing (Student's t, two-sided,
    seeds - 1 degrees of freedom). The last three are NaN with one seed, the last two also where no seed differs, as
    before the first step. Examples where a kappa is undefined are left out. The uncompressed training may have
    another learning rate, which moves kappa by itself.
    """
    rounds = kappa[(kappa["kind"] == "round") & np.isfinite(kappa["kappa"])]
    shared = [column for column in SETUP if column not in ("trainer", "learning_rate", *TRAINER)]
    same = [*shared, *_TIME, "seed", "example"]
    plain = rounds["method"] == "uncompressed"
    reference = rounds.loc[plain, [*same, "kappa"]].rename(columns={"kappa": "kappa_uncompressed"})
    pairs = rounds[~plain].merge(reference, on=same)
    pairs["difference"] = pairs["kappa"] - pairs["kappa_uncompressed"]
    groups = [*SETUP, *_TIME]
    seeds = pairs.groupby([*groups, "seed"], dropna=False)[["kappa_uncompressed", "difference"]].mean().reset_index()
    table = (
        seeds.groupby(groups, dropna=False)
        .agg(
            seeds=("seed", "nunique"),
            kappa_uncompressed=("kappa_uncompressed", "mean"),
            difference=("difference", "mean"),
            standard_error=("difference", "sem"),
        )
        .reset_index()
    )
    table["in_standard_errors"] = table["difference"] / table["standard_error"]
    table["probability"] = 2 * stats.t.sf(table["in_standard_errors"].abs(), table["seeds"] - 1)
    return table


def cells(table: pd.DataFrame) -> list[tuple[str, str]]:
    """The (data set, network label) of a table whose rows name their networks by the registry, sorted."""
    labelled = with_network_labels(table)[["dataset", "network"]]
    return sorted(set(labelled.itertuples(index=False, name=None)))


def of_cell(frame: pd.DataFrame, dataset: str, network: str) -> pd.DataFrame:
    """Rows of one of `cells`, its label in the column `network`: what a figure takes. An empty table stays empty.

    Raises InputError, listing what exists, where a table that is not empty has no such row.
    """
    return select(with_network_labels(frame), dataset=dataset, network=network) if len(frame) else frame
