"""What happens round by round in sketched federated training: accuracy, loss, error of the lift, memory of errors.

Each function takes the rounds of the selected runs of one cell (`studies.sharper_sketching.of_cell`). Lines over rounds
are means over the seeds that reached the last round, bands one standard error over them (none with one seed); a cross
at the bottom stands where a run ended early because it diverged. A method that diverged at every learning rate has no
rounds here: the figure over learning rates shows it.
"""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from hessketch.errors import InputError
from hessketch.figures import style
from hessketch.figures.curves import letters, log_ticks
from hessketch.figures.sharper_sketching_accuracy import ACCURACY, REDUCTION
from hessketch.figures.sharper_sketching_marks import (
    COLOURS,
    draw_crosses,
    evenly,
    factor,
    head,
    legend_below,
    look,
    make_room,
    methods,
    ticks_at,
    title,
)

_THEORY: dict[str, object] = {"color": "0.4", "linestyle": ":", "marker": "none", "label": "theory"}
PANELS = 6
"""Reductions drawn, at most; of more, the least, the largest and evenly chosen ones between."""
SPREAD = (0.1, 0.9)
"""Quantiles over rounds and seeds between which the bars of `lift_error` reach."""


@style.styled
def accuracy_against_rounds(rounds: pd.DataFrame) -> Figure:
    """Test accuracy over rounds, a panel a reduction, uncompressed in each; where it was evaluated."""
    name = title(rounds, "test accuracy over rounds")
    table = rounds.assign(value=100 * rounds["test_accuracy"])
    return _over_rounds(table, name, ACCURACY)


@style.styled
def loss_against_rounds(rounds: pd.DataFrame) -> Figure:
    """Training loss, on a logarithmic axis, over rounds: at the weights that a round starts from."""
    name = title(rounds, "training loss over rounds")
    return _over_rounds(rounds.assign(value=rounds["train_loss"]), name, "training loss", log=True)


@style.styled
def error_memory(rounds: pd.DataFrame) -> Figure:
    """Norm of the error memory over the norm of the round's update, of the methods with error feedback.

    A memory of zero, as before anything was left out, has no place on the logarithmic axis. The memory of FetchSGD is a
    sketch, whose norm is about that of what it sketches. Raises InputError where no method has error feedback.
    """
    fed_back = rounds[rounds["error_feedback"]]
    if fed_back.empty:
        raise InputError("error memory: no run has error feedback; add a method ending in _ef to the profile")
    name = title(fed_back, "memory of errors over rounds")
    ratio = fed_back["error_norm"] / fed_back["update_norm"]
    table = fed_back.assign(value=ratio.where(np.isfinite(ratio) & (ratio > 0)))
    if table["value"].isna().all():
        raise InputError(
            "error memory: it is empty in all rounds, or not known, as in several processes; choose another figure"
        )
    return _over_rounds(table, name, "|memory| / |update|", log=True)


def _over_rounds(rounds: pd.DataFrame, name: str, label: str, log: bool = False) -> Figure:
    """The column `value` over rounds: a panel a reduction, a line a method."""
    last = rounds["round"].max()
    ends = rounds.groupby(["trainer", "seed"])["round"].transform("max")
    finished, ended = rounds[ends == last], rounds[(ends < last) & (rounds["round"] == ends)]
    reductions = evenly(rounds["reduction"].dropna(), PANELS) or [np.nan]
    figure, axes, columns = _panels(len(reductions))
    for ax, reduction, letter in zip(axes, reductions, letters(len(reductions)), strict=True):
        ax.set_yscale("log" if log else "linear")
        for method, error_feedback, rows in methods(_of_panel(finished, reduction)):
            _draw_line(ax, rows.dropna(subset=["value"]), look(method, error_feedback))
        ax.set(title=f"{letter} {'' if np.isnan(reduction) else factor(reduction)}".strip(), xlabel="round")
        ax.set_xlim(0, last + 1)
        ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    rows_of_crosses = [
        _draw_ends(ax, _of_panel(ended, reduction)) for ax, reduction in zip(axes, reductions, strict=True)
    ]
    make_room(axes[0], max(rows_of_crosses))
    for ax in axes[::columns]:
        ax.set_ylabel(label)
        if log:
            log_ticks(ax.yaxis, *ax.get_ylim())
    looks = [look(method, error_feedback) | {"marker": "none"} for method, error_feedback, _ in methods(rounds)]
    legend_below(figure, looks, 4 if columns > 1 else 2, diverged=max(rows_of_crosses) > 0)
    head(figure, name)
    return figure


def _panels(count: int) -> tuple[Figure, list[Axes], int]:
    """Panels with one vertical axis in rows of two or three, and the number in a row."""
    columns = 3 if count > 4 or count == 3 else min(count, 2)
    width = (4.4, 3.3, 2.4)[columns - 1]  # a single panel has room for the legend
    figure, rows = style.grid(-(-count // columns), columns, (width, 2.7 if count <= columns else 2.1), sharey=True)
    axes = [ax for row in rows for ax in row]
    for ax in axes[count:]:
        ax.remove()
    return figure, axes[:count], columns


def _of_panel(rounds: pd.DataFrame, reduction: float) -> pd.DataFrame:
    """Rows of one reduction, and what is not compressed."""
    return rounds[rounds["reduction"].isna() | (rounds["reduction"] == reduction)]


def _draw_line(ax: Axes, rounds: pd.DataFrame, looks: dict[str, object]) -> None:
    seeds = rounds.groupby("round")["value"].agg(["mean", "sem"])
    ax.plot(seeds.index, seeds["mean"], color=looks["color"], linestyle=looks["linestyle"], label=looks["label"])
    if seeds["sem"].notna().any():
        low, high = seeds["mean"] - seeds["sem"], seeds["mean"] + seeds["sem"]
        ax.fill_between(seeds.index, low, high, color=looks["color"], alpha=0.2, linewidth=0)


def _draw_ends(ax: Axes, ended: pd.DataFrame) -> int:
    """Crosses at the last rounds of runs that ended early, a row a method; returns the number of rows."""
    lines = methods(ended)
    for row, (method, _, runs) in enumerate(lines):
        draw_crosses(ax, sorted(runs["round"].unique()), COLOURS[method], row)
    return len(lines)


@style.styled
def lift_error(rounds: pd.DataFrame) -> Figure:
    """Squared error of what arrives over the square of what was due (left), and over its theory (right).

    Due is a client's update with what error feedback kept back. Points are means over rounds and seeds, bars reach
    from the 10 % to the 90 % quantile over both. Theory is a mean or a bound, by method, and drawn where there is one:
    dotted in the method's colour, on the right as the line at one. A method that has no error in any round, as what its
    server remembers cannot be told from what was due, is not drawn. Raises InputError where no method has one.
    """
    measured = rounds[rounds["reduction"].notna() & np.isfinite(rounds["lift_error"])]
    if measured.empty:
        raise InputError(
            "lift error: no compressed run has one; add count_sketch or top_r with a reduction to the profile; methods "
            "that remember at the server have none, and methods that encode the mean none in several processes"
        )
    name = title(measured, "error of what arrives")
    with_theory = measured[measured["lift_error_theory"] > 0]
    figure, [axes] = style.grid(1, 1 + bool(len(with_theory)), (3.3 if len(with_theory) else 4.4, 2.8))
    values = measured["lift_error"] / measured["lift_error_theory"]
    tables = {"|arrived $-$ due|$^2$ / |due|$^2$": measured.assign(value=measured["lift_error"])}
    if len(with_theory):
        tables["measured / theory"] = with_theory.assign(value=values)
    for ax, (label, table), letter in zip(axes, tables.items(), letters(len(axes)), strict=True):
        for method, error_feedback, rows in methods(table):
            _draw_spread(ax, rows, look(method, error_feedback))
        ax.set(xscale="log", xlabel=REDUCTION, ylabel=label, title=letter)
        ticks_at(ax.xaxis, measured["reduction"])
    _draw_theory(axes, with_theory)
    looks = [look(method, error_feedback) for method, error_feedback, _ in methods(measured)]
    legend_below(figure, looks + [_THEORY] * bool(len(with_theory)), 4 if len(axes) > 1 else 2)
    head(figure, name)
    return figure


def _draw_spread(ax: Axes, rounds: pd.DataFrame, looks: dict[str, object]) -> None:
    groups = rounds.groupby("reduction")["value"]
    mean, low, high = groups.mean(), groups.quantile(SPREAD[0]), groups.quantile(SPREAD[1])
    bars = [np.maximum(mean - low, 0.0), np.maximum(high - mean, 0.0)]  # a few large values can draw the mean beyond
    ax.errorbar(mean.index, mean, yerr=bars, capsize=1.5, elinewidth=0.7, **looks)


def _draw_theory(axes: list[Axes], rounds: pd.DataFrame) -> None:
    axes[0].set_yscale("log")
    log_ticks(axes[0].yaxis, *axes[0].get_ylim())
    for method, _, rows in methods(rounds):
        theory = rows.groupby("reduction")["lift_error_theory"].mean()
        axes[0].plot(theory.index, theory, **_THEORY | {"color": COLOURS[method]})
    if len(axes) > 1:
        axes[1].axhline(1.0, color=_THEORY["color"], linestyle=_THEORY["linestyle"], linewidth=0.8, zorder=0)
