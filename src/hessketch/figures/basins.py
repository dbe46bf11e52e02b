"""Losses along straight lines and found paths between trained networks (Sagun et al. 2017).

Tables are of one data set and network (`studies.basins.of_network`). Columns of panels are kinds of pairs; lines are
means over pairs of seeds, bands one standard error over them.
"""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import PercentFormatter

from hessketch.figures import style
from hessketch.figures.curves import log_ticks
from hessketch.figures.sgd_dynamics_marks import draw_over_seeds, head, headed_grid, legend_below
from hessketch.studies.basins import PAIRS, PATHS, with_low
from hessketch.studies.spectra import require_one

TITLES = {
    "continued": "continued",
    "same_start": "same initialisation",
    "other_start": "other initialisation",
}
SPLITS = {
    "train": {"linestyle": "-", "label": "train"},
    "test": {"linestyle": "--", "label": "test"},
}
LOOKS = {
    "line": {"color": "0.45", "label": "straight line"},
    "found": {"color": style.COLOURS["hessian"], "label": "found path"},
}
_MARKERS = {"line": "o", "found": "s"}
_THRESHOLD = {"color": "0.3", "linestyle": "--", "linewidth": 0.8}
_CHANCE = {"color": "0.1", "marker": "x", "markersize": 5, "linestyle": "none"}


def _one_network(frame: pd.DataFrame, what: str) -> list[str]:
    """The kinds of pairs that there are. Raises InputError for no rows, or those of several settings."""
    keys = ("dataset", "network", "label_noise", "examples_per_class", "loss")
    require_one(frame, keys, what, "choose a data set and network by of_network")
    return [pair for pair in PAIRS if (frame["pair"] == pair).any()]


def _title(rows: pd.DataFrame) -> str:
    """The kind of pair and, below, the batch sizes of its ends."""
    row = rows.iloc[0]
    first, second = (
        row[name].removeprefix("sgd-").replace("-b", ", then ").removeprefix("b")
        for name in ("first_trainer", "second_trainer")
    )
    return f"{TITLES[row['pair']]}\nbatches of {first} to {second}"


def _panels(rows: pd.DataFrame, pairs: list[str]) -> tuple[Figure, list]:
    """Losses above accuracies, a column a kind of pair."""
    figure, grid = headed_grid(2, len(pairs), (2.6 if len(pairs) > 1 else 4.0, 1.9), sharex=True, sharey="row")
    for column, pair in enumerate(pairs):
        grid[0][column].set_title(_title(rows[rows["pair"] == pair]))
    grid[0][0].set_ylabel("loss")
    grid[1][0].set_ylabel("accuracy")
    grid[1][0].yaxis.set_major_formatter(PercentFormatter(1.0))
    return figure, grid


@style.styled
def line(paths: pd.DataFrame) -> Figure:
    """Loss and accuracy on the straight line through both ends, 0 the first and 1 the second, and beyond them."""
    rows = paths[paths["path"] == "line"] if len(paths) else paths
    pairs = _one_network(rows, "line")
    figure, grid = _panels(rows, pairs)
    for column, pair in enumerate(pairs):
        here = rows[rows["pair"] == pair]
        for ax, measure in zip((grid[0][column], grid[1][column]), ("loss", "accuracy"), strict=True):
            ax.axvspan(0, 1, color="0.94", zorder=0)
            for split, look in SPLITS.items():
                looks = {**look, "color": style.COLOURS["hessian" if split == "train" else "ggn"], "label": None}
                draw_over_seeds(ax, here, f"{split}_{measure}", "t", **looks)
        grid[1][column].set(xlabel=r"place $\alpha$ on the line", xticks=(-1, 0, 1, 2))
    _log_axis(grid[0][0])
    colours = {split: style.COLOURS["hessian" if split == "train" else "ggn"] for split in SPLITS}
    legend_below(figure, [Line2D([], [], color=colours[split], **look) for split, look in SPLITS.items()], 1.2)
    head(figure, rows, f"the straight line between two trainings, {_seeds(rows)}")
    return figure


def _log_axis(ax: Axes) -> None:
    ax.set_yscale("log")
    log_ticks(ax.yaxis, *ax.get_ylim())


def _seeds(rows: pd.DataFrame) -> str:
    count = len(rows[["pair", "seed", "second_seed"]].drop_duplicates()) // rows["pair"].nunique()
    return f"{count} pair{'s' * (count > 1)} of each kind"


@style.styled
def path(paths: pd.DataFrame) -> Figure:
    """Loss and accuracy between both ends: on the straight line and on the path found by minimisation."""
    rows = paths[paths["t"].between(0, 1)] if len(paths) else paths
    pairs = _one_network(rows, "path")
    figure, grid = _panels(rows, pairs)
    for column, pair in enumerate(pairs):
        for name, colour in LOOKS.items():
            here = rows[(rows["pair"] == pair) & (rows["path"] == name)]
            for ax, measure in zip((grid[0][column], grid[1][column]), ("loss", "accuracy"), strict=True):
                for split, look in SPLITS.items():
                    if len(here):
                        looks = {**look, **colour, "label": None}
                        draw_over_seeds(ax, here, f"{split}_{measure}", "t", **looks)
        grid[1][column].set(xlabel="place $t$ on the path", xticks=(0, 0.5, 1))
    grid[0][0].set_ylim(bottom=0)
    handles = [Line2D([], [], **look) for name, look in LOOKS.items() if (rows["path"] == name).any()]
    handles += [Line2D([], [], color="0.2", **look) for look in SPLITS.values()]
    legend_below(figure, handles, 1.3)
    head(figure, rows, f"the straight line and a path found by minimisation, {_seeds(rows)}")
    return figure


@style.styled
def barriers(barriers: pd.DataFrame) -> Figure:
    """Barriers of the training and the test loss, and how much of the move is in the leading Hessian eigenspace.

    A dot a pair of seeds, a bar their mean. Dashed is the threshold below which a barrier is low.
    """
    pairs = _one_network(barriers, "barriers")
    rows = with_low(barriers)
    low = rows["threshold"].iloc[0]
    figure, [[train, test, move]] = headed_grid(1, 3, (2.5, 2.4))
    for ax, column in ((train, "barrier"), (test, "test_barrier")):
        for place, pair in enumerate(pairs):
            for name, shift in zip(PATHS, (-0.15, 0.15), strict=True):
                values = rows.loc[(rows["pair"] == pair) & (rows["path"] == name), column].to_numpy()
                _dots(ax, place + shift, values, LOOKS[name]["color"], _MARKERS[name])
        ax.set_yscale("symlog", linthresh=low, linscale=1.0)
        top = max(1.5 * low, 1.3 * rows[column].max())  # the threshold is seen, also where all barriers are below it
        ax.set(ylabel="height (loss)", ylim=(min(-0.1 * low, 1.2 * rows[column].min()), top))
        ax.axhline(low, **_THRESHOLD)
        ticks = [0.0, low, *(10.0**power for power in range(-3, 3) if 1.5 * low < 10.0**power <= top)]
        ax.set_yticks(ticks, [f"{tick:.2g}" for tick in ticks], minor=False)
        ax.minorticks_off()
    train.set_title("(a) barrier, training loss")
    test.set_title("(b) barrier, test loss")
    _draw_moves(move, rows, pairs)
    for ax in (train, test, move):
        words = [pair.replace("_", "\n") for pair in pairs]
        ax.set(xticks=range(len(pairs)), xticklabels=words, xlim=(-0.5, len(pairs) - 0.5))
    handles = [Line2D([], [], linestyle="none", marker=_MARKERS[n], markersize=4, **LOOKS[n]) for n in PATHS]
    handles.append(Line2D([], [], **_THRESHOLD, label=f"low, {low:.2g}"))
    handles.append(Line2D([], [], **_CHANCE, label="chance, $C/p$"))
    legend_below(figure, handles, 1.5)
    head(figure, rows, f"barriers between two trainings, {_seeds(rows)}")
    return figure


def _draw_moves(ax: Axes, rows: pd.DataFrame, pairs: list[str]) -> None:
    for place, pair in enumerate(pairs):
        here = rows[(rows["pair"] == pair) & (rows["path"] == "line")]
        _dots(ax, place, here["move_in_top"].to_numpy(), LOOKS["line"]["color"], _MARKERS["line"])
        ax.plot(place, here["move_chance"].mean(), **_CHANCE)
    ax.set(title="(c) move in top eigenspace", ylabel="share of the squared move")
    if (rows["move_in_top"] > 0).any():  # of a space that was not found the share is not known
        _log_axis(ax)


def _dots(ax: Axes, place: float, values: np.ndarray, colour: object, marker: str) -> None:
    values = values[np.isfinite(values)]
    if not len(values):
        return
    spread = np.linspace(-0.06, 0.06, len(values)) if len(values) > 1 else np.zeros(1)
    ax.plot(place + spread, values, linestyle="none", marker=marker, markersize=3.5, color=colour, alpha=0.8)
    ax.plot([place - 0.12, place + 0.12], [values.mean()] * 2, color=colour, linewidth=1.2)
