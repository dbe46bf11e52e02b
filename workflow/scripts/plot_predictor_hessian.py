"""Draws one figure of the predictor Hessian's study from its tables."""

import argparse

from hessketch.cli import add_figure, run_job

# Figure: the module that draws it and the tables that it takes.
FIGURES = {
    "density_over_epochs": ("density", ["density", "kappa"]),
    "kappa_over_epochs": ("kappa", ["kappa_over_time"]),
    "density_over_rounds": ("density", ["density", "kappa"]),
    "kappa_over_rounds": ("kappa", ["kappa_over_time"]),
}


def plot(arguments: argparse.Namespace, progress) -> None:
    from hessketch.figures.drawing import draw_from
    from hessketch.studies.predictor_hessian import of_cell

    module, names = FIGURES[arguments.figure]
    draw_from(
        arguments,
        f"predictor_hessian_{module}",
        names,
        lambda table: of_cell(table, arguments.dataset, arguments.network),
        progress.say,
    )


parser = argparse.ArgumentParser(description=__doc__)
add_figure(parser, FIGURES)
parser.add_argument("--network", required=True, help="network with norm and width: mlp-none-w1")

if __name__ == "__main__":
    arguments = parser.parse_args()
    run_job(lambda progress: plot(arguments, progress), f"plot {arguments.figure}", arguments.log)
