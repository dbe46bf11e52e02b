"""Draws one figure of the study of eigenspaces from its tables."""

import argparse

from hessketch.cli import add_figure, run_job

# Figure: the module that draws it, the tables that it takes, and the rows of them: of one network trained by SGD or
# federated, of a data set with all its networks, or of the whole study.
FIGURES = {
    "overlap_over_steps": ("overlaps", ["overlaps"], "network"),
    "overlap_at_k": ("overlaps", ["overlaps"], "network"),
    "overlap_against_k": ("overlaps", ["overlaps"], "network"),
    "times_chance": ("overlaps", ["overlaps"], "network"),
    "masks": ("overlaps", ["overlaps"], "network"),
    "stability": ("metrics", ["stability"], "network"),
    "metrics_over_steps": ("metrics", ["metrics", "metric_study"], "network"),
    "metric_study": ("metrics", ["metric_study"], "study"),
    "layers": ("parts", ["layers"], "network"),
    "sketch_quality": ("parts", ["quality", "eigenvalues"], "network"),
    "width": ("scale", ["overlaps"], "dataset"),
    "runtimes": ("scale", ["quality"], "dataset"),
    "federated": ("scale", ["overlaps"], "federated"),
}


def rows_of(table, arguments: argparse.Namespace, rows: str):
    """The table's rows that the figure is of; an empty table stays empty, and its figure says so."""
    from hessketch.studies.eigenspaces import of_network
    from hessketch.studies.spectra import select

    if "dataset" not in table or rows == "study":  # the synthetic study of metrics is of no data set
        return table
    if rows == "dataset":
        return table if table.empty else select(table, dataset=arguments.dataset)
    return of_network(table, arguments.dataset, arguments.network, federated=rows == "federated")


def plot(arguments: argparse.Namespace, progress) -> None:
    from hessketch.figures.drawing import draw_from

    module, names, rows = FIGURES[arguments.figure]
    draw_from(arguments, f"eigenspaces_{module}", names, lambda table: rows_of(table, arguments, rows), progress.say)


parser = argparse.ArgumentParser(description=__doc__)
add_figure(parser, FIGURES)
parser.add_argument("--network", help="network with norm and width: mlp_tanh-none-w1")


def parse(given: list[str] | None = None) -> argparse.Namespace:
    """The arguments, those that the figure needs among them; of the command line without `given`."""
    arguments = parser.parse_args(given)
    if FIGURES[arguments.figure][2] in ("network", "federated") and arguments.network is None:
        parser.error(f"{arguments.figure} needs --network")
    return arguments


if __name__ == "__main__":
    arguments = parse()
    run_job(lambda progress: plot(arguments, progress), f"plot {arguments.figure}", arguments.log)
