"""Joins the tables of all jobs of the study of SGD's dynamics and derives its tables from them."""

import argparse
from pathlib import Path

from hessketch.cli import run_job

TABLES = ("eigenvalues", "curvature", "overlaps", "angles", "loss_changes", "bounds")


def tabulate(arguments: argparse.Namespace, progress) -> None:
    from hessketch.records import read_record, write_table
    from hessketch.studies.raw_tables import joined, read_raw, runs_table
    from hessketch.studies.sgd_dynamics import TABLES as COLUMNS
    from hessketch.studies.sgd_dynamics import bound_correlations
    from hessketch.studies.sgd_dynamics_coverage import coverage

    tables = {name: joined(read_raw(getattr(arguments, name), name, COLUMNS[name])) for name in TABLES}
    tables |= {
        "runs": runs_table(read_record(path) for path in arguments.records),
        "bound_correlations": bound_correlations(tables["bounds"]),
        "coverage": coverage(tables["loss_changes"]),
    }
    for name, table in tables.items():
        write_table(table, arguments.output / f"{name}.parquet")
        progress.say(f"{name}: {len(table)} rows")


# A shell takes no command of more than 128 KiB: many files can be named in a file, @FILE, one argument a line.
parser = argparse.ArgumentParser(description=__doc__, fromfile_prefix_chars="@")
for name in TABLES:
    parser.add_argument(
        f"--{name.replace('_', '-')}", type=Path, nargs="+", required=True, metavar="FILE",
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
