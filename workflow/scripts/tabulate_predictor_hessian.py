"""Collects the predictor Hessians of a profile and derives the study's tables from them."""

import argparse
from pathlib import Path

from hessketch.cli import run_job


def tabulate(arguments: argparse.Namespace, progress) -> None:
    from hessketch.records import read_record
    from hessketch.studies.predictor_hessian import joined, kappa_over_time, runs_table
    from hessketch.studies.tabulation import write_study

    kappa = joined(arguments.kappa, "kappa")
    tables = {
        "kappa": kappa,
        "density": joined(arguments.density, "density"),
        "kappa_over_time": kappa_over_time(kappa),
        "runs": runs_table(map(read_record, arguments.records)),
    }
    write_study(tables, arguments.output, progress)


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--kappa", type=Path, nargs="*", default=[], help="kappa.parquet of every job")
parser.add_argument("--density", type=Path, nargs="*", default=[], help="density.parquet of every job")
parser.add_argument("--records", type=Path, nargs="*", default=[], help="record.json of every training, of all rates")
parser.add_argument("--output", type=Path, required=True, help="folder to write the tables into")
parser.add_argument("--log", help="log file")

if __name__ == "__main__":
    arguments = parser.parse_args()
    run_job(lambda progress: tabulate(arguments, progress), "tables", arguments.log)
