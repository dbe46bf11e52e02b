"""Accuracy against what is sent, and against the learning rate (Shrivastava et al. 2024, Figure 1 and its tuning).

Each function takes a table of one cell (`studies.sharper_sketching.of_cell`). Points are means over the seeds that
finished, bars and bands one standard error over seeds (none with one seed). A cross at the bottom says that a seed
diverged; where there is no point above it, all did.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from hessketch.errors import InputError
from hessketch.figures import style
from hessketch.figures.curves import letters, log_ticks
from hessketch.figures.sharper_sketching_marks import (
    COLOURS,
    draw_crosses,
    factor,
    head,
    legend_below,
    look,
    make_room,
    methods,
    named,
    ticks_at,
    title,
)

ACCURACY = "test accuracy (%)"
REDUCTION = "dimension reduction (nominal, by bytes)"
_BARS = {"capsize": 1.5, "elinewidth": 0.7}
_RING: dict[str, Any] = {"marker": "o", "markersize": 7, "markerfacecolor": "none", "linestyle": "none"}


@style.styled
def accuracy_against_reduction(accuracy: pd.DataFrame) -> Figure:
    """Test accuracy over the dimension reduction (Shrivastava et al. 2024, Figure 1), counted in bytes and in numbers.

    Left, the nominal reduction: bytes of the dense update over the bytes sent, indices of top-r included. Right, the
    parameters over the numbers sent, indices not counted.

    Parameters
    ----------
    accuracy : as `studies.sharper_sketching.accuracy_table` makes it, one row a method and reduction

    Raises InputError where nothing is compressed.
    """
    name = title(accuracy, "accuracy against dimension reduction")
    compressed = _compressed(accuracy, "accuracy against dimension reduction")
    # A method that has no reduction to choose stands where its bytes put it.
    compressed = compressed.assign(reduction=compressed["reduction"].fillna(compressed["reduction_bytes"]))
    figure, [axes] = style.grid(1, 2, (3.3, 2.8), sharey=True)
    # Uncompressed has no place on these axes.
    counts = {"reduction": REDUCTION, "reduction_numbers": "dimension reduction, by numbers"}
    for ax, (column, label), letter in zip(axes, counts.items(), letters(2), strict=True):
        _draw_methods(ax, compressed, column)
        _draw_uncompressed(ax, accuracy)
        ax.set(xscale="log", xlabel=label, title=letter)
        ticks_at(ax.xaxis, compressed[column])
    axes[0].set_ylabel(ACCURACY)
    _mark_diverged(axes, compressed, counts)
    _finish(figure, accuracy, name, marker="none")
    return figure


@style.styled
def accuracy_against_bytes(accuracy: pd.DataFrame) -> Figure:
    """Test accuracy over the MiB that a client sends over the whole training (left), and sends and receives (right).

    A client that takes part in all rounds; points of one method are its dimension reductions.

    Parameters
    ----------
    accuracy : as `studies.sharper_sketching.accuracy_table` makes it, one row a method and reduction

    Raises InputError where nothing is compressed.
    """
    name = title(accuracy, "accuracy against communication")
    table = accuracy.assign(total_mib=accuracy["upload_mib"] + accuracy["download_mib"])
    compressed = _compressed(table, "accuracy against bytes")
    figure, [axes] = style.grid(1, 2, (3.3, 2.8), sharey=True)
    counts = {"upload_mib": "sent", "total_mib": "sent and received"}
    for ax, (column, what), letter in zip(axes, counts.items(), letters(2), strict=True):
        _draw_methods(ax, compressed, column)
        _draw_uncompressed(ax, table, column)
        ax.set(xscale="log", xlabel=f"MiB {what} by a client in all rounds", title=letter)
        log_ticks(ax.xaxis, table[column].min(), table[column].max())
    axes[0].set_ylabel(ACCURACY)
    _mark_diverged(axes, table, counts)
    _finish(figure, table, name)
    return figure


def _compressed(table: pd.DataFrame, what: str) -> pd.DataFrame:
    rows = table[table["method"] != "uncompressed"]
    if rows.empty:
        raise InputError(f"{what}: the table has uncompressed runs alone; add methods with reductions to the profile")
    return rows


def _draw_methods(ax: Axes, table: pd.DataFrame, x: str) -> None:
    for method, error_feedback, rows in methods(table):
        rows = rows.dropna(subset=["test_accuracy"]).sort_values(x)
        errors = 100 * rows["test_accuracy_standard_error"]
        bars = None if errors.isna().all() else errors
        ax.errorbar(rows[x], 100 * rows["test_accuracy"], yerr=bars, **_BARS, **look(method, error_feedback))


def _draw_uncompressed(ax: Axes, table: pd.DataFrame, x: str | None = None) -> None:
    """A horizontal line with a band of one standard error; with `x`, its own point too."""
    rows = table[table["method"] == "uncompressed"]
    for row in rows.dropna(subset=["test_accuracy"]).to_dict("records"):
        mean, error = 100 * row["test_accuracy"], 100 * row["test_accuracy_standard_error"]
        looks = look("uncompressed", False)
        ax.axhline(mean, color=looks["color"], linewidth=0.8, zorder=1)
        if not np.isnan(error):
            ax.axhspan(mean - error, mean + error, color=looks["color"], alpha=0.15, linewidth=0, zorder=0)
        if x is not None:
            ax.plot(row[x], mean, **looks)


def _mark_diverged(axes: list[Axes], table: pd.DataFrame, columns: Iterable[str]) -> None:
    lines = methods(table[table["diverged"] > 0])
    for ax, x in zip(axes, columns, strict=True):
        for row, (method, _, lost) in enumerate(lines):
            draw_crosses(ax, lost[x], COLOURS[method], row)
    make_room(axes[0], len(lines))


def _finish(figure: Figure, table: pd.DataFrame, name: str, marker: str | None = None) -> None:
    """Title and legend; `marker` is that of the uncompressed runs in the legend, if it is not their usual one."""
    looks = []
    for method, error_feedback, rows in methods(table):
        label = named(method, error_feedback) + (": all diverged" if rows["seeds"].sum() == 0 else "")
        looks.append(look(method, error_feedback) | {"label": label})
        if marker and method == "uncompressed":
            looks[-1]["marker"] = marker
    legend_below(figure, looks, 4, diverged=bool((table["diverged"] > 0).any()))
    head(figure, name)


@style.styled
def learning_rates(runs: pd.DataFrame) -> Figure:
    """Test accuracy over the clients' learning rate: a panel a method, a line a reduction, the selected rate ringed.

    Parameters
    ----------
    runs : at all rates, with `selected`
    """
    name = title(runs, "test accuracy against learning rate")
    panels = methods(runs)
    figure, axes = style.wrapped_grid(len(panels), columns=4, panel=(4.4, 2.8) if len(panels) == 1 else (2.2, 2.0))
    colours = _reduction_colours(sorted(runs["reduction"].dropna().unique()))
    accuracies, rates = 100 * runs["test_accuracy"].dropna(), runs["learning_rate"]
    diverged = runs[runs["status"] == "diverged"].groupby(["method", "error_feedback"])["reduction"]
    crosses = int(diverged.nunique(dropna=False).max()) if len(diverged) else 0
    for ax, (method, error_feedback, rows) in zip(axes, panels, strict=True):
        _draw_rates(ax, rows, colours)
        ax.set(xscale="log", xlabel="learning rate of the clients", title=named(method, error_feedback))
        if len(accuracies):
            margin = max(0.05 * (accuracies.max() - accuracies.min()), 1.0)
            ax.set_ylim(accuracies.min() - margin, accuracies.max() + margin)
        make_room(ax, crosses)
        ticks_at(ax.xaxis, rates)
        ax.set_xlim(rates.min() / 1.3, rates.max() * 1.3)
    for ax in axes[::4]:
        ax.set_ylabel(ACCURACY)
    looks: list[dict[str, object]] = [
        {"color": colour, "marker": ".", "label": factor(value)} for value, colour in colours.items()
    ]
    looks.append({"color": "0.4", **_RING, "label": "selected"})
    legend_below(figure, looks, 4 if len(panels) == 1 else 8, diverged=crosses > 0)
    head(figure, name)
    return figure


def _reduction_colours(reductions: list[float]) -> dict[float, tuple[float, ...]]:
    if not reductions:
        return {}
    norm = LogNorm(reductions[0], 3 * reductions[-1])  # leaves out the end of the scale, which is pale on white
    return dict(zip(reductions, style.scale_colours(reductions, norm), strict=True))


def _draw_rates(ax: Axes, runs: pd.DataFrame, colours: dict[float, tuple[float, ...]]) -> None:
    """A line for each reduction of one method, the selected rate ringed, crosses where a seed diverged."""
    crosses = 0
    for reduction, line in runs.groupby("reduction", dropna=False):
        colour = colours.get(reduction, COLOURS["uncompressed"])
        rates = line[line["status"] == "finished"].groupby("learning_rate")["test_accuracy"].agg(["mean", "sem"]) * 100
        bars = None if rates["sem"].isna().all() else rates["sem"]
        ax.errorbar(rates.index, rates["mean"], yerr=bars, color=colour, marker=".", elinewidth=0.7)
        ringed = rates[rates.index.isin(line.loc[line["selected"], "learning_rate"])]
        ax.plot(ringed.index, ringed["mean"], color=colour, **_RING)
        lost = line.loc[line["status"] == "diverged", "learning_rate"]
        draw_crosses(ax, sorted(lost.unique()), colour, crosses)
        crosses += bool(len(lost))
