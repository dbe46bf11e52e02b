"""Draws one figure of the study of SGD's dynamics from its tables."""

import argparse
from pathlib import Path

from hessketch.cli import run_job
from hessketch.errors import InputError

# Figure: the module that draws it, the tables that it takes, and what beside the data set chooses their rows.
FIGURES = {
    "eigenvalues": ("eigenspaces", ["eigenvalues", "curvature"], ["network"]),
    "overlap": ("eigenspaces", ["overlaps"], ["network"]),
    "overlap_against_k": ("eigenspaces", ["overlaps"], ["network"]),
    "angles": ("eigenspaces", ["angles"], ["network"]),
    "loss_change": ("loss_change", ["loss_changes"], ["network", "label_noise"]),
    "decrease": ("loss_change", ["loss_changes"], ["network", "label_noise"]),
    "bound": ("bound", ["bounds"], []),
    "bound_against_error": ("bound", ["bounds"], []),
}


def rows_of(table, arguments: argparse.Namespace, chosen: list[str]):
    """The table's rows that the arguments choose; an empty table stays empty, and its figure says so."""
    from hessketch.studies.sgd_dynamics import of_network
    from hessketch.studies.spectra import select

    if table.empty:
        return table
    if "network" not in chosen:
        return select(table, dataset=arguments.dataset)
    rows = of_network(table, arguments.dataset, arguments.network)
    return select(rows, label_noise=arguments.label_noise) if "label_noise" in chosen else rows


def plot(arguments: argparse.Namespace, progress) -> None:
    from importlib import import_module

    from hessketch.figures import style
    from hessketch.records import read_table

    module, names, chosen = FIGURES[arguments.figure]
    draw = getattr(import_module(f"hessketch.figures.sgd_dynamics_{module}"), arguments.figure)
    tables = [read_table(arguments.tables / f"{name}.parquet") for name in names]
    try:
        figure = draw(*(rows_of(table, arguments, chosen) for table in tables))
    except InputError as error:
        # Runs that all diverged, or a rank below k at all checkpoints, are a result: their figure says so.
        progress.say(f"nothing to draw: {error}")
        figure = style.message(f"nothing to draw: {error}")
    style.save_figure(figure, arguments.pdf, arguments.png)
    progress.say(f"drew {arguments.figure}")


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("figure", choices=list(FIGURES), metavar="figure", help=", ".join(FIGURES))
parser.add_argument("--tables", type=Path, required=True, help="folder of the study's tables")
parser.add_argument("--dataset", required=True, help="data set")
parser.add_argument("--network", help="network with norm and width: mlp-none-w1 (of bounds all networks are drawn)")
parser.add_argument("--label-noise", type=float, help="share of random labels, for loss_change and decrease")
parser.add_argument("--pdf", type=Path, required=True, help="PDF file to write")
parser.add_argument("--png", type=Path, required=True, help="PNG file to write")
parser.add_argument("--log", help="log file")


def parse(given: list[str] | None = None) -> argparse.Namespace:
    """The arguments, those that the figure needs among them; of the command line without `given`."""
    arguments = parser.parse_args(given)
    for name in FIGURES[arguments.figure][2]:
        if getattr(arguments, name) is None:
            parser.error(f"{arguments.figure} needs --{name.replace('_', '-')}")
    return arguments


if __name__ == "__main__":
    arguments = parse()
    run_job(lambda progress: plot(arguments, progress), f"plot {arguments.figure}", arguments.log)
