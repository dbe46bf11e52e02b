"""Draws one figure of the study of SGD's dynamics from its tables."""

import argparse

from hessketch.cli import add_figure, run_job

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
    from hessketch.figures.drawing import draw_from

    module, names, chosen = FIGURES[arguments.figure]
    draw_from(arguments, f"sgd_dynamics_{module}", names, lambda table: rows_of(table, arguments, chosen), progress.say)


parser = argparse.ArgumentParser(description=__doc__)
add_figure(parser, FIGURES)
parser.add_argument("--network", help="network with norm and width: mlp-none-w1 (of bounds all networks are drawn)")
parser.add_argument("--label-noise", type=float, help="share of wrong labels, for loss_change and decrease")


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
