"""Joins the tables of all jobs of the study of over-parametrized networks and derives its tables from them."""

import argparse

from hessketch.cli import run_job
from hessketch.studies.tabulation import add_records, tabulation_parser, write_study

TABLES = ("spectra", "alignments")


def tabulate(arguments: argparse.Namespace, progress) -> None:
    from hessketch.records import joined, read_record
    from hessketch.studies.over_parametrized import COLUMNS, counts, ends, outlier_match
    from hessketch.studies.over_parametrized_sweeps import data_sweep, slopes, width_sweep
    from hessketch.studies.raw_tables import read_raw, runs_table

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
    write_study(tables, arguments.output, progress)


parser = tabulation_parser(__doc__, TABLES)
add_records(parser)

if __name__ == "__main__":
    arguments = parser.parse_args()
    run_job(lambda progress: tabulate(arguments, progress), "tables", arguments.log)
