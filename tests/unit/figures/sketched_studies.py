"""Synthetic studies that the figures of sharper sketching draw."""

import pytest
from matplotlib.colors import to_rgb
from synthetic_federation import (
    COMPARED,
    NAMED,
    curvature_table,
    equal_loss_spectra,
    rounds_table,
    runs_table,
)

from hessketch.figures import sharper_sketching_accuracy, sharper_sketching_rounds, sharper_sketching_spectra
from hessketch.figures.sharper_sketching_marks import named
from hessketch.studies.sharper_sketching import accuracy_table, equal_loss, mark_selected, of_cell

pytestmark = pytest.mark.filterwarnings("error")
TIMES = "\N{MULTIPLICATION SIGN}"
CELL = ("digits", "mlp-none-w1", "cross_entropy")


def study(seeds, reductions, named=NAMED, compared=COMPARED, splits=("train", "test"), **identity):
    """All tables of a study of one cell, as a figure takes them."""
    runs = mark_selected(runs_table(seeds, reductions, named, **identity))
    curvature = curvature_table(seeds, compared)
    curvature = curvature[curvature["split"].isin(splits)]
    density, eigenvalues = equal_loss_spectra(equal_loss(curvature))
    tables = {"runs": runs, "accuracy": accuracy_table(runs), "rounds": rounds_table(runs)}
    tables |= {"curvature": curvature, "density": density, "eigenvalues": eigenvalues}
    return {name: of_cell(table.assign(**identity), *CELL) for name, table in tables.items()}


FIGURES = {
    "accuracy_against_reduction": lambda t: sharper_sketching_accuracy.accuracy_against_reduction(t["accuracy"]),
    "accuracy_against_bytes": lambda t: sharper_sketching_accuracy.accuracy_against_bytes(t["accuracy"]),
    "learning_rates": lambda t: sharper_sketching_accuracy.learning_rates(t["runs"]),
    "accuracy_against_rounds": lambda t: sharper_sketching_rounds.accuracy_against_rounds(t["rounds"]),
    "loss_against_rounds": lambda t: sharper_sketching_rounds.loss_against_rounds(t["rounds"]),
    "lift_error": lambda t: sharper_sketching_rounds.lift_error(t["rounds"]),
    "error_memory": lambda t: sharper_sketching_rounds.error_memory(t["rounds"]),
    "spectra": lambda t: sharper_sketching_spectra.spectra(t["density"], t["eigenvalues"]),
    "curvature_over_rounds": lambda t: sharper_sketching_spectra.curvature_over_rounds(t["curvature"]),
}
BANDS = {"accuracy_against_rounds", "loss_against_rounds", "curvature_over_rounds", "spectra"}


def row_of(table, method, error_feedback):
    return table[(table["method"] == method) & (table["error_feedback"] == error_feedback)]


def bars(ax, method, error_feedback):
    """The container that errorbar drew for a method."""
    [container] = [c for c in ax.containers if c.get_label() == named(method, error_feedback)]
    return container


def crosses(ax):
    """Places of the crosses by colour."""
    lines = [line for line in ax.lines if line.get_marker() == "x"]
    return {to_rgb(line.get_color()): list(line.get_xdata()) for line in lines if len(line.get_xdata())}
