"""Figures 1, 2, 3 and 5 of Papyan 2018: densities of the Hessian and of the GGN, outliers marked.

`density` and `eigenvalues` are the long tables of the spectra stage. Of several seeds the first is drawn.
"""

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hessketch.figures import style
from hessketch.figures.curves import (
    DENSITY,
    EIGENVALUE,
    density_limits,
    draw_density,
    finest,
    letters,
    mark_eigenvalues,
    one_eigenvalue,
    spectrum_title,
)
from hessketch.studies.spectra import first_seed, largest_size, select

COLUMNS_LIMIT = 4
"""More sample sizes than this stand below each other in `figure5`, not beside each other."""


def figure1(density: pd.DataFrame, eigenvalues: pd.DataFrame, network: str) -> Figure:
    """Train Hessian of one network on every data set at its largest sample size (Papyan 2018, Figure 1)."""
    return _hessians(density, eigenvalues, network, "train")


def figure2(density: pd.DataFrame, eigenvalues: pd.DataFrame, network: str) -> Figure:
    """Test Hessian of one network on every data set at its largest sample size (Papyan 2018, Figure 2)."""
    return _hessians(density, eigenvalues, network, "test")


@style.styled
def _hessians(density: pd.DataFrame, eigenvalues: pd.DataFrame, network: str, split: str) -> Figure:
    chosen = {"network": network, "operator": "hessian", "split": split}
    curves = largest_size(first_seed(select(density, **chosen, estimator="lanczos", deflated=False)))
    marks = first_seed(select(eigenvalues, **chosen)) if len(eigenvalues) else eigenvalues
    datasets = style.ordered(curves["dataset"])
    figure, axes = style.wrapped_grid(len(datasets))
    for ax, dataset, letter in zip(axes, datasets, letters(len(datasets)), strict=True):
        curve = curves[curves["dataset"] == dataset]
        draw_density(ax, curve, style.COLOURS["hessian"])
        _mark(ax, marks, curve, "hessian")
        ax.set(title=spectrum_title(curve, letter), xlabel=EIGENVALUE, ylabel=DENSITY, ylim=density_limits(curve))
    figure.suptitle(style.title_lines(f"{style.network_name(network)}: {split} Hessian"), fontsize=9)
    return figure


@style.styled
def figure3(
    density: pd.DataFrame, eigenvalues: pd.DataFrame, dataset: str, network: str, examples_per_class: int
) -> Figure:
    """Train Hessian with (top) and without (bottom) low-rank deflation (Papyan 2018, Figure 3)."""
    cell = {"dataset": dataset, "network": network, "examples_per_class": examples_per_class}
    chosen = {**cell, "operator": "hessian", "split": "train"}
    curves = first_seed(select(density, **chosen, estimator="lanczos"))
    marks = first_seed(select(eigenvalues, **chosen))
    figure, rows = style.grid(2, 1, sharex=True)
    colour = style.COLOURS["hessian"]
    for (ax,), deflated, name in zip(rows, (True, False), ("with deflation", "without deflation"), strict=True):
        curve = select(curves, deflated=deflated)
        draw_density(ax, curve, colour)
        _mark(ax, marks, curve, "hessian", stems=deflated)
        ax.set(ylabel=DENSITY, ylim=density_limits(curve))
        ax.text(0.98, 0.95, name, transform=ax.transAxes, ha="right", va="top", fontsize=8)
    rows[0][0].set_title(f"{style.title_lines(style.network_name(network))}\n{spectrum_title(curves)}")
    rows[1][0].set(xlabel=EIGENVALUE)
    return figure


@style.styled
def figure5(
    density: pd.DataFrame, eigenvalues: pd.DataFrame, dataset: str, network: str, sizes: Sequence[int]
) -> Figure:
    """GGN of train and test over sample sizes (Papyan 2018, Figure 5; its covariance of gradients).

    Train above and test below, one column a size; more than COLUMNS_LIMIT sizes stand below each other, train on
    the left and test on the right. The deflated density is drawn where there is one, with the eigenvalues that
    were taken out as stems at the height of one eigenvalue.
    """
    chosen = {"dataset": dataset, "network": network, "operator": "ggn"}
    curves = finest(first_seed(select(density, **chosen, estimator="lanczos")))
    marks = first_seed(select(eigenvalues, **chosen)) if len(eigenvalues) else eigenvalues
    tall = len(sizes) > COLUMNS_LIMIT
    shape, panel = ((len(sizes), 2), (3.3, 1.6)) if tall else ((2, len(sizes)), (2.6, 2.1))
    figure, axes = style.grid(*shape, (3.3, panel[1]) if len(sizes) == 1 else panel, sharey=True)
    for i, size in enumerate(sorted(sizes)):
        for j, split in enumerate(("train", "test")):
            ax = axes[i][j] if tall else axes[j][i]
            curve = select(curves, examples_per_class=size, split=split)
            draw_density(ax, curve, style.COLOURS["ggn"])
            _mark(ax, marks, curve, "ggn", stems=bool(curve["deflated"].iloc[0]))
            row = curve.iloc[0]
            ax.set_title(f"{split}, {size} per class\n$n$ = {row['n']:,}, $p$ = {row['p']:,}")
    for ax in axes[-1]:
        ax.set_xlabel(EIGENVALUE)
    for row in axes:
        row[0].set(ylabel=DENSITY, ylim=density_limits(curves))
    title = f"{style.dataset_name(dataset)}, {style.network_name(network)}: GGN"
    figure.suptitle(style.title_lines(title) if len(sizes) == 1 else title, fontsize=9)
    return figure


def _mark(ax: Axes, marks: pd.DataFrame, curve: pd.DataFrame, operator: str, stems: bool = False) -> None:
    """Marks the deflated eigenvalues of the spectrum that `curve` belongs to."""
    same = ["dataset", "network", "examples_per_class", "split"]
    for column in same:
        marks = marks[marks[column] == curve[column].iloc[0]]
    height = one_eigenvalue(curve) if stems else None
    mark_eigenvalues(ax, marks["eigenvalue"], style.COLOURS[operator], height)
