"""Collects all runs and spectra of a profile and derives the full-spectrum study's tables from them."""

import argparse
from pathlib import Path

from hessketch.cli import run_job


def tabulate(arguments: argparse.Namespace, progress) -> None:
    from hessketch.figures.html import table_page
    from hessketch.records import read_record, write_atomically
    from hessketch.studies import full_spectrum, training_table
    from hessketch.studies.collect import collect_runs, collect_spectra
    from hessketch.studies.tabulation import write_study

    config = read_record(arguments.config)
    tables = {"runs": collect_runs(config, arguments.results), **collect_spectra(config, arguments.results)}
    tables["outliers"] = full_spectrum.outliers(tables["ritz"], tables["eigenvalues"])
    tables["outlier_positions"] = full_spectrum.outlier_positions(tables["eigenvalues"])
    tables["components"] = full_spectrum.components(tables["ritz"])
    tables["tails"] = full_spectrum.tails(tables["density"])
    tables["training_table"] = training_table.training_table(tables["runs"])
    wide = training_table.wide_training_table(tables["training_table"])
    write_atomically(arguments.output / "table1.csv", lambda path: wide.to_csv(path, index=False))
    html = table_page(wide, "Table 1: experiment parameters, selected learning rates and test accuracies")
    write_atomically(arguments.output / "table1.html", lambda path: path.write_text(html))
    write_study(tables, arguments.output, progress)


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--config", type=Path, required=True, help="the profile's full config (JSON)")
parser.add_argument("--results", type=Path, required=True, help="the profile's results folder: runs/, spectra/")
parser.add_argument("--output", type=Path, required=True, help="folder to write the tables into")
parser.add_argument("--log", help="log file")

if __name__ == "__main__":
    arguments = parser.parse_args()
    run_job(lambda progress: tabulate(arguments, progress), "tables", arguments.log)
