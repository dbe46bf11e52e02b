"""Draws one figure of the study of basins from its tables."""

import argparse

from hessketch.cli import add_figure, run_job

# Figure: the tables that it takes.
FIGURES = {"line": ["paths"], "path": ["paths"], "barriers": ["barriers"]}


def rows_of(table, arguments: argparse.Namespace):
    """The table's rows that the arguments choose; an empty table stays empty, and its figure says so."""
    from hessketch.studies.basins import of_network

    return table if table.empty else of_network(table, arguments.dataset, arguments.network)


def plot(arguments: argparse.Namespace, progress) -> None:
    from hessketch.figures.drawing import draw_from

    draw_from(arguments, "basins", FIGURES[arguments.figure], lambda table: rows_of(table, arguments), progress.say)


parser = argparse.ArgumentParser(description=__doc__)
add_figure(parser, FIGURES)
parser.add_argument("--network", required=True, help="network with norm and width: mlp-none-w1")


if __name__ == "__main__":
    arguments = parser.parse_args()
    run_job(lambda progress: plot(arguments, progress), f"plot {arguments.figure}", arguments.log)
