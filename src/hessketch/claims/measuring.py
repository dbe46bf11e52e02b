"""What measures of followed runs share: those that finished, sweeps paired by seed, parts of a training."""

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from hessketch.claims.claim import NotTested, Tables
from hessketch.claims.observations import NOT_KNOWN, observed, rows
from hessketch.records import joined
from hessketch.runs import IDENTITY

SHORT = "runs with two checkpoints or more are needed"


def finished(tables: Tables, name: str) -> pd.DataFrame:
    """Rows of the table `study/table` that are not of a run that diverged, as its study's table `runs` has it.

    Raises NotTested where there are none.
    """
    table = rows(tables, name)
    diverged = diverged_runs(tables, name)
    if diverged:
        table = table[[key not in diverged for key in identities(table)]].reset_index(drop=True)
    if table.empty:
        raise NotTested(f"every run of {name} diverged: it takes smaller learning rates")
    return table


def diverged_runs(tables: Tables, name: str) -> set[tuple]:
    """Identities of the runs that diverged in the study of a table `study/table`."""
    runs = rows(tables, f"{name.split('/')[0]}/runs")
    diverged = runs[runs["status"] == "diverged"]
    return set(identities(diverged)) if len(diverged) else set()


def identities(frame: pd.DataFrame, renamed: Mapping[str, str] | None = None) -> Iterable[tuple]:
    """The identity of each row's run, from the columns `renamed` to other ones: what is missing equals itself."""
    identity = frame[[(renamed or {}).get(name, name) for name in IDENTITY]].astype(object)
    return identity.where(identity.notna(), None).itertuples(index=False, name=None)


def of_runs(frame: pd.DataFrame, how: str = "mean", also: Sequence[str] = ()) -> pd.DataFrame:
    """One row a run (and value of the columns `also`), with the mean, or `how` else, of the column `value`."""
    keys = [*(name for name in (*IDENTITY, "n", "p", "classes") if name in frame), *also]
    return frame.groupby(keys, dropna=False, sort=False)["value"].agg(how).reset_index()


def first_half(frame: pd.DataFrame, time: str) -> pd.Series:
    """Whether a row is of the first half of its run's checkpoints, the middle one of an odd number among them."""
    times = frame.groupby(list(IDENTITY), dropna=False)[time]
    return times.rank(method="dense") <= np.ceil(times.transform("nunique") / 2)


def at_first(frame: pd.DataFrame, time: str) -> pd.Series:
    """Whether a row is of its run's first checkpoint."""
    return frame[time] == frame.groupby(list(IDENTITY), dropna=False)[time].transform("min")


def at_last(frame: pd.DataFrame, time: str) -> pd.Series:
    """Whether a row is of its run's last checkpoint, which a run of one checkpoint does not have."""
    return (frame[time] == frame.groupby(list(IDENTITY), dropna=False)[time].transform("max")) & ~at_first(frame, time)


def ends_along(frame: pd.DataFrame, column: str, held: Sequence[str]) -> pd.DataFrame:
    """`value_low` and `value_high` at the smallest and largest of `column` where `held` and the seed are the same.

    Smallest and largest are those of all seeds; a seed without one of them has no row. Both places stand in `column`
    with `_low` and `_high`; other columns are those of the smallest. One row for each of `held` and seed, none where
    `column` has one value.
    """
    places = frame.groupby(list(held), dropna=False)[column]
    low, high = places.transform("min"), places.transform("max")
    keys = [*held, "seed"]
    at_high = frame.loc[(low < high) & (frame[column] == high), [*keys, column, "value"]]
    at_low = frame[(low < high) & (frame[column] == low)]
    return at_low.merge(at_high, on=keys, suffixes=("_low", "_high"), validate="one_to_one")


def by_seed(frame: pd.DataFrame, derived: Callable[[pd.DataFrame], pd.DataFrame]) -> pd.DataFrame:
    """The table `derived` from the rows of each seed alone, with its `seed`: what a study averages over seeds."""
    return joined(derived(own).assign(seed=seed) for seed, own in frame.groupby("seed", sort=True))


def worded(frame: pd.DataFrame, words: Mapping[str, str]) -> pd.Series:
    """Of each row, in words, the columns of `words` (column to format) that have several values in the rows."""
    varied = {name: text for name, text in words.items() if frame[name].nunique(dropna=False) > 1}
    parts = [[text.format(value) for value in frame[name]] for name, text in varied.items()]
    joint = [", ".join(texts) for texts in zip(*parts, strict=True)] if parts else [""] * len(frame)
    return pd.Series(joint, index=frame.index, dtype=object)


def worded_cases(frame: pd.DataFrame, words: Mapping[str, str], missing: str = NOT_KNOWN) -> pd.DataFrame:
    """Observations, as `observed` makes them, of cases told apart by those of `words` that vary, as `worded` has it."""
    return observed(frame, missing, worded(frame, words))


def decades(values: pd.Series) -> pd.Series:
    """Decimal logarithms; NaN of what is not positive."""
    return np.log10(values.where(values > 0))
