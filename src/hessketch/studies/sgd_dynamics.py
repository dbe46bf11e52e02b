"""Derived tables of *Hessian based analysis of SGD for Deep Nets: Dynamics and Generalization* (Li et al. 2020).

arXiv 1907.10732. A setting is what was chosen of a run but its learning rate and seed. The settings of a data set lie
around a base point: sweeps leave it along one axis (label noise, width, batch size or training-set size) at a time.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from hessketch.errors import InputError
from hessketch.runs import IDENTITY
from hessketch.studies.spectra import select, with_network_labels

TABLES = {
    "eigenvalues": ["operator", "rank", "eigenvalue"],
    "curvature": ["operator", "exact", "trace"],
    "overlaps": ["first", "second", "k", "overlap"],
    "angles": ["first", "second", "index", "angle"],
    "loss_changes": ["scheme", "mean", "predicted_mean"],
    "bounds": ["sigma", "chosen", "bound"],
}
"""What the jobs measure, one table a job, with identity and checkpoint in each row: columns that no other table has."""

SETTING = tuple(column for column in IDENTITY if column not in ("learning_rate", "seed"))
AXES = {"label_noise": "label_noise", "width": "p", "batch_size": "batch_size", "training_size": "n"}
"""Sweep axis: the column that measures it."""

_FACTORS = {
    "loss": ["loss"],
    "label noise": ["label_noise"],
    "network": ["network", "norm", "width"],
    "batch size": ["trainer"],
    "training-set size": ["examples_per_class"],
}
_VARIES = dict(zip(AXES, ("label_noise", "width", "trainer", "examples_per_class"), strict=True))
CHANGE = 0.1
"""Relative change of an eigenvalue that counts as a rise or a fall."""


def of_network(frame: pd.DataFrame, dataset: str, network: str) -> pd.DataFrame:
    """Rows of one of `networks` at its base loss and training-set size, its label in the column `network`.

    Raises InputError where there is none, with what exists, or where a setting has several learning rates.
    """
    rows = select(with_network_labels(frame), dataset=dataset, network=network)
    base, comparable = base_point(rows), _comparable(rows)
    return rows[(comparable["loss"] == base["loss"]) & (comparable["examples_per_class"] == base["examples_per_class"])]


def base_point(frame: pd.DataFrame) -> dict[str, Any]:
    """The value of each column of SETTING at which most settings of a data set lie; of equals the first in the table.

    Sweeps cross at the base point, so that it has the most settings on every axis. A missing examples_per_class (every
    example) is infinite here. Raises InputError for no rows, several data sets, and several learning rates of a
    setting, which no figure tells apart.
    """
    if frame["dataset"].nunique() != 1:
        raise InputError(f"data sets {', '.join(frame['dataset'].unique()) or '(none)'}; allowed: one; choose it first")
    rows = _comparable(frame)
    rates = rows.groupby(list(SETTING))["learning_rate"].agg(lambda rates: sorted(set(rates)))
    for setting, several in rates[rates.map(len) > 1].items():
        raise InputError(f"{setting}: learning rates {several}; allowed: one a setting; choose the rows of one")
    settings = rows[list(SETTING)].drop_duplicates()
    base = {"dataset": frame["dataset"].iloc[0]}
    for columns in _FACTORS.values():
        key = settings.groupby(columns, sort=False).size().idxmax()
        base |= dict(zip(columns, key if len(columns) > 1 else [key], strict=True))
    return base


def _comparable(frame: pd.DataFrame) -> pd.DataFrame:
    """Every example, a missing examples_per_class, equals nothing, not even itself: as infinity it does."""
    return frame.assign(examples_per_class=pd.to_numeric(frame["examples_per_class"]).fillna(np.inf))


def sweeps(frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Rows along each of AXES on which one data set has several values, everything else being at the base point."""
    base, rows = base_point(frame), _comparable(frame)
    at_base = pd.DataFrame({column: rows[column] == value for column, value in base.items()})
    along = {axis: frame[at_base.drop(columns=column).all(axis="columns")] for axis, column in _VARIES.items()}
    return {axis: rows for axis, rows in along.items() if rows[AXES[axis]].nunique() > 1}


def departure(frame: pd.DataFrame) -> pd.Series:
    """In what each row of one data set differs from the base point, label noise aside: `batch size`, or `nothing`."""
    base, rows = base_point(frame), _comparable(frame)
    equal = pd.DataFrame({column: rows[column] == value for column, value in base.items()})
    differs = {name: ~equal[columns].all(axis="columns") for name, columns in _FACTORS.items() if name != "label noise"}
    words = [
        " and ".join(name for name, here in zip(differs, row, strict=True) if here) or "nothing"
        for row in zip(*differs.values(), strict=True)
    ]
    return pd.Series(words, index=frame.index, dtype=object)


def chosen_bounds(bounds: pd.DataFrame) -> pd.DataFrame:
    """The row of the chosen sigma of each run, with what a figure shows of it.

    Added: `test_error_noisy` and `posterior_test_error_noisy`, on test labels as noisy as the training labels were, the
    errors that a bound from noisy labels speaks of; `gap` and `posterior_gap`, these less the training errors; the
    terms whose sum is the right-hand side: `curvature_term`, `distance_term` (over 2 n each) beside `log_term`;
    `vacuous`, a bound no better than guessing; and `right_hand_side_at_one_prior`, of the sigma `one_prior` in all runs
    of a data set in place of the run's own: the least at which curvature counts in each of them, or else the largest.
    """
    rows = bounds[bounds["chosen"]]
    for name in ("test_error", "posterior_test_error"):
        rows = rows.assign(**{f"{name}_noisy": noisy_error(rows[name], rows["label_noise"], rows["classes"])})
    return _with_one_prior(rows, bounds).assign(
        gap=rows["test_error_noisy"] - rows["train_error"],
        posterior_gap=rows["posterior_test_error_noisy"] - rows["posterior_train_error"],
        curvature_term=rows["effective_curvature"] / (2 * rows["n"]),
        distance_term=rows["distance"] / (2 * rows["n"]),
        vacuous=rows["bound"] >= 1 - 1 / rows["classes"],
    )


def noisy_error(error: pd.Series, noise: pd.Series, classes: pd.Series) -> pd.Series:
    """Error on labels of which a share `noise` is wrong, uniform over the other classes, from that on right ones."""
    return error + noise * (1 - error * classes / (classes - 1))


def _with_one_prior(rows: pd.DataFrame, bounds: pd.DataFrame) -> pd.DataFrame:
    keys, parts = list(IDENTITY), []
    for dataset, own in bounds.groupby("dataset", sort=False):
        active = own.groupby("sigma")["active"].min()
        sigma = active.index[active > 0].min() if (active > 0).any() else active.index.max()
        same = own.loc[own["sigma"] == sigma, [*keys, "right_hand_side"]]
        same = same.rename(columns={"right_hand_side": "right_hand_side_at_one_prior"}).assign(one_prior=sigma)
        parts.append(rows[rows["dataset"] == dataset].reset_index().merge(same, on=keys, how="left").set_index("index"))
    return pd.concat(parts).reindex(rows.index) if parts else rows


CORRELATED = (
    ("bound", "test_error"),
    ("bound", "posterior_test_error_noisy"),
    ("right_hand_side", "posterior_gap"),
    ("right_hand_side_at_one_prior", "test_error"),
    ("right_hand_side_at_one_prior", "gap"),
    ("curvature_term", "test_error"),
    ("distance_term", "test_error"),
)
"""What the bound says, and what was measured that should follow it."""


def bound_correlations(bounds: pd.DataFrame) -> pd.DataFrame:
    """Spearman's rank correlation between the bound and the measured error, over each sweep and over all runs.

    Parameters
    ----------
    bounds : the raw table of all data sets; runs whose sigma is chosen count

    Returns
    -------
    A row for each data set, `axis` (of AXES, or all), `predicted` and `measured` (of CORRELATED): `spearman` over
    `runs`, which counts seeds of one setting as if they were independent, and `spearman_of_means` over `settings`, the
    means over seeds. NaN with fewer than three values and where one side is constant.
    """
    rows = []
    values = sorted({column for pair in CORRELATED for column in pair})
    chosen = chosen_bounds(bounds) if len(bounds) else bounds
    for dataset, frame in chosen.groupby("dataset", sort=False):
        for axis, along in {**sweeps(frame), "all": frame}.items():
            means = along.groupby(list(SETTING), dropna=False, sort=False)[values].mean()
            for predicted, measured in CORRELATED:
                spearman, runs = rank_correlation(along[predicted], along[measured])
                of_means, settings = rank_correlation(means[predicted], means[measured])
                rows.append((dataset, axis, predicted, measured, spearman, runs, of_means, settings))
    columns = ["dataset", "axis", "predicted", "measured", "spearman", "runs", "spearman_of_means", "settings"]
    return pd.DataFrame(rows, columns=columns)


def rank_correlation(a: pd.Series, b: pd.Series) -> tuple[float, int]:
    """Spearman's rank correlation of the rows where both are known, and their number; ties share their mean rank."""
    known = a.notna() & b.notna()
    a, b = a[known].rank(), b[known].rank()
    if len(a) < 3 or a.nunique() < 2 or b.nunique() < 2:
        return float("nan"), len(a)
    return float(np.corrcoef(a, b)[0, 1]), len(a)


def landmarks(steps: Iterable[int]) -> list[int]:
    """The first, the middle (by place among the checkpoints) and the last of the steps, each once."""
    present = sorted({int(step) for step in steps})
    if not present:
        raise InputError("no steps; give those of at least one checkpoint")
    return sorted({present[0], present[len(present) // 2], present[-1]})


def courses(eigenvalues: pd.DataFrame) -> pd.DataFrame:
    """How the largest eigenvalue of each operator goes along each run.

    Returns
    -------
    A row a run and operator: identity, `batch_size`, `operator`, `first`, `largest`, `largest_step`, `last`, and
    `course`: rises, falls, rises then falls, or neither, where a rise (from the first to the largest) or a fall (from
    the largest to the last) is a change by more than CHANGE of the smaller value. What is not known (NaN) is left out.
    """
    rows = []
    keys = [*IDENTITY, "batch_size", "operator"]
    known = eigenvalues[eigenvalues["rank"] == 1].dropna(subset=["eigenvalue"])
    for key, run in known.groupby(keys, dropna=False, sort=False):
        values = run.set_index("step")["eigenvalue"].sort_index()
        first, last, step = values.iloc[0], values.iloc[-1], values.idxmax()
        largest = values[step]
        rises, falls = largest > first + CHANGE * abs(first), largest > last + CHANGE * abs(last)
        course = {(True, True): "rises then falls", (True, False): "rises", (False, True): "falls"}
        rows.append((*key, first, largest, int(step), last, course.get((rises, falls), "neither")))
    return pd.DataFrame(rows, columns=[*keys, "first", "largest", "largest_step", "last", "course"])
