"""Draws one figure of the sharper-sketching study from its tables."""

import argparse
from pathlib import Path

from hessketch.cli import run_job
from hessketch.errors import InputError

# Figure: the module that draws it and the tables that it takes.
FIGURES = {
    "accuracy_against_reduction": ("accuracy", ["accuracy"]),
    "accuracy_against_bytes": ("accuracy", ["accuracy"]),
    "learning_rates": ("accuracy", ["runs"]),
    "accuracy_against_rounds": ("rounds", ["rounds"]),
    "loss_against_rounds": ("rounds", ["rounds"]),
    "lift_error": ("rounds", ["rounds"]),
    "error_memory": ("rounds", ["rounds"]),
    "spectra": ("spectra", ["density", "eigenvalues"]),
    "curvature_over_rounds": ("spectra", ["curvature"]),
}


def plot(arguments: argparse.Namespace, progress) -> None:
    from importlib import import_module

    from hessketch.figures import style
    from hessketch.records import read_table
    from hessketch.studies.sharper_sketching import of_cell

    module, names = FIGURES[arguments.figure]
    draw = getattr(import_module(f"hessketch.figures.sharper_sketching_{module}"), arguments.figure)
    tables = [read_table(arguments.tables / f"{name}.parquet") for name in names]
    try:
        figure = draw(*(of_cell(table, arguments.dataset, arguments.network, arguments.variant) for table in tables))
    except InputError as error:
        # Runs that all diverged, or that reached no common loss, are a result: their figure says so.
        progress.say(f"nothing to draw: {error}")
        figure = style.message(f"nothing to draw: {error}")
    style.save_figure(figure, arguments.pdf, arguments.png)
    progress.say(f"drew {arguments.figure}")


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("figure", choices=list(FIGURES), metavar="figure", help=", ".join(FIGURES))
parser.add_argument("--tables", type=Path, required=True, help="folder of the study's tables")
parser.add_argument("--dataset", required=True, help="data set")
parser.add_argument("--network", required=True, help="network with norm and width: mlp-none-w1")
parser.add_argument("--variant", default="cross_entropy", help="loss and label noise (default: cross_entropy)")
parser.add_argument("--pdf", type=Path, required=True, help="PDF file to write")
parser.add_argument("--png", type=Path, required=True, help="PNG file to write")
parser.add_argument("--log", help="log file")

if __name__ == "__main__":
    arguments = parser.parse_args()
    run_job(lambda progress: plot(arguments, progress), f"plot {arguments.figure}", arguments.log)
