"""Kappa of the predictor Hessian as training goes on (Shrivastava et al. 2024, Figures 2 and 24), and when sketched.

Both functions take `studies.predictor_hessian.kappa_over_time` of one data set and network (`of_cell`), all losses.
Lines are means over examples and seeds, bands one standard error over them; of a single example and seed, the standard
error of the estimate itself.
"""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from hessketch.figures import style
from hessketch.figures.curves import letters, log_ticks
from hessketch.figures.predictor_hessian_marks import (
    ESTIMATORS,
    counted,
    estimator_of,
    federations,
    heading,
    legend_of_trainers,
    looks_with_rates,
    of_kind,
    trajectories,
)
from hessketch.figures.sharper_sketching_marks import legend_below

KAPPA = r"$\kappa$ = $\Sigma\,|\lambda|$ / max $|\lambda|$"
_MARKS = {  # open under filled, so that one shows where it lies on another
    "paper": {"marker": "o", "markersize": 6, "markerfacecolor": "none", "linewidth": 1.0, "label": r"$\kappa$, paper"},
    "fast": {"marker": ".", "markersize": 5, "label": r"$\kappa$, fast"},
}
_LOWER: dict[str, Any] = {"color": "0.4", "linestyle": "none", "marker": "_", "markersize": 8}
_LOWER["label"] = "lower bound of the same vectors"
_BESIDE: dict[str, dict[str, Any]] = {
    "kappa_smoothed": {
        "linestyle": "--",
        "marker": "x",
        "markersize": 3.5,
        "label": "smoothed, as in the authors' code",
    },
    "kappa_floor": {"linestyle": ":", "label": "floor under the smoothed"},
}
_BESIDE = {column: {"color": ESTIMATORS["paper"]["color"], **look} for column, look in _BESIDE.items()}
_PARAMETERS = {"color": "0.3", "linestyle": "-.", "label": "$p$"}


@style.styled
def kappa_over_epochs(over_time: pd.DataFrame) -> Figure:
    """Kappa over epochs by both estimators, a panel a loss and trainer, on one logarithmic axis with p.

    Beside it stand lower bounds of what the same start vectors see (bars), the estimate that the authors' code makes,
    from a smoothed density (dashed), and the floor that smoothing alone puts under it (dotted). Estimators that were
    not run are not drawn. Raises InputError where no epoch was measured.
    """
    rows = of_kind(over_time, "epoch", "kappa over epochs")
    panels = trajectories(rows)
    figure, axes = _panels(len(panels))
    heights = [*rows["p"], *(height for column in ("kappa_lower", *_BESIDE) for height in rows[column])]
    for ax, (name, group), letter in zip(axes, panels, letters(len(panels)), strict=True):
        ax.set(title=f"{letter} {name}".strip(), xlabel="epoch")
        for estimator, look in ESTIMATORS.items():
            estimates = group[group["estimator"] == estimator]
            heights += _draw_mean(ax, estimates, look | _MARKS[estimator])
            ax.plot(estimates["time"], estimates["kappa_lower"], **_LOWER | {"color": look["color"], "label": None})
        for column, look in _BESIDE.items():
            line = group.dropna(subset=[column])
            ax.plot(line["time"], line[column], **look)
        p = group["p"].iloc[0]
        ax.axhline(p, color=_PARAMETERS["color"], linestyle=_PARAMETERS["linestyle"], linewidth=0.8)
        ax.annotate(
            f"$p$ = {p:,}", (0.99, p), xycoords=("axes fraction", "data"), xytext=(0, -2), textcoords="offset points",
            ha="right", va="top", fontsize=7,
        )  # fmt: skip
    _logarithmic(axes, heights)
    looks = [ESTIMATORS[name] | _MARKS[name] for name in ESTIMATORS if (rows["estimator"] == name).any()]
    looks += [_LOWER] * bool(rows["kappa_lower"].notna().any())
    looks += [look for column, look in _BESIDE.items() if rows[column].notna().any()] + [_PARAMETERS]
    legend_below(figure, looks, 3)
    figure.suptitle(heading(rows, _what(rows, "epochs")), fontsize=9)
    return figure


@style.styled
def kappa_over_rounds(over_time: pd.DataFrame) -> Figure:
    """Kappa of networks trained by federation, over rounds (left) and against the training loss then (right).

    A line a trainer and reduction, a row of panels a loss. After the same rounds networks that were sent less may have
    learnt less: only on the right are they compared at equal loss. Drawn is the estimator `fast`, `paper` where it is
    the only one; the legend names each trainer's learning rate. Raises InputError where no round was measured, or where
    a trainer has several learning rates.
    """
    rows = of_kind(over_time, "round", "kappa over rounds")
    rows = rows[rows["estimator"] == estimator_of(rows)]
    panels = federations(rows)
    looks = looks_with_rates(rows)
    figure, lines = style.grid(len(panels), 2, (3.3, 2.7), sharey="row")
    for line, (name, group), letter in zip(lines, panels, letters(len(panels)), strict=True):
        sizes = ", ".join(f"{p:,}" for p in sorted(group["p"].unique()))
        line[0].set(title=f"{letter} {name}, $p$ = {sizes}".strip(), xlabel="round", ylabel=KAPPA)
        line[0].xaxis.set_major_locator(MaxNLocator(6, integer=True))
        line[1].set(title="the same", xlabel="training loss", xscale="log")
        heights = []
        for trainer, look in looks.items():
            own = group[group["trainer"] == trainer]
            heights += _draw_mean(line[0], own, look | {"marker": "."})
            _draw_mean(line[1], own, look | {"marker": "."}, along="train_loss")
        line[1].invert_xaxis()  # training goes to the right in both
        log_ticks(line[1].xaxis, *sorted(line[1].get_xlim()))
        _logarithmic(line, heights)
    legend_of_trainers(figure, [look | {"marker": "."} for look in looks.values()], 2)
    figure.suptitle(heading(rows, _what(rows, "rounds")), fontsize=9)
    return figure


def _what(rows: pd.DataFrame, times: str) -> str:
    number = rows["examples"] * rows["seeds"]
    over = "one example" if (number == 1).all() else "means over "
    if (number > 1).any():
        over += f"{counted(rows, 'examples', 'example')}, {counted(rows, 'seeds', 'seed')}"
    return rf"predictor Hessian: $\kappa$ over {times}, {over}"


def _panels(count: int) -> tuple[Figure, list[Axes]]:
    """Panels in rows of at most two, the first of each row labelled."""
    columns = min(count, 2)
    size = (3.3, 2.7) if columns > 1 else (4.6, 3.0)
    figure, lines = style.grid(-(-count // columns), columns, size, sharey=True)
    axes = [ax for line in lines for ax in line]
    for ax in axes[count:]:
        ax.remove()
    for line in lines:
        line[0].set_ylabel(KAPPA)
    for ax in axes[:count]:
        ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    return figure, axes[:count]


def _draw_mean(ax: Axes, rows: pd.DataFrame, look: dict[str, object], along: str = "time") -> list[float]:
    """A line with its band; returns heights that the axis must hold: means and bands, down to a third of a mean.

    `along` is the column on the horizontal axis; points are joined in the order of time. The band is the standard
    error over the rows behind each mean; where all means are of one, that of the estimates.
    """
    rows = rows.dropna(subset=["kappa"]).sort_values("time")
    mean, single = rows["kappa"], (rows["rows"] <= 1).all()
    error = rows["kappa_estimate_standard_error" if single else "kappa_standard_error"]
    ax.plot(rows[along], mean, **look)
    if np.isfinite(error).any():
        low = np.maximum(mean - error, mean / 1e3)  # no logarithm of zero: the band leaves the panel
        ax.fill_between(rows[along], low, mean + error, color=look["color"], alpha=0.2, linewidth=0)
    return [*mean, *(mean + error), *np.maximum(mean - error, mean / 3)]


def _logarithmic(axes: list[Axes], heights: list[float]) -> None:
    """A logarithmic vertical axis that holds all the heights that are positive."""
    drawn = [height for height in heights if np.isfinite(height) and height > 0]
    for ax in axes:
        ax.set_yscale("log")
        if drawn:
            ax.set_ylim(0.85 * min(drawn), 1.25 * max(drawn))
        log_ticks(ax.yaxis, *ax.get_ylim())
