"""Draws one figure of the study of the outliers' hierarchy from its tables."""

import argparse

from hessketch.cli import add_figure, run_job, whole_number

# Figure: the tables that it takes.
FIGURES = {
    "hierarchy": ["density", "parts"],
    "attribution": ["attribution", "matches"],
    "embedding": ["means"],
}


def rows_of(table, arguments: argparse.Namespace):
    """The table's rows that the arguments choose; an empty table stays empty, and its figure says so."""
    from hessketch.studies.outlier_hierarchy import of_network

    chosen = arguments.dataset, arguments.network, arguments.examples_per_class
    return table if table.empty else of_network(table, *chosen)


def plot(arguments: argparse.Namespace, progress) -> None:
    from hessketch.figures.drawing import draw_from

    draw_from(
        arguments, "outlier_hierarchy", FIGURES[arguments.figure], lambda table: rows_of(table, arguments), progress.say
    )


parser = argparse.ArgumentParser(description=__doc__)
add_figure(parser, FIGURES)
parser.add_argument("--network", required=True, help="network with norm and width: vgg11-batch-w1")
parser.add_argument("--examples-per-class", type=whole_number(1), help="training-set size (default: the largest)")


if __name__ == "__main__":
    arguments = parser.parse_args()
    run_job(lambda progress: plot(arguments, progress), f"plot {arguments.figure}", arguments.log)
