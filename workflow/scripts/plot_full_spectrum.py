"""Draws one figure of the full-spectrum study from its tables."""

import argparse
import re
from pathlib import Path

from hessketch.cli import run_job
from hessketch.errors import InputError

SUMMARIES = {
    "accuracy": "runs",
    "outlier_count": "outliers",
    "outlier_positions": "outlier_positions",
    "bulk_energy": "components",
    "negative_mass": "components",
}
ALLOWED = f"figure1 to figure5, operators, {', '.join(SUMMARIES)}"


def draw(arguments: argparse.Namespace):
    """The figure of that name: a summary, `figure1-<network>` or `figure3-<dataset>/<network>`."""
    from hessketch.figures import full_spectrum_components, full_spectrum_density, full_spectrum_sizes, overview
    from hessketch.records import read_table
    from hessketch.studies.spectra import first_seed, nearest_size, of_variant, select, with_network_labels

    def table(name: str):
        return with_network_labels(of_variant(read_table(arguments.tables / f"{name}.parquet"), arguments.variant))

    if arguments.figure in SUMMARIES:
        return getattr(full_spectrum_sizes, arguments.figure)(table(SUMMARIES[arguments.figure]))
    name, dataset, network = arguments.figure, arguments.dataset, arguments.network
    density, eigenvalues = table("density"), table("eigenvalues")
    if name in ("figure1", "figure2"):
        return getattr(full_spectrum_density, name)(density, eigenvalues, network)
    sizes = sorted(density.loc[density["dataset"] == dataset, "examples_per_class"].unique())
    if name == "figure3":
        size = nearest_size(sizes, arguments.figure3_examples_per_class)
        return full_spectrum_density.figure3(density, eigenvalues, dataset, network, size)
    if name == "figure4":
        size = nearest_size(sizes, arguments.figure4_examples_per_class)
        return full_spectrum_components.figure4(density, eigenvalues, table("tails"), dataset, network, size)
    if name == "operators":
        size = nearest_size(sizes, arguments.figure4_examples_per_class)
        split = "test" if (density["split"] == "test").any() else "train"
        cell = {"dataset": dataset, "network": network, "examples_per_class": size, "split": split}
        marks = first_seed(select(eigenvalues, **cell)) if len(eigenvalues) else eigenvalues
        return overview.spectrum_overview(first_seed(select(density, **cell)), marks)
    return full_spectrum_density.figure5(density, eigenvalues, dataset, network, sizes)


def plot(arguments: argparse.Namespace, progress) -> None:
    from hessketch.figures.style import save_figure

    if arguments.figure not in SUMMARIES and not re.fullmatch("figure[1-5]|operators", arguments.figure):
        raise InputError(f"figure {arguments.figure!r} is unknown; allowed: {ALLOWED}")
    save_figure(draw(arguments), arguments.pdf, arguments.png)
    progress.say(f"drew {arguments.figure}")


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("figure", help=ALLOWED)
parser.add_argument("--tables", type=Path, required=True, help="folder of the study's tables")
parser.add_argument("--variant", default="cross_entropy", help="loss and label noise (default: cross_entropy)")
parser.add_argument("--dataset", help="of figures 3 to 5 and operators")
parser.add_argument("--network", help="of these and figures 1 and 2, with norm and width: vgg11-batch-w1")
parser.add_argument("--figure3-examples-per-class", type=int, default=136, help="the nearest size is drawn")
parser.add_argument("--figure4-examples-per-class", type=int, default=2599, help="the nearest size is drawn")
parser.add_argument("--pdf", type=Path, required=True, help="PDF file to write")
parser.add_argument("--png", type=Path, required=True, help="PNG file to write")
parser.add_argument("--log", help="log file")

if __name__ == "__main__":
    arguments = parser.parse_args()
    run_job(lambda progress: plot(arguments, progress), f"plot {arguments.figure}", arguments.log)
