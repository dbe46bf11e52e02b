"""Joins the tables of all jobs of the study of basins and derives its tables from them."""

import argparse

from hessketch.cli import run_job
from hessketch.studies.tabulation import add_records, tabulation_parser, write_study

TABLES = ("paths", "barriers")


def tabulate(arguments: argparse.Namespace, progress) -> None:
    from hessketch.records import joined, read_record
    from hessketch.studies.basins import COLUMNS, KEYS, barrier_summary, best_places
    from hessketch.studies.raw_tables import read_raw, runs_table

    tables = {name: joined(read_raw(getattr(arguments, name), name, COLUMNS[name], KEYS)) for name in TABLES}
    tables |= {
        "runs": runs_table(read_record(path) for path in arguments.records),
        "barrier_summary": barrier_summary(tables["barriers"]),
        "best_places": best_places(tables["paths"]),
    }
    write_study(tables, arguments.output, progress)


parser = tabulation_parser(__doc__, TABLES)
add_records(parser)

if __name__ == "__main__":
    arguments = parser.parse_args()
    run_job(lambda progress: tabulate(arguments, progress), "tables", arguments.log)
