"""Draws one figure of the sharper-sketching study from its tables."""

import argparse

from hessketch.cli import add_figure, run_job

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
    from hessketch.figures.drawing import draw_from
    from hessketch.studies.sharper_sketching import of_cell

    module, names = FIGURES[arguments.figure]
    draw_from(
        arguments,
        f"sharper_sketching_{module}",
        names,
        lambda table: of_cell(table, arguments.dataset, arguments.network, arguments.variant),
        progress.say,
    )


parser = argparse.ArgumentParser(description=__doc__)
add_figure(parser, FIGURES)
parser.add_argument("--network", required=True, help="network with norm and width: mlp-none-w1")
parser.add_argument("--variant", default="cross_entropy", help="loss and label noise (default: cross_entropy)")

if __name__ == "__main__":
    arguments = parser.parse_args()
    run_job(lambda progress: plot(arguments, progress), f"plot {arguments.figure}", arguments.log)
