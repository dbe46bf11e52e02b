"""Collects the federated runs of a profile and derives the sharper-sketching study's tables from them."""

import argparse
from pathlib import Path

from hessketch.cli import run_job


def tabulate(arguments: argparse.Namespace, progress) -> None:
    from hessketch.figures.html import table_page
    from hessketch.records import read_record, write_atomically
    from hessketch.studies.collect import collect_checkpoint_spectra, collect_federated_runs, collect_rounds
    from hessketch.studies.sharper_sketching import accuracy_table, equal_loss, learning_rates, mark_selected
    from hessketch.studies.sharper_sketching_constants import table1, wide_table1
    from hessketch.studies.tabulation import write_study

    config = read_record(arguments.config)
    runs = mark_selected(collect_federated_runs(config, arguments.results))
    spectra = collect_checkpoint_spectra(config, arguments.results)
    tables = {
        "runs": runs,
        "rounds": collect_rounds(config, arguments.results, runs["selected"]),
        "learning_rates": learning_rates(runs),
        "accuracy": accuracy_table(runs),
        "curvature": spectra["curvature"],
        # Networks are compared at the loss that all of them reached: the other targets stay with the runs.
        "density": equal_loss(spectra["density"]),
        "eigenvalues": equal_loss(spectra["eigenvalues"]),
        "table1": table1(runs, spectra["curvature"]),
    }
    wide = wide_table1(tables["table1"])
    write_atomically(arguments.output / "table1.csv", lambda path: wide.to_csv(path, index=False))
    html = table_page(wide, "Table 1: what two analyses of sketched training assume, and their constants as measured")
    write_atomically(arguments.output / "table1.html", lambda path: path.write_text(html))
    write_study(tables, arguments.output, progress)


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--config", type=Path, required=True, help="the profile's full config (JSON)")
parser.add_argument("--results", type=Path, required=True, help="the profile's results folder: runs/, ...")
parser.add_argument("--output", type=Path, required=True, help="folder to write the tables into")
parser.add_argument("--log", help="log file")

if __name__ == "__main__":
    arguments = parser.parse_args()
    run_job(lambda progress: tabulate(arguments, progress), "tables", arguments.log)
