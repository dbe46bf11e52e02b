"""The loss after one more step of SGD, from one point of a training, against second-order theory (Li et al. 2020).

Each function takes loss changes of one network (`studies.sgd_dynamics.of_network`) and one label noise. A change is the
full training loss after a step less that before it; the step's mini-batch is sampled anew for each.
"""

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from hessketch.errors import InputError
from hessketch.figures import style
from hessketch.figures.sgd_dynamics_marks import (
    STEP,
    batch_text,
    by,
    head,
    headed_grid,
    legend_below,
    noise_text,
    one_network,
    over_seeds,
    shades,
    signed_log_axis,
    step_axis,
)
from hessketch.studies.sgd_dynamics_coverage import REGIMES

SCHEMES = {"fixed": "fixed step", "adaptive": "adaptive step", "preconditioned": "diagonal preconditioner"}
_CYCLE = style.SETTINGS["axes.prop_cycle"].by_key()["color"]
REGIME_COLOURS = dict(zip(REGIMES, (_CYCLE[2], _CYCLE[8], _CYCLE[3]), strict=True))
_BANDS = {("q05", "q95"): 0.18, ("q25", "q75"): 0.4}  # opacity
_MEASURED, _PREDICTED = _CYCLE[0], "0.15"
_BOUND = {"color": _PREDICTED, "linestyle": ":", "linewidth": 1.0}
_MEAN = {"color": _PREDICTED, "linestyle": "--", "linewidth": 0.9}
_STRIP = 0.05  # height of the strip of regimes in that of its panel
_MARKERS = "os^Dvp"
_CHANGE = r"$\Delta$ = change of the training loss"


def _one_noise(loss_changes: pd.DataFrame, what: str) -> list[str]:
    """Checks the rows and returns the schemes among them, in the order of SCHEMES."""
    one_network(loss_changes, what)
    noises = sorted(loss_changes["label_noise"].unique())
    if len(noises) > 1:
        raise InputError(f"{what}: label noises {', '.join(map(str, noises))}; allowed: one; choose it by select")
    return [scheme for scheme in SCHEMES if (loss_changes["scheme"] == scheme).any()]


@style.styled
def loss_change(loss_changes: pd.DataFrame) -> Figure:
    """Quantiles of the loss change over the steps, its predicted mean and bounds; a strip has the predicted regimes.

    A row a batch size, a column a scheme. Of several seeds the first is drawn: a distribution belongs to one point. The
    vertical axes are logarithmic on both sides of a linear part around zero.
    """
    schemes = _one_noise(loss_changes, "loss change")
    rows = loss_changes[loss_changes["seed"] == loss_changes["seed"].min()]
    batches = sorted(rows["batch_size"].unique())
    size = ({1: 4.4, 2: 3.1}.get(len(schemes), 2.6), 2.1)
    figure, grid = headed_grid(len(batches), len(schemes), size, sharex=True, sharey="row")
    for line, batch in zip(grid, batches, strict=True):
        here = rows[rows["batch_size"] == batch]
        for ax, scheme in zip(line, schemes, strict=True):
            points = here[here["scheme"] == scheme].sort_values("step")
            step_axis(ax.xaxis, rows["step"])
            _draw_changes(ax, points)
            ax.margins(y=0.12)
            _draw_regimes(ax, points)
        signed_log_axis(
            line[0].yaxis, here[["q05", "q95", "bound_lower", "bound_upper", "predicted_mean"]].to_numpy().ravel()
        )
        line[0].set_ylabel(f"{batch_text(here)}\n$\\Delta$")
    for ax, scheme in zip(grid[0], schemes, strict=True):
        ax.set_title(SCHEMES[scheme])
    for ax in grid[-1]:
        ax.set_xlabel(STEP)
    legend_below(figure, _handles(rows), 2.6)
    what = (
        f"{noise_text(rows['label_noise'].iloc[0])}: {_CHANGE} by one step, {rows['samples'].iloc[0]:,} samples a point"
    )
    head(figure, rows, what)
    return figure


def _draw_changes(ax: Axes, points: pd.DataFrame) -> None:
    steps = points["step"]
    ax.axhline(0.0, color="0.7", linewidth=0.6, zorder=0)
    for (low, high), opacity in _BANDS.items():
        ax.fill_between(steps, points[low], points[high], color=_MEASURED, alpha=opacity, linewidth=0)
    ax.plot(steps, points["q50"], color=_MEASURED)
    ax.plot(steps, points["predicted_mean"], **_MEAN)
    for bound in ("bound_lower", "bound_upper"):
        ax.plot(steps, points[bound], **_BOUND)


def _draw_regimes(ax: Axes, points: pd.DataFrame) -> None:
    """A strip above the horizontal axis, whose colour changes half way between two checkpoints."""
    scale = ax.xaxis.get_transform()
    places = scale.transform(points["step"].to_numpy(dtype=float))
    edges = scale.inverted().transform(np.concatenate([places[:1], (places[1:] + places[:-1]) / 2, places[-1:]]))
    for left, right, regime in zip(edges[:-1], edges[1:], points["regime"], strict=True):
        ax.axvspan(left, right, ymax=_STRIP, color=REGIME_COLOURS[regime], linewidth=0)


def _handles(rows: pd.DataFrame) -> list[Artist]:
    wrong = rows["bound_probability"].iloc[0]
    bands = [("5 to 95 %", _BANDS["q05", "q95"]), ("25 to 75 %", _BANDS["q25", "q75"])]
    return [
        *(Patch(color=_MEASURED, alpha=opacity, linewidth=0, label=label) for label, opacity in bands),
        Line2D([], [], color=_MEASURED, label="median"),
        Line2D([], [], **_MEAN, label="predicted mean"),
        Line2D([], [], **_BOUND, label=f"predicted bounds (at most {100 * wrong:g} % beyond each)"),
        *_regime_handles(rows),
    ]


def _regime_handles(rows: pd.DataFrame) -> list[Artist]:
    present = [regime for regime in REGIMES if (rows["regime"] == regime).any()]
    return [Patch(color=REGIME_COLOURS[regime], linewidth=0, label=f"predicted: {regime}") for regime in present]


@style.styled
def decrease(loss_changes: pd.DataFrame) -> Figure:
    """Share of the sampled steps that lower the loss, over the steps, and measured against predicted mean change.

    A column a scheme. Points are checkpoints, of every seed, coloured by their predicted regime; lines are means over
    seeds, a shade and marker a batch size.
    """
    schemes = _one_noise(loss_changes, "decrease")
    size = ({1: 4.4, 2: 3.1}.get(len(schemes), 2.6), 2.4)
    figure, (shares, means) = headed_grid(2, len(schemes), size, sharey="row")
    for over_steps, scatter, scheme in zip(shares, means, schemes, strict=True):
        here = loss_changes[loss_changes["scheme"] == scheme]
        step_axis(over_steps.xaxis, loss_changes["step"])
        _draw_shares(over_steps, here)
        over_steps.set(title=SCHEMES[scheme], xlabel=STEP, ylim=(-4, 104), yticks=range(0, 101, 25))
        _draw_means(scatter, here)
        values = loss_changes[["mean", "predicted_mean"]].to_numpy().ravel()
        signed_log_axis(scatter.xaxis, values, ticks=5)
        signed_log_axis(scatter.yaxis, values)
        scatter.set_xlabel("predicted mean change")
    shares[0].set_ylabel("steps that lower\nthe loss (%)")
    means[0].set_ylabel("measured mean change")
    looks = [Line2D([], [], **look, label=text) for look, text, _ in _batch_looks(loss_changes)]
    legend_below(figure, [*looks, *_regime_handles(loss_changes)], 2.1)
    noise = noise_text(loss_changes["label_noise"].iloc[0])
    head(figure, loss_changes, f"{noise}: how often and by how much one step lowers the training loss")
    return figure


def _batch_looks(rows: pd.DataFrame) -> list[tuple[dict[str, object], str, object]]:
    batches = sorted(rows["batch_size"].unique())
    colours = shades("0.2", len(batches))
    looks = []
    for i, (batch, colour) in enumerate(zip(batches, colours, strict=True)):
        look = {"color": colour, "marker": _MARKERS[i % len(_MARKERS)], "markersize": 4, "linewidth": 0.9}
        looks.append((look, batch_text(rows[rows["batch_size"] == batch]), batch))
    return looks


def _draw_shares(ax: Axes, rows: pd.DataFrame) -> None:
    ax.axhline(50.0, color="0.7", linewidth=0.6, zorder=0)
    percent = rows.assign(percent=100 * rows["share_decreasing"])
    for look, _, batch in _batch_looks(rows):
        here = percent[percent["batch_size"] == batch]
        line = over_seeds(here, "percent")["mean"]
        ax.plot(line.index, line, color=look["color"], linewidth=look["linewidth"], zorder=1)
        _draw_points(ax, here, "step", "percent", look["marker"])


def _draw_means(ax: Axes, rows: pd.DataFrame) -> None:
    for zero in (ax.axhline, ax.axvline):
        zero(0.0, color="0.7", linewidth=0.6, zorder=0)
    ends = [rows[["mean", "predicted_mean"]].min().min(), rows[["mean", "predicted_mean"]].max().max()]
    line = np.concatenate(
        [-np.geomspace(1e-12, 1, 200)[::-1] * abs(min(ends[0], 0)), np.geomspace(1e-12, 1, 200) * max(ends[1], 0)]
    )
    ax.plot(line, line, **_MEAN, zorder=1)
    for look, _, batch in _batch_looks(rows):
        here = rows[rows["batch_size"] == batch]
        error = 2 * here["standard_error"]
        ax.errorbar(here["predicted_mean"], here["mean"], error, fmt="none", ecolor="0.6", elinewidth=0.6, zorder=1)
        _draw_points(ax, here, "predicted_mean", "mean", look["marker"])


def _draw_points(ax: Axes, rows: pd.DataFrame, x: str, y: str, marker: str) -> None:
    for regime, here in by(rows, "regime"):
        look = {"markerfacecolor": REGIME_COLOURS[regime], "markeredgecolor": "0.3", "markeredgewidth": 0.3}
        ax.plot(here[x], here[y], linestyle="none", marker=marker, markersize=4, **look)
