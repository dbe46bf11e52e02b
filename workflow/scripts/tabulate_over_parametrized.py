"""Joins the tables of all jobs of the study of over-parametrized networks and derives its tables from them."""

import argparse
from pathlib import Path

from hessketch.cli import run_job

TABLES = ("spectra", "alignments")


def tabulate(arguments: argparse.Namespace, progress) -> None:
    from hessketch.records import read_record, write_table
    from hessketch.studies.over_parametrized import COLUMNS, counts, ends, outlier_match
    from hessketch.studies.over_parametrized_sweeps import data_sweep, slopes, width_sweep
    from hessketch.studies.raw_tables import joined, read_raw, runs_table

    raw = {name: read_raw(getattr(arguments, name), name, COLUMNS[name]) for name in TABLES}
    alignments = joined(raw["alignments"])
    counted = joined(counts(frame) for frame in raw["spectra"])
    tables = {
        "runs": runs_table(read_record(path) for path in arguments.records),
        "spectra": joined(ends(frame) for frame in raw["spectra"]),  # all checkpoints are many millions of rows
        "alignments": alignments,
        "counts": counted,
        "outlier_match": joined(outlier_match(frame, alignments) for frame in raw["spectra"]),
        "width_sweep": width_sweep(counted),
        "data_sweep": data_sweep(counted),
        "slopes": slopes(counted),
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
