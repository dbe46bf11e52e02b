"""Draws one figure of the study of over-parametrized networks from its tables."""

import argparse

from hessketch.cli import add_figure, run_job

# Figure: the module that draws it, the table that it takes, and whether it is of one network of the data set.
FIGURES = {
    "spectrum_before_after": ("spectra", ["spectra"], True),
    "width": ("spectra", ["spectra"], False),
    "width_counts": ("counts", ["counts"], False),
    "data": ("counts", ["data_sweep"], True),
    "training": ("counts", ["counts"], True),
    "output_gradients": ("outliers", ["outlier_match"], True),
}


def rows_of(table, arguments: argparse.Namespace):
    """The table's rows that the arguments choose; an empty table stays empty, and its figure says so."""
    from hessketch.studies.over_parametrized import of_data
    from hessketch.studies.over_parametrized_sweeps import through

    if table.empty:
        return table
    if arguments.figure == "data":
        return through(table, arguments.dataset, arguments.network)
    return of_data(table, arguments.dataset, arguments.network if FIGURES[arguments.figure][2] else None)


def plot(arguments: argparse.Namespace, progress) -> None:
    from hessketch.figures.drawing import draw_from

    module, names, _ = FIGURES[arguments.figure]
    draw_from(arguments, f"over_parametrized_{module}", names, lambda table: rows_of(table, arguments), progress.say)


parser = argparse.ArgumentParser(description=__doc__)
add_figure(parser, FIGURES)
parser.add_argument("--network", help="network with norm and width: mlp-none-w1 (of width figures all are drawn)")


def parse(given: list[str] | None = None) -> argparse.Namespace:
    """The arguments, those that the figure needs among them; of the command line without `given`."""
    arguments = parser.parse_args(given)
    if FIGURES[arguments.figure][2] and arguments.network is None:
        parser.error(f"{arguments.figure} needs --network")
    return arguments


if __name__ == "__main__":
    arguments = parse()
    run_job(lambda progress: plot(arguments, progress), f"plot {arguments.figure}", arguments.log)
