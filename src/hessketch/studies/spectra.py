"""The columns that name a spectrum in the long tables, and how to choose rows by them."""

import math
from collections.abc import Iterable

import pandas as pd

from hessketch.errors import InputError
from hessketch.runs import IDENTITY, Run

SPECTRUM_KEYS = (*IDENTITY, "split", "operator", "n", "p", "classes")
"""Columns that together name one spectrum: the run, the examples averaged over and the operator."""

_MODEL = ["dataset", "network"]
_SETTINGS = ["label_noise", "norm", "width", "loss"]


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


def require_one(frame: pd.DataFrame, columns: Iterable[str], what: str, remedy: str) -> None:
    """Raises InputError that names `what` where rows are none, or of several values of one of the columns."""
    if frame.empty:
        raise InputError(f"{what}: the table has no rows of it; measure them first or choose another figure")
    for column in columns:
        present = frame[column].drop_duplicates()
        if len(present) > 1:
            raise InputError(
                f"{what}: rows of several values of {column} ({', '.join(map(str, present))}); allowed: one; {remedy}"
            )


def with_network_labels(frame: pd.DataFrame) -> pd.DataFrame:
    """A copy whose `network` column holds `Run.network_label` (`vgg11-batch-w0.0625`) instead of the registry name.

    Figures tell networks apart by this column alone, so it must say norm and width too. Once is enough: a second
    call would add both again.
    """
    return frame.assign(network=_run_property(frame, ["network", "norm", "width"], "network_label"))


def variants(frame: pd.DataFrame) -> list[str]:
    """The losses and label noises of a table, named as by `Run.variant`: `cross_entropy`, `cross_entropy-noise0.1`."""
    return sorted(set(_variant_of_rows(frame)))


def of_variant(frame: pd.DataFrame, variant: str) -> pd.DataFrame:
    """Rows of one loss and label noise, named as in `variants`.

    An empty table stays empty (that of eigenvalues is, without deflation). Raises InputError, listing the variants
    that exist, for one that has no row.
    """
    of_rows = _variant_of_rows(frame)
    rows = frame[of_rows == variant]
    if rows.empty and len(frame):
        raise InputError(
            f"no rows of the variant {variant!r}; the table has {', '.join(variants(frame))}; choose one of these"
        )
    return rows


def _variant_of_rows(frame: pd.DataFrame) -> pd.Series:
    return _run_property(frame, ["loss", "label_noise"], "variant")


def _run_property(frame: pd.DataFrame, columns: list[str], name: str) -> pd.Series:
    """A property of each row's `Run` that depends on the given columns only."""
    combinations = frame[columns].drop_duplicates().to_dict("records")
    runs = [Run(**{**dict.fromkeys(IDENTITY), **values}) for values in combinations]
    texts = {tuple(values.values()): getattr(run, name) for values, run in zip(combinations, runs, strict=True)}
    keys = zip(*(frame[column] for column in columns), strict=True)
    return pd.Series([texts[key] for key in keys], index=frame.index, dtype=object)


def all_seeds(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows that a figure over sample sizes may put together: every seed, of several trainers the first by name.

    Data set and network must name the rest. Raises InputError where a data set and network has rows of several
    label noises, norms, widths or losses, for a figure would mix them without saying so.
    """
    for column in _SETTINGS:
        counts = frame.groupby(_MODEL)[column].nunique()
        for dataset, network in counts.index[counts > 1]:
            rows = frame[(frame["dataset"] == dataset) & (frame["network"] == network)]
            present = ", ".join(map(str, sorted(rows[column].unique())))
            raise InputError(
                f"{network} on {dataset} has rows of several values of {column} ({present}); allowed: one; "
                "choose a loss and noise by of_variant and name norms and widths apart by with_network_labels"
            )
    return frame[frame["trainer"] == frame.groupby(_MODEL)["trainer"].transform("min")]


def first_seed(frame: pd.DataFrame) -> pd.DataFrame:
    """Of the rows that `all_seeds` keeps, those of the least seed of each data set, network and sample size."""
    frame = all_seeds(frame)
    return frame[frame["seed"] == frame.groupby([*_MODEL, "examples_per_class"])["seed"].transform("min")]


def largest_size(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows of the largest examples_per_class of each (dataset, network)."""
    largest = frame.groupby(_MODEL)["examples_per_class"].transform("max")
    return frame[frame["examples_per_class"] == largest]


def nearest_size(sizes: Iterable[int], wanted: int) -> int:
    """The sample size nearest to `wanted` in log distance; of two equally near ones the larger.

    Raises InputError for no size at all.
    """
    candidates = sorted(set(sizes), reverse=True)
    if not candidates or wanted <= 0 or candidates[-1] <= 0:
        raise InputError(f"nearest of {candidates} to {wanted}: give at least one size; all must be positive")
    return min(candidates, key=lambda size: abs(math.log(size / wanted)))


def networks(frame: pd.DataFrame) -> list[tuple[str, str]]:
    """The (data set, network label) pairs of a table whose rows name their networks by the registry, as they come."""
    if frame.empty:
        return []
    pairs = with_network_labels(frame)[["dataset", "network"]].drop_duplicates()
    return list(pairs.itertuples(index=False, name=None))
