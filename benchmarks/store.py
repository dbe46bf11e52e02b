"""Results of a benchmark in its folder: the long table, the summary, and a record of how each part was measured."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from hessketch.records import read_record, write_atomically, write_record


def store(
    table: pd.DataFrame, folder: Path, of_run: dict[str, Any], report: Callable[[pd.DataFrame], str]
) -> pd.DataFrame:
    """Writes measurements.csv, summary.md (which is also printed) and record.json; returns the table that was written.

    Parts that were measured into the same folder before and are not in this table stay as they were.
    """
    records = {part: of_run for part in dict.fromkeys(table["part"])}
    if (folder / "record.json").is_file():
        before = pd.read_csv(folder / "measurements.csv")
        table = pd.concat([before[~before["part"].isin(records)], table], ignore_index=True)
        records = read_record(folder / "record.json") | records
    summary = report(table)
    write_atomically(folder / "measurements.csv", lambda path: table.to_csv(path, index=False))
    write_atomically(folder / "summary.md", lambda path: path.write_text(summary))
    write_record(records, folder / "record.json")
    print(summary)
    return table
