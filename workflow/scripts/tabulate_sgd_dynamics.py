"""Joins the tables of all jobs of the study of SGD's dynamics and derives its tables from them."""

import argparse

from hessketch.cli import run_job
from hessketch.studies.tabulation import add_records, tabulation_parser, write_study

TABLES = ("eigenvalues", "curvature", "overlaps", "angles", "loss_changes", "bounds")


def tabulate(arguments: argparse.Namespace, progress) -> None:
    from hessketch.records import joined, read_record
    from hessketch.studies.raw_tables import read_raw, runs_table
    from hessketch.studies.sgd_dynamics import TABLES as COLUMNS
    from hessketch.studies.sgd_dynamics import bound_correlations
    from hessketch.studies.sgd_dynamics_coverage import coverage

    tables = {name: joined(read_raw(getattr(arguments, name), name, COLUMNS[name])) for name in TABLES}
    tables |= {
        "runs": runs_table(read_record(path) for path in arguments.records),
        "bound_correlations": bound_correlations(tables["bounds"]),
        "coverage": coverage(tables["loss_changes"]),
    }
    write_study(tables, arguments.output, progress)


parser = tabulation_parser(__doc__, TABLES)
add_records(parser)

if __name__ == "__main__":
    arguments = parser.parse_args()
    run_job(lambda progress: tabulate(arguments, progress), "tables", arguments.log)
