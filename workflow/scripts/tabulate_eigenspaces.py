"""Joins the tables of all jobs of the study of eigenspaces and derives its tables from them."""

import argparse
from pathlib import Path

from hessketch.cli import run_job
from hessketch.studies.tabulation import add_records, tabulation_parser, write_study

TABLES = ("overlaps", "layers", "eigenvalues", "quality", "metrics", "stability")


def tabulate(arguments: argparse.Namespace, progress) -> None:
    from hessketch.records import joined, read_record, read_table
    from hessketch.studies import eigenspaces as study
    from hessketch.studies import eigenspaces_comparisons as comparisons
    from hessketch.studies.raw_tables import read_raw, runs_table

    tables = {name: joined(read_raw(getattr(arguments, name), name, study.TABLES[name])) for name in TABLES}
    at_ratios = study.at_ratios(tables["overlaps"], tables["metrics"])
    tables |= {
        "metric_study": read_table(arguments.metric_study),
        "runs": runs_table(read_record(path) for path in arguments.records),
        "overlap_summary": study.overlap_summary(at_ratios),
        "shares_above": study.shares_above(tables["overlaps"]),
        "stabilisation": study.stabilisation(tables["stability"]),
        "sketch_quality": comparisons.sketch_quality(tables["quality"]),
        "width_summary": comparisons.width_summary(tables["overlaps"]),
        "federated_summary": comparisons.federated_summary(at_ratios),
    }
    write_study(tables, arguments.output, progress)


parser = tabulation_parser(__doc__, TABLES)
parser.add_argument("--metric-study", type=Path, required=True, metavar="FILE", help="the synthetic study of metrics")
add_records(parser)

if __name__ == "__main__":
    arguments = parser.parse_args()
    run_job(lambda progress: tabulate(arguments, progress), "tables", arguments.log)
