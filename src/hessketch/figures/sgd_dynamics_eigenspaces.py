"""Leading eigenvalues and eigenspaces of Hessian, second moment and covariance of gradients (Li et al. 2020).

Each function takes tables of one network (`studies.sgd_dynamics.of_network`). Rows of panels are label noises, columns
batch sizes; lines are means over seeds, bands one standard error over them (none with one seed).
"""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from hessketch.errors import InputError
from hessketch.figures import style
from hessketch.figures.curves import log_ticks
from hessketch.figures.sgd_dynamics_marks import (
    batch_text,
    by,
    draw_over_seeds,
    head,
    headed_grid,
    legend_below,
    noise_batch_panels,
    noise_text,
    one_network,
    over_seeds,
    shades,
)
from hessketch.studies.sgd_dynamics import landmarks

OPERATORS = ("hessian", "second_moment", "gradient_covariance")
_LINES = dict(zip(OPERATORS, ("-", "-", "--"), strict=True))  # the covariance often lies on the second moment
PAIRS = {
    ("hessian", "second_moment"): {"color": style.COLOURS["second_moment"], "linestyle": "-"},
    ("hessian", "gradient_covariance"): {"color": style.COLOURS["gradient_covariance"], "linestyle": "--"},
    ("second_moment", "gradient_covariance"): {"color": "0.45", "linestyle": "-"},
}
_CHANCE = {"color": "0.2", "linestyle": ":", "linewidth": 0.8, "label": r"chance, $k/p$"}
_DECADES = 7
"""Of the vertical axis of eigenvalues, at most: what is smaller is rounding."""


@style.styled
def eigenvalues(eigenvalues: pd.DataFrame, curvature: pd.DataFrame) -> Figure:
    """Leading eigenvalues over the steps, and the magnitude of the Hessian's most negative one where it is known.

    Parameters
    ----------
    eigenvalues : as the jobs measure them, by rank; the smaller, the lighter; values of zero or below have no place
    curvature : of the same points; may be empty, then there are no negative eigenvalues
    """
    one_network(eigenvalues, "eigenvalues")
    figure, panels = noise_batch_panels(eigenvalues, "eigenvalue", sharey=True)
    largest = eigenvalues["eigenvalue"].max()
    for ax, rows in panels:
        for operator in OPERATORS:
            _draw_ranks(ax, rows[rows["operator"] == operator], operator)
        point = rows.iloc[0]
        _draw_negative(ax, _of_panel(curvature, point))
        ax.set_yscale("log")
    low = panels[0][0].get_ylim()[0]
    panels[0][0].set_ylim(bottom=max(low, largest * 10.0**-_DECADES))
    for ax, _ in panels:
        log_ticks(ax.yaxis, *ax.get_ylim())
        ax.yaxis.set_minor_locator(NullLocator())
    present = [operator for operator in OPERATORS if (eigenvalues["operator"] == operator).any()]
    looks = [{"color": style.COLOURS[o], "linestyle": _LINES[o], "label": style.NAMES[o]} for o in present]
    negative = len(curvature) and (_hessian(curvature)["smallest_eigenvalue"] < 0).any()
    looks += [_NEGATIVE] * bool(negative)
    legend_below(figure, [Line2D([], [], **look) for look in looks], 2.1)
    head(figure, eigenvalues, f"the {eigenvalues['rank'].max()} largest eigenvalues (smaller ones lighter)")
    return figure


_NEGATIVE = {"color": style.COLOURS["hessian"], "linestyle": ":", "label": "Hessian: most negative, magnitude"}


def _hessian(curvature: pd.DataFrame) -> pd.DataFrame:
    return curvature[curvature["operator"] == "hessian"]


def _of_panel(curvature: pd.DataFrame, point: pd.Series) -> pd.DataFrame:
    if curvature.empty:
        return curvature
    here = (curvature["label_noise"] == point["label_noise"]) & (curvature["batch_size"] == point["batch_size"])
    return _hessian(curvature[here])


def _draw_ranks(ax: Axes, rows: pd.DataFrame, operator: str) -> None:
    ranks = sorted(rows["rank"].unique(), reverse=True)  # the largest on top
    for rank, colour in zip(ranks, shades(style.COLOURS[operator], len(ranks))[::-1], strict=True):
        values = over_seeds(rows[rows["rank"] == rank], "eigenvalue")
        mean = values["mean"].where(values["mean"] > 0)
        ax.plot(mean.index, mean, color=colour, linestyle=_LINES[operator], linewidth=1.4 if rank == 1 else 0.8)
        # That of the covariance would lie on that of the second moment.
        if rank == 1 and operator != "gradient_covariance" and values["sem"].notna().any():
            low = (mean - values["sem"]).where(mean > values["sem"], mean)
            ax.fill_between(mean.index, low, mean + values["sem"], color=colour, alpha=0.2, linewidth=0)


def _draw_negative(ax: Axes, curvature: pd.DataFrame) -> None:
    if curvature.empty or not (curvature["smallest_eigenvalue"] < 0).any():
        return
    below = curvature.assign(size=(-curvature["smallest_eigenvalue"]).where(curvature["smallest_eigenvalue"] < 0))
    values = over_seeds(below, "size")
    ax.plot(values.index, values["mean"], **_NEGATIVE)


@style.styled
def overlap(overlaps: pd.DataFrame) -> Figure:
    """Overlap of the top-k eigenspaces of each pair of operators over the steps, for the largest k of the table."""
    one_network(overlaps, "overlap")
    k = overlaps["k"].max()
    rows = overlaps[overlaps["k"] == k].dropna(subset=["overlap"])
    if rows.empty:
        raise InputError(f"overlap: no operator pair has {k} eigenvalues that are not zero; measure a smaller k")
    figure, panels = noise_batch_panels(rows, "overlap", sharey=True)
    for ax, here in panels:
        _draw_pairs(ax, here, "step")
        ax.axhline(here["chance"].iloc[0], **{**_CHANCE, "label": None})
        ax.set_ylim(-0.03, 1.05)
    _finish_overlap(figure, rows, f"overlap of the eigenspaces of the $k$ = {k} largest eigenvalues")
    return figure


def _draw_pairs(ax: Axes, rows: pd.DataFrame, x: str, **looks: object) -> None:
    for (first, second), look in PAIRS.items():
        here = rows[(rows["first"] == first) & (rows["second"] == second)]
        if len(here):
            draw_over_seeds(ax, here, "overlap", x, **look, **looks)


def _finish_overlap(figure: Figure, rows: pd.DataFrame, what: str) -> None:
    looks = [
        {**look, "label": " \N{EN DASH} ".join(_SHORT[name] for name in pair)}
        for pair, look in PAIRS.items()
        if ((rows["first"] == pair[0]) & (rows["second"] == pair[1])).any()
    ]
    legend_below(figure, [Line2D([], [], **look) for look in [*looks, _CHANCE]], 1.8)
    head(figure, rows, what)


_SHORT = {"hessian": "Hessian", "second_moment": "second moment", "gradient_covariance": "covariance"}


@style.styled
def overlap_against_k(overlaps: pd.DataFrame, batch: int | None = None) -> Figure:
    """Overlap against k at the first, the middle and the last checkpoint (columns), by label noise (rows).

    `batch` is the batch size to draw; without it the first in the table, that of the base point.
    """
    one_network(overlaps, "overlap against k")
    batch = overlaps["batch_size"].iloc[0] if batch is None else batch
    rows = overlaps[overlaps["batch_size"] == batch].dropna(subset=["overlap"])
    if rows.empty:
        raise InputError(f"overlap against k: no eigenspaces at batch size {batch}; choose another")
    noises, steps = sorted(rows["label_noise"].unique()), landmarks(rows["step"])
    width = {1: 4.4, 2: 3.1}.get(len(steps), 2.5)
    figure, grid = headed_grid(len(noises), len(steps), (width, 2.0), sharex=True, sharey=True)
    for line, noise in zip(grid, noises, strict=True):
        for ax, step in zip(line, steps, strict=True):
            here = rows[(rows["label_noise"] == noise) & (rows["step"] == step)].sort_values("k")
            _draw_pairs(ax, here, "k", marker=".", markersize=4)
            chance = here.groupby("k")["chance"].first()
            ax.plot(chance.index, chance, **{**_CHANCE, "label": None})
            ax.set_ylim(-0.03, 1.05)
            ax.xaxis.get_major_locator().set_params(integer=True)
        line[0].set_ylabel(f"{noise_text(noise)}\noverlap")
    for ax, step in zip(grid[0], steps, strict=True):
        ax.set_title(f"step {step:,}")
    for ax in grid[-1]:
        ax.set_xlabel("$k$")
    _finish_overlap(figure, rows, f"overlap of top-$k$ eigenspaces, {batch_text(rows)}")
    return figure


@style.styled
def angles(angles: pd.DataFrame) -> Figure:
    """Principal angles between the top-k eigenspaces of Hessian and second moment over the steps, in degrees."""
    one_network(angles, "principal angles")
    rows = angles[(angles["first"] == "hessian") & (angles["second"] == "second_moment")].dropna(subset=["angle"])
    if rows.empty:
        raise InputError("principal angles: none between hessian and second_moment; measure a smaller k")
    rows = rows.assign(degrees=np.degrees(rows["angle"]))
    k = rows["index"].max()
    colours = dict(zip(range(1, k + 1), shades(style.COLOURS["hessian"], k), strict=True))
    figure, panels = noise_batch_panels(rows, "angle (degrees)", sharey=True)
    for ax, here in panels:
        for index, angle in by(here, "index"):
            draw_over_seeds(ax, angle, "degrees", band=index in (1, k), color=colours[index])
        ax.set(ylim=(-3, 93), yticks=range(0, 91, 30))
    ends = {1: "smallest", k: "largest"} if k > 1 else {1: "angle"}
    handles = [Line2D([], [], color=colours[index], label=f"{word} angle") for index, word in ends.items()]
    legend_below(figure, handles, 1.5)
    head(figure, rows, f"principal angles of Hessian and second moment of gradients, $k$ = {k}")
    return figure
