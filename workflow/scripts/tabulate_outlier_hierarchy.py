"""Joins the tables of all jobs of the study of the outliers' hierarchy and derives its tables from them."""

import argparse
from pathlib import Path

from hessketch.cli import run_job

TABLES = ("parts", "means", "alignment")


def tabulate(arguments: argparse.Namespace, progress) -> None:
    from hessketch.records import read_table, write_table
    from hessketch.studies.outlier_hierarchy import COLUMNS, attribution, densities_of, matches, trained_runs
    from hessketch.studies.raw_tables import joined, read_raw

    tables = {name: joined(read_raw(getattr(arguments, name), name, COLUMNS[name])) for name in TABLES}
    tables["attribution"] = attribution(tables["parts"])
    tables["matches"] = matches(tables["attribution"], tables["alignment"])
    tables["density"] = densities_of(read_table(arguments.full_spectrum / "density.parquet"), tables["parts"])
    tables["runs"] = trained_runs(read_table(arguments.full_spectrum / "runs.parquet"))
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
parser.add_argument("--full-spectrum", type=Path, required=True, help="folder of the full-spectrum study's tables")
parser.add_argument("--output", type=Path, required=True, help="folder to write the tables into")
parser.add_argument("--log", help="log file")

if __name__ == "__main__":
    arguments = parser.parse_args()
    run_job(lambda progress: tabulate(arguments, progress), "tables", arguments.log)
