"""What the scripts that join a study's raw tables share: their flags, and writing what comes out."""

import argparse
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from hessketch.progress import Progress
from hessketch.records import write_record, write_table


def tabulation_parser(description: str | None, tables: Iterable[str]) -> argparse.ArgumentParser:
    """The parser of a script that joins the raw tables of many jobs, one flag a table; see `write_study`.

    A shell takes no command of more than 128 KiB: many files can be named in a file, @FILE, one argument a line.
    """
    parser = argparse.ArgumentParser(description=description, fromfile_prefix_chars="@")
    for name in tables:
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            type=Path,
            nargs="+",
            required=True,
            metavar="FILE",
            help=f"the table {name} of every job, in the order of the profile",
        )
    parser.add_argument("--output", type=Path, required=True, help="folder to write the tables into")
    parser.add_argument("--log", help="log file")
    return parser


def add_records(parser: argparse.ArgumentParser) -> None:
    """The records of a study's runs."""
    parser.add_argument(
        "--records", type=Path, nargs="+", required=True, metavar="FILE", help="record.json of every trained run"
    )


def write_study(tables: Mapping[str, Any], folder: Path, progress: Progress) -> None:
    """Writes a study's tables (DataFrames by name) into its folder, and says how long each is; last its record.

    What else belongs to the study is written before, so that the record has its digest.
    """
    for name, table in tables.items():
        write_table(table, folder / f"{name}.parquet")
        progress.say(f"{name}: {len(table)} rows")
    write_record({"rows": {name: len(table) for name, table in tables.items()}}, folder / "record.json")
