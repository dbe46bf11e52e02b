"""Counts of a spectrum's parts against width, data and training (Sagun et al. 2017).

Lines are means over seeds, bands and bars one standard error over them.
"""

import re
from collections.abc import Iterable

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator

from hessketch.errors import InputError
from hessketch.figures import style
from hessketch.figures.curves import log_ticks
from hessketch.figures.over_parametrized_marks import STAGES, examples, headed, one_setting, time_axis
from hessketch.figures.sgd_dynamics_marks import count_text, draw_over_seeds, head, headed_grid, legend_below
from hessketch.studies.over_parametrized import NEAR_ZERO
from hessketch.studies.spectra import select

_GUIDE = {"color": "0.3", "linestyle": ":", "linewidth": 0.8}
_MOST_TIMES = 5
_WIDTH_PANELS = {
    "near_zero": "near zero",
    "negative": "negative",
    "outliers": "outliers",
    "bulk_90": "bulk, 90 % quantile of magnitudes",
}
_TRAINING_LINES = {
    "near_zero": {"color": style.COLOURS["second_moment"], "label": "near zero"},
    "negative": {"color": style.COLOURS["ggn"], "label": "negative"},
    "negative_beyond": {"color": style.COLOURS["ggn"], "linestyle": "--", "label": "negative, not near zero"},
    "outliers": {"color": style.COLOURS["hessian"], "label": "outliers"},
}


@style.styled
def width_counts(counts: pd.DataFrame) -> Figure:
    """How many eigenvalues of the Hessian are near zero, negative and outliers, and how large the bulk is, against p.

    A line a checkpoint (of more than five the first, the last and some between). Dotted: all p, and C.
    """
    rows = select(counts, operator="hessian") if len(counts) else counts
    one_setting(rows, "width counts", "dataset", "kind")
    figure, grid = headed_grid(2, 2, (3.0, 2.0), sharex=True)
    axes = [ax for line in grid for ax in line]
    times = _evenly(rows["time"])
    colours = style.scale_colours(np.linspace(0, 1, len(times)), _plain_norm(len(times)))
    for ax, (quantity, title), letter in zip(axes, _WIDTH_PANELS.items(), "abcd", strict=True):
        for time, colour in zip(times, colours, strict=True):
            here = rows[rows["time"] == time]
            draw_over_seeds(ax, here, quantity, "p", color=colour, marker=".", markersize=4)
        ax.set_title(f"({letter}) {title}")
        ax.set_ylabel("eigenvalue" if quantity == "bulk_90" else "eigenvalues")
    sizes = sorted(rows["p"].unique())
    for ax in axes[:2]:
        ax.plot(sizes, sizes, **_GUIDE)
    axes[2].axhline(rows["classes"].iloc[0], **_GUIDE)
    axes[2].yaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes[2].set_ylim(bottom=0)
    for ax in (axes[0], axes[1], axes[3]):
        _log_if_positive(ax)
    for ax in axes:
        _size_axis(ax, sizes)
    for ax in axes[2:]:
        ax.set_xlabel("parameters $p$")
    kind = rows["kind"].iloc[0]
    handles = [Line2D([], [], color=c, label=f"{kind} {t:,}") for t, c in zip(times, colours, strict=True)]
    legend_below(figure, [*handles, Line2D([], [], **_GUIDE, label="$p$ (a, b), $C$ (c)")], 1.3)
    headed(figure, rows, "parts of the Hessian's spectrum")
    return figure


def _plain_norm(count: int) -> Normalize:
    """Of places from 0 to 1; the scale's bright end, hard to see, is left out."""
    return Normalize(0, 1.15 if count > 1 else 2)


def _evenly(times: Iterable[int]) -> list[int]:
    present = sorted({int(time) for time in times})
    places = np.unique(np.linspace(0, len(present) - 1, min(len(present), _MOST_TIMES)).round().astype(int))
    return [present[place] for place in places]


def _log_if_positive(ax: Axes) -> None:
    """A logarithmic axis unless a mean is zero, which has no place on it: then linear up to one."""
    values = np.concatenate([np.asarray(line.get_ydata(), dtype=float) for line in ax.lines])
    if (values[np.isfinite(values)] > 0).all():
        ax.set_yscale("log")
        log_ticks(ax.yaxis, *ax.get_ylim())
        ax.yaxis.set_minor_locator(NullLocator())
        return
    _count_axis(ax, values)


def _count_axis(ax: Axes, values: np.ndarray) -> None:
    """Counts from zero: linear up to one, logarithmic above."""
    ax.set_yscale("symlog", linthresh=1.0, linscale=0.4)
    top = max(1.0, float(np.nanmax(values)))
    powers = 10.0 ** np.arange(0, np.ceil(np.log10(top)) + 1)
    ax.yaxis.set_major_locator(FixedLocator([0.0, *powers]))
    ax.yaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_major_formatter(lambda value, _: count_text(value))
    ax.set_ylim(-0.15, 1.4 * top)


def _size_axis(ax: Axes, sizes: list[int]) -> None:
    ax.set_xscale("log")
    shown = sizes if len(sizes) <= 5 else sizes[:: -(-len(sizes) // 5)]
    ax.xaxis.set_major_locator(FixedLocator(shown))
    ax.xaxis.set_major_formatter(lambda value, _: count_text(value))
    ax.xaxis.set_minor_locator(NullLocator())


@style.styled
def data(sweep: pd.DataFrame) -> Figure:
    """The trained and the initial Hessian along each axis of data: outliers, and the sizes of outliers and bulk.

    Parameters
    ----------
    sweep : `studies.over_parametrized_sweeps.data_sweep`, rows through one data set of one network
    """
    rows = select(sweep, operator="hessian") if len(sweep) else sweep
    one_network_on_axes(rows)
    axes_present = [axis for axis in ("classes", "separation") if (rows["axis"] == axis).any()]
    figure, grid = headed_grid(len(axes_present), 2, (3.1, 2.1))
    letters = iter("abcd")
    for line, axis in zip(grid, axes_present, strict=True):
        here = rows[rows["axis"] == axis]
        words = {"classes": "number of classes $C$", "separation": "separation (standard deviations)"}[axis]
        _draw_outliers(line[0], here)
        _draw_sizes(line[1], here)
        line[0].set_title(f"({next(letters)}) outliers, {held_words(here['fixed'].iloc[0])}")
        line[1].set_title(f"({next(letters)}) sizes after training")
        for ax in line:
            ax.set_xlabel(words)
            values = sorted(here["value"].unique())
            fixed = axis == "separation" and len(values) <= 6
            ax.xaxis.set_major_locator(FixedLocator(values) if fixed else MaxNLocator(6, integer=axis == "classes"))
    handles = [Line2D([], [], marker="o", markersize=4, **look) for look in STAGES.values()]
    handles.append(Line2D([], [], **_GUIDE, label="number of classes"))
    handles += [Line2D([], [], **look) for look in _SIZES.values()]
    legend_below(figure, handles, 1.7)
    row = rows.iloc[0]
    what = "the Hessian's outliers and bulk against the data"
    figure.suptitle(f"{style.network_name(row['network'])}: {what}", fontsize=9)
    return figure


def held_words(fixed: str) -> str:
    """What an axis of data holds, in words: `clusters-d10-s3` is `10 dimensions, separation 3`."""
    clusters = _CLUSTERS.fullmatch(fixed)
    if not clusters:
        return style.dataset_name(fixed)
    if clusters["classes"]:
        return f"{clusters['classes']} clusters in {clusters['dimensions']} dimensions"
    return f"{clusters['dimensions']} dimensions, separation {clusters['separation']}"


_CLUSTERS = re.compile(r"clusters(-k(?P<classes>[0-9]+))?-d(?P<dimensions>[0-9]+)(-s(?P<separation>[0-9.]+))?")


def one_network_on_axes(rows: pd.DataFrame) -> None:
    """Raises InputError for no rows, or several networks or several sweeps along one axis."""
    if rows.empty:
        raise InputError("data: the table has no rows of it; give networks on several data sets, such as clusters")
    several = rows.groupby("axis")[["network", "fixed", "label_noise", "loss", "trainer"]].nunique(dropna=False)
    for axis, counts in several.iterrows():
        for column, count in counts[counts > 1].items():
            raise InputError(f"data: {count} values of {column} along {axis}; allowed: one; choose by through")


_SIZES = {
    "top_eigenvalue": {"color": style.COLOURS["hessian"], "linestyle": "--", "marker": "^", "label": "largest"},
    "bulk_edge": {"color": style.COLOURS["residual"], "linestyle": "--", "marker": "s", "label": "largest of the bulk"},
    "bulk_90": {"color": style.COLOURS["cross"], "linestyle": "--", "marker": "v", "label": "bulk, 90 % of magnitudes"},
}
for _look in _SIZES.values():
    _look |= {"markersize": 4}


def _draw_outliers(ax: Axes, rows: pd.DataFrame) -> None:
    for stage, look in STAGES.items():
        _errorbar(ax, rows[(rows["stage"] == stage) & (rows["quantity"] == "outliers")], marker="o", **look)
    classes = rows.groupby("value")["classes"].first()
    ax.plot(classes.index, classes, **_GUIDE)
    ax.set(ylabel="outliers", ylim=(0, None))
    ax.yaxis.set_major_locator(MaxNLocator(5, integer=True))


def _draw_sizes(ax: Axes, rows: pd.DataFrame) -> None:
    for quantity, look in _SIZES.items():
        _errorbar(ax, rows[(rows["stage"] == "trained") & (rows["quantity"] == quantity)], **look)
    ax.set_yscale("log")
    log_ticks(ax.yaxis, *ax.get_ylim())
    ax.set_ylabel("eigenvalue")


def _errorbar(ax: Axes, rows: pd.DataFrame, **looks: object) -> None:
    rows = rows.sort_values("value")
    error = rows["standard_error"].fillna(0.0)
    ax.errorbar(rows["value"], rows["mean"], error, **{"markersize": 4, "elinewidth": 0.8, **looks, "label": None})


@style.styled
def training(counts: pd.DataFrame) -> Figure:
    """Along training of one network: the Hessian's counts (left) and the ratio of its ends, -min / max (right)."""
    rows = select(counts, operator="hessian") if len(counts) else counts
    one_setting(rows, "training", "dataset", "network", "kind")
    figure, [[numbers, ratio]] = headed_grid(1, 2, (3.4, 2.3))
    for quantity, look in _TRAINING_LINES.items():
        draw_over_seeds(numbers, rows, quantity, "time", **{**look, "label": None})
    numbers.axhline(rows["classes"].iloc[0], **_GUIDE)
    _count_axis(numbers, np.r_[rows["p"].iloc[0], rows["near_zero"]])
    numbers.set(ylabel="eigenvalues", title=f"(a) of {rows['p'].iloc[0]:,}")
    draw_over_seeds(ratio, rows, "negative_ratio", "time", color=style.COLOURS["hessian"])
    ratio.set(title="(b) most negative over largest", ylabel=r"$-\lambda_{\min}/\lambda_{\max}$")
    ratio.axhline(NEAR_ZERO, color="0.3", linestyle="--", linewidth=0.8)
    _log_if_positive(ratio)
    for ax in (numbers, ratio):
        time_axis(ax, rows)
    handles = [Line2D([], [], **look) for look in _TRAINING_LINES.values()]
    guides = [Line2D([], [], **_GUIDE, label=f"$C$ = {rows['classes'].iloc[0]}")]
    guides.append(Line2D([], [], color="0.3", linestyle="--", linewidth=0.8, label=f"near zero, below {NEAR_ZERO:g}"))
    legend_below(figure, [*handles, *guides], 1.8)
    head(figure, rows, f"parts of the Hessian's spectrum along training, {examples(rows).rpartition(', ')[2]}")
    return figure
