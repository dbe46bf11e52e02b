"""Outliers of the Hessian against the covariance of the outputs' gradients (Sagun et al. 2017, its second point)."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from hessketch.figures import style
from hessketch.figures.curves import log_ticks
from hessketch.figures.over_parametrized_marks import COLOURS, MARKERS, NAMES, one_setting
from hessketch.figures.sgd_dynamics_marks import draw_over_seeds, head, headed_grid, legend_below

OTHERS = ("ggn", "output_gradients")
_CHANCE = {"color": "0.2", "linestyle": ":", "linewidth": 0.8}
_TITLES = {"initial": "at initialisation", "trained": "after training"}


@style.styled
def output_gradients(match: pd.DataFrame) -> Figure:
    """The Hessian's largest eigenvalues against those of the GGN and of the unweighted covariance, and their overlap.

    Rows of panels are the first and the last checkpoint; the C largest eigenvalues of every seed are filled, the next C
    open.

    Parameters
    ----------
    match : `studies.over_parametrized.outlier_match`, rows of one network
    """
    rows = match[match["stage"] != "between"] if len(match) else match
    one_setting(rows, "output gradients", "dataset", "network")
    stages = [stage for stage in _TITLES if (rows["stage"] == stage).any()]
    figure, grid = headed_grid(len(stages), 2, (3.2, 2.3))
    letters = iter("abcd")
    for line, stage in zip(grid, stages, strict=True):
        here = rows[rows["stage"] == stage]
        _draw_values(line[0], here)
        _draw_overlaps(line[1], here)
        line[0].set_title(f"({next(letters)}) {_TITLES[stage]}")
        line[1].set_title(f"({next(letters)}) eigenspaces {_TITLES[stage]}")
    handles = [
        Line2D([], [], color=COLOURS[o], linestyle="-", **{**MARKERS[o], "markerfacecolor": COLOURS[o]}, label=NAMES[o])
        for o in OTHERS
        if rows[o].notna().any()
    ]
    more = [
        Line2D(
            [], [], color="0.4", marker="o", markerfacecolor="none", linestyle="none", label="ranks $C$ + 1 to 2$C$"
        ),
        Line2D([], [], color="0.6", linewidth=0.8, label="equal"),
        Line2D([], [], **_CHANCE, label="chance, $k/p$"),
    ]
    legend_below(figure, [*handles, *more], 1.5)
    head(figure, rows, "largest eigenvalues and eigenspaces of the Hessian against other matrices")
    return figure


def _draw_values(ax: Axes, rows: pd.DataFrame) -> None:
    low, high = np.inf, 0.0
    for other in OTHERS:
        known = rows[(rows["hessian"] > 0) & (rows[other] > 0)]
        leading = known["rank"] <= known["classes"]
        for chosen, fill in ((leading, COLOURS[other]), (~leading, "none")):
            look = {**MARKERS[other], "markerfacecolor": fill, "markeredgecolor": COLOURS[other], "markersize": 4}
            ax.plot(known[other][chosen], known["hessian"][chosen], linestyle="none", **look)
        if len(known):
            low = min(low, known[[other, "hessian"]].to_numpy().min())
            high = max(high, known[[other, "hessian"]].to_numpy().max())
    ax.set(xlabel="eigenvalue of the other", ylabel="eigenvalue of the Hessian")
    if high:  # else there is nothing that a logarithmic axis could show
        ax.plot([low, high], [low, high], color="0.6", linewidth=0.8, zorder=0)
        ax.set(xscale="log", yscale="log")
        log_ticks(ax.xaxis, *ax.get_xlim())
        log_ticks(ax.yaxis, *ax.get_ylim())


def _draw_overlaps(ax: Axes, rows: pd.DataFrame) -> None:
    for other in OTHERS:
        draw_over_seeds(ax, rows, f"overlap_{other}", "rank", color=COLOURS[other], marker=".", markersize=4)
    chance = rows.groupby("rank")["chance"].first().dropna()
    ax.plot(chance.index, chance, **_CHANCE)
    ax.set(ylim=(-0.03, 1.05), xlabel="$k$", ylabel="overlap with the Hessian's")
    ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
