"""Joins the tables of all jobs of the study of the outliers' hierarchy and derives its tables from them."""

import argparse
from pathlib import Path

from hessketch.cli import run_job
from hessketch.studies.tabulation import tabulation_parser, write_study

TABLES = ("parts", "means", "alignment")


def tabulate(arguments: argparse.Namespace, progress) -> None:
    from hessketch.records import joined, read_table
    from hessketch.studies.outlier_hierarchy import COLUMNS, attribution, densities_of, matches, trained_runs
    from hessketch.studies.raw_tables import read_raw

    tables = {name: joined(read_raw(getattr(arguments, name), name, COLUMNS[name])) for name in TABLES}
    tables["attribution"] = attribution(tables["parts"])
    tables["matches"] = matches(tables["attribution"], tables["alignment"])
    tables["density"] = densities_of(read_table(arguments.full_spectrum / "density.parquet"), tables["parts"])
    tables["runs"] = trained_runs(read_table(arguments.full_spectrum / "runs.parquet"))
    write_study(tables, arguments.output, progress)


parser = tabulation_parser(__doc__, TABLES)
parser.add_argument("--full-spectrum", type=Path, required=True, help="folder of the full-spectrum study's tables")

if __name__ == "__main__":
    arguments = parser.parse_args()
    run_job(lambda progress: tabulate(arguments, progress), "tables", arguments.log)
