"""Joins the tables of all jobs of the study of basins and derives its tables from them."""

import argparse
from pathlib import Path

from hessketch.cli import run_job

TABLES = ("paths", "barriers")


def tabulate(arguments: argparse.Namespace, progress) -> None:
    from hessketch.records import read_record, write_table
    from hessketch.studies.basins import COLUMNS, KEYS, barrier_summary, best_places
    from hessketch.studies.raw_tables import joined, read_raw, runs_table

    tables = {name: joined(read_raw(getattr(arguments, name), name, COLUMNS[name], KEYS)) for name in TABLES}
    tables |= {
        "runs": runs_table(read_record(path) for path in arguments.records),
        "barrier_summary": barrier_summary(tables["barriers"]),
        "best_places": best_places(tables["paths"]),
    }
    for name, table in tables.items():
        write_table(table, arguments.output / f"{name}.parquet")
        progress.say(f"{name}: {len(table)} rows")


# A shell takes no command of more than 128 KiB: many files can be named in a file, @FILE, one argument a line.
parser = argparse.ArgumentParser(description=__doc__, fromfile_prefix_chars="@")
for name in TABLES:
    parser.add_argument(
        f"--{name}", type=Path, nargs="+", required=True, metavar="FILE",
        help=f"the table {name} of every job, in the order of the profile",
    )  # fmt: skip
parser.add_argument(
    "--records", type=Path, nargs="+", required=True, metavar="FILE", help="record.json of every trained run"
)
parser.add_argument("--output", type=Path, required=True, help="folder to write the tables into")
parser.add_argument("--log", help="log file")

if __name__ == "__main__":
    arguments = parser.parse_args()
    run_job(lambda progress: tabulate(arguments, progress), "tables", arguments.log)
