"""The columns that name a spectrum in the long tables, and how to choose rows by them."""

import math
from collections.abc import Iterable

import pandas as pd

from hessketch.errors import InputError
from hessketch.runs import IDENTITY

SPECTRUM_KEYS = (*IDENTITY, "split", "operator", "n", "p", "classes")
"""Columns that together name one spectrum: the run, the examples averaged over and the operator."""

_CELL = ["dataset", "network", "examples_per_class"]
_VARIANT = ["label_noise", "norm", "width", "loss", "trainer"]


def select(frame: pd.DataFrame, **values: object) -> pd.DataFrame:
    """Rows where each named column has the given value.

    Raises InputError, listing the values that exist, when a condition leaves no row.
    """
    for column, value in values.items():
        rows = frame[frame[column] == value]
        if rows.empty:
            present = sorted(frame[column].unique().tolist())
            raise InputError(f"no rows with {column} = {value!r}; the table has {present}; choose one of these")
        frame = rows
    return frame


def first_variant(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows of one training variant, all seeds.

    A figure compares data sets, networks and sample sizes. Where the table holds more (label noise, norm,
    width, loss, trainer), each (dataset, network) keeps the value that sorts first: the least noise, and so on.
    """
    return _keep_first(frame, ["dataset", "network"], _VARIANT)


def first_run(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows of one run for each (dataset, network, examples_per_class): first variant, first seed."""
    return _keep_first(frame, _CELL, [*_VARIANT, "seed", "learning_rate"])


def _keep_first(frame: pd.DataFrame, groups: list[str], columns: list[str]) -> pd.DataFrame:
    for column in columns:
        frame = frame[frame[column] == frame.groupby(groups)[column].transform("min")]
    return frame


def largest_size(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows of the largest examples_per_class of each (dataset, network)."""
    largest = frame.groupby(["dataset", "network"])["examples_per_class"].transform("max")
    return frame[frame["examples_per_class"] == largest]


def nearest_size(sizes: Iterable[int], wanted: int) -> int:
    """The sample size nearest to `wanted` in log distance; of two equally near ones the larger.

    Raises InputError for no size at all.
    """
    candidates = sorted(set(sizes), reverse=True)
    if not candidates or wanted <= 0 or candidates[-1] <= 0:
        raise InputError(f"nearest of {candidates} to {wanted}: give at least one size; all must be positive")
    return min(candidates, key=lambda size: abs(math.log(size / wanted)))
