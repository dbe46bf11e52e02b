"""What Papyan 2018 says in words, drawn: counts, positions, energies and accuracy over sample sizes.

One panel (or one row of panels) for each data set and network. Points are means over seeds, bars reach from the
least to the largest seed.
"""

from collections.abc import Iterator
from itertools import product

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import (
    FixedLocator,
    MaxNLocator,
    NullLocator,
    PercentFormatter,
    ScalarFormatter,
)

from hessketch.figures import style
from hessketch.figures.curves import log_ticks
from hessketch.studies.spectra import all_seeds, largest_size

SIZES = "training examples per class"
_LINES = {"train": "-", "test": "--"}
_TICKS = 6


@style.styled
def outlier_count(outliers: pd.DataFrame) -> Figure:
    """Eigenvalues beyond the residual's spectrum over sample size, with lines at C and C - 1 for C classes.

    Where the data sets differ in their number of classes, a last panel shows the Hessian's outliers at the largest
    size against the number of classes.
    """
    outliers = all_seeds(outliers[outliers["beyond_residual"].notna()])
    cells = list(_cells(outliers))
    compare = outliers["classes"].nunique() > 1
    figure, axes = style.wrapped_grid(len(cells) + compare)
    for ax, (name, cell) in zip(axes, cells, strict=False):
        classes = cell["classes"].iloc[0]
        for level in (classes, classes - 1):
            ax.axhline(level, color="0.75", linewidth=0.8, zorder=0)
        ax.text(1.0, classes, "$C$", transform=ax.get_yaxis_transform(), va="center", color="0.4", fontsize=7)
        _operator_lines(ax, cell, "beyond_residual")
        top = max(classes, cell["beyond_residual"].max())
        ax.set(title=style.title_lines(name), ylabel="outliers", ylim=(-0.04 * top, 1.12 * top))
        ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    if compare:
        _against_classes(axes[-1], largest_size(outliers))
    _legend_below(figure, axes[0])
    return figure


def _against_classes(ax: Axes, outliers: pd.DataFrame) -> None:
    hessians = outliers[outliers["operator"] == "hessian"]
    ends = [hessians["classes"].min(), hessians["classes"].max()]
    ax.plot(ends, ends, color="0.75", linewidth=0.8, zorder=0)
    for split, marker in (("train", "o"), ("test", "D")):
        rows = hessians[hessians["split"] == split]
        colour = style.COLOURS["hessian"]
        look = {"color": colour, "markerfacecolor": colour if split == "train" else "none"}
        ax.plot(rows["classes"], rows["beyond_residual"], ls="none", marker=marker, markersize=4, label=split, **look)
    ax.set(title="Hessian, largest sample size", xlabel="classes", ylabel="outliers")
    ax.legend(loc="upper left")


@style.styled
def outlier_positions(positions: pd.DataFrame) -> Figure:
    """Leading eigenvalues of the Hessian against those of the GGN, rank by rank, with the diagonal.

    Filled circles are train, open diamonds test; the colour is the sample size. Pairs with a negative member have
    no place on logarithmic axes and are left out.
    """
    positions = all_seeds(positions)
    positions = positions[(positions["hessian"] > 0) & (positions["ggn"] > 0)]
    sizes = positions["examples_per_class"]
    norm = LogNorm(sizes.min(), max(sizes.max(), sizes.min() + 1))
    cells = list(_cells(positions))
    figure, axes = style.wrapped_grid(len(cells), panel=(3.3, 2.8))
    for ax, (name, cell) in zip(axes, cells, strict=True):
        _draw_positions(ax, cell, norm)
        ax.set(title=style.title_lines(name), xlabel="GGN eigenvalue", ylabel="Hessian eigenvalue")
        ax.legend(loc="upper left")
    if sizes.nunique() > 1:
        bar = figure.colorbar(style.colour_scale(norm), ax=axes, label=SIZES, shrink=0.8)
        _size_ticks(bar.ax.yaxis, sizes)
    return figure


def _draw_positions(ax: Axes, cell: pd.DataFrame, norm: LogNorm) -> None:
    ends = [cell[["hessian", "ggn"]].min().min(), cell[["hessian", "ggn"]].max().max()]
    ax.plot(ends, ends, color="0.7", linewidth=0.8, zorder=0)
    for split, marker in (("train", "o"), ("test", "D")):
        rows = cell[cell["split"] == split]
        edge = style.scale_colours(rows["examples_per_class"], norm)
        ax.scatter(
            rows["ggn"],
            rows["hessian"],
            s=11,
            marker=marker,
            facecolors=edge if split == "train" else "none",
            edgecolors=edge,
        )
        face = "0.3" if split == "train" else "none"
        ax.scatter([], [], s=11, marker=marker, facecolors=face, edgecolors="0.3", label=split)
    ax.set(xscale="log", yscale="log")
    log_ticks(ax.xaxis, *ends)
    log_ticks(ax.yaxis, *ends)


@style.styled
def bulk_energy(components: pd.DataFrame) -> Figure:
    """Share of the Hessian's bulk energy in the GGN's bulk, the residual and their cross term, over sample size."""
    components = all_seeds(components)
    parts = components[components["operator"] != "hessian"]
    cells = list(_cells(parts))
    splits = [split for split in _LINES if (parts["split"] == split).any()]
    figure, axes = style.grid(len(cells), len(splits), sharey="row")
    for row, (name, cell) in zip(axes, cells, strict=True):
        for ax, split in zip(row, splits, strict=True):
            for level in (0.0, 1.0):
                ax.axhline(level, color="0.75", linewidth=0.8, zorder=0)
            _operator_lines(ax, cell[cell["split"] == split], "bulk_energy_share", dashed=False)
            ax.set(title=style.title_lines(f"{name}, {split}"))
            ax.yaxis.set_major_formatter(PercentFormatter(1.0))
        row[0].set_ylabel("share of bulk energy")
    _legend_below(figure, axes[0][0])
    return figure


@style.styled
def negative_mass(components: pd.DataFrame) -> Figure:
    """Share of the sum of |eigenvalues| (left) and of the bulk's energy (right) below zero, over sample size."""
    components = all_seeds(components)
    parts = components[components["operator"] != "cross"]
    cells = list(_cells(parts))
    figure, axes = style.grid(len(cells), 2)
    quantities = {"negative_mass": "negative share of |eigenvalues|", "negative_energy_share": "negative bulk energy"}
    for row, (name, cell) in zip(axes, cells, strict=True):
        for ax, (column, label) in zip(row, quantities.items(), strict=True):
            _operator_lines(ax, cell, column)
            ax.set(title=style.title_lines(name), ylabel=label)
            ax.yaxis.set_major_formatter(PercentFormatter(1.0))
            top = max(ax.get_ylim()[1], 1e-12)
            ax.set_ylim(-0.04 * top, top)
    _legend_below(figure, axes[0][0])
    return figure


@style.styled
def accuracy(runs: pd.DataFrame) -> Figure:
    """Accuracy over sample size: the selected runs on train and test, every other rate's test accuracy in grey."""
    runs = all_seeds(runs)
    cells = list(_cells(runs))
    figure, axes = style.wrapped_grid(len(cells))
    for ax, (name, cell) in zip(axes, cells, strict=True):
        others = cell[~cell["selected"]].dropna(subset=["test_accuracy"])
        ax.plot(
            others["examples_per_class"], others["test_accuracy"], ".", color="0.75", markersize=4, label="other rates"
        )
        ax.axhline(1.0 / cell["classes"].iloc[0], color="0.75", linewidth=0.8, linestyle=":", label="chance")
        chosen = cell[cell["selected"]]
        _line(ax, chosen, "test_accuracy", color=style.COLOURS["hessian"], marker="o", markersize=3.5, label="test")
        _line(ax, chosen, "train_accuracy", color="0.25", linestyle="--", label="train")
        _size_axis(ax, cell["examples_per_class"])
        ax.set(title=style.title_lines(name), ylabel="accuracy", ylim=(0.0, 1.04))
        ax.yaxis.set_major_formatter(PercentFormatter(1.0))
    _legend_below(figure, axes[0])
    return figure


def _cells(frame: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    for dataset in style.ordered(frame["dataset"]):
        for network, cell in frame[frame["dataset"] == dataset].groupby("network"):
            yield f"{style.dataset_name(dataset)}, {style.network_name(network)}", cell


def _operator_lines(ax: Axes, cell: pd.DataFrame, column: str, dashed: bool = True) -> None:
    """A line for each operator and split, against sample size; test is dashed when both are in one panel."""
    for operator, split in product(style.operators_in(cell["operator"]), _LINES):
        rows = cell[(cell["operator"] == operator) & (cell["split"] == split)]
        if len(rows):
            label = f"{style.NAMES[operator]}, {split}" if dashed else style.NAMES[operator]
            look = {"color": style.COLOURS[operator], "label": label, **style.MARKERS[operator]}
            _line(ax, rows, column, linestyle=_LINES[split] if dashed else "-", **look)
    _size_axis(ax, cell["examples_per_class"])


def _line(ax: Axes, rows: pd.DataFrame, column: str, **look: object) -> None:
    """Mean over seeds against sample size, with bars to the extreme seeds where there are several."""
    seeds = rows.groupby("examples_per_class")[column].agg(["mean", "min", "max", "size"])
    bars = [seeds["mean"] - seeds["min"], seeds["max"] - seeds["mean"]] if seeds["size"].max() > 1 else None
    ax.errorbar(seeds.index, seeds["mean"], yerr=bars, capsize=1.5, elinewidth=0.7, **look)


def _size_axis(ax: Axes, sizes: pd.Series) -> None:
    ax.set(xscale="log", xlabel=SIZES, xlim=(sizes.min() / 1.25, sizes.max() * 1.25))
    _size_ticks(ax.xaxis, sizes)


def _size_ticks(axis: Axis, sizes: pd.Series) -> None:
    """Ticks at sample sizes that occur, at most _TICKS of them, the least and the largest among them."""
    present = sorted(sizes.unique())
    count = min(_TICKS, len(present))
    chosen = [present[round(i * (len(present) - 1) / max(count - 1, 1))] for i in range(count)]
    axis.set_major_locator(FixedLocator(chosen))
    axis.set_major_formatter(ScalarFormatter())
    axis.set_minor_locator(NullLocator())


def _legend_below(figure: Figure, ax: Axes) -> None:
    """One legend for the whole figure, under its panels, with the entries of one of them."""
    handles, labels = ax.get_legend_handles_labels()
    columns = 3 if len(labels) > 4 else len(labels)
    figure.legend(handles, labels, loc="outside lower center", ncols=columns)
