"""What the jobs of a study measured, one table a job, as one table a study; and the runs that it is of."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from hessketch.errors import InputError
from hessketch.records import read_table
from hessketch.runs import IDENTITY
from hessketch.trainers import FULL_BATCH, Trainer

_FACTS = ("status", "diverged_at", "epochs", "rounds", "n", "p", "classes", "wall_seconds", "peak_memory_mib")
_RESULTS = ("train_loss", "train_accuracy", "test_loss", "test_accuracy")


def runs_table(records: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """One row a trained run, from its record: identity, `batch_size`, status, sizes, results, cost.

    `batch_size` is n for full batch and 0 for federated runs, whose length is in `rounds` instead of `epochs`. Losses
    and accuracies (fractions) of a run that diverged are NaN: its weights are those of the last finite epoch.
    """
    rows = []
    for record in records:
        finished = record["status"] == "finished"
        rows.append(
            {
                **record["identity"],
                "batch_size": _batch_size(record),
                **{name: record[name] for name in _FACTS if name in record},
                **{name: float(record[name]) if finished else float("nan") for name in _RESULTS},
            }
        )
    return pd.DataFrame(rows)


def _batch_size(record: Mapping[str, Any]) -> int:
    trainer = Trainer.parse(record["identity"]["trainer"])
    if trainer.federated:
        return 0
    size = record["settings"]["batch_size"] if trainer.batch_size is None else trainer.batch_size
    return record["n"] if size == FULL_BATCH else min(size, record["n"])


def read_raw(
    paths: Iterable[str | Path], table: str, own: Sequence[str], keys: Sequence[str] = IDENTITY
) -> list[pd.DataFrame]:
    """One raw table of many jobs, for `records.joined`; `own` are the columns that tell it from the study's others.

    `keys` are the columns that each table of the study has: of rows of one run its identity.

    Raises InputError, naming the file, for one that is missing, damaged, given twice or another table. Of a table
    without rows, as of runs that all diverged, nothing is asked.
    """
    frames: dict[Path, pd.DataFrame] = {}
    for path in map(Path, paths):
        frame = read_table(path)
        missing = [name for name in (*keys, *own) if name not in frame]
        if len(frame) and missing:
            raise InputError(
                f"{path}: column {missing[0]!r} is missing, which the table {table} has; it has {list(frame)}; give "
                f"{table}.parquet of a job"
            )
        if path.resolve() in frames:
            raise InputError(f"{path}: given twice as the table {table}; allowed: each file once")
        frames[path.resolve()] = frame
    return list(frames.values())
