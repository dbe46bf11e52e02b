"""The scale-invariant generalisation bound against what was measured (Li et al. 2020).

Each function takes the bounds of one data set, all networks and settings; the row of each run's chosen sigma is drawn.
"""

from itertools import zip_longest

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, MaxNLocator

from hessketch.errors import InputError
from hessketch.figures import style
from hessketch.figures.curves import letters
from hessketch.figures.sgd_dynamics_marks import count_text, draw_over_seeds, head, headed_grid, noise_text
from hessketch.figures.sharper_sketching_marks import ticks_at
from hessketch.studies.sgd_dynamics import AXES, chosen_bounds, departure, rank_correlation, sweeps

_CYCLE = style.SETTINGS["axes.prop_cycle"].by_key()["color"]
X_LABELS = {
    "label_noise": "label noise (%)",
    "width": "parameters (width)",
    "batch_size": "batch size",
    "training_size": "training examples $n$",
}
ERRORS = {
    "bound": {"color": "0.15", "marker": "D", "label": "bound"},
    "posterior_train_error": {"color": _CYCLE[0], "marker": "o", "linestyle": "--", "label": "posterior, train"},
    "posterior_test_error_noisy": {"color": _CYCLE[0], "marker": "o", "label": "posterior, test"},
    "test_error": {"color": _CYCLE[3], "marker": "s", "label": "network, test,\nright labels"},
}
TERMS = {
    "right_hand_side": {"color": "0.15", "marker": "D", "label": "right-hand side"},
    "curvature_term": {"color": _CYCLE[0], "marker": "o", "label": r"effective curvature / $2n$"},
    "distance_term": {"color": _CYCLE[1], "marker": "s", "label": r"distance / $2n$"},
    "log_term": {"color": _CYCLE[2], "marker": "^", "label": "logarithmic term"},
}
_SIZE = 4
_LEGEND = 1.6  # inches beside the panels
_SEVERAL = "several"
_MARKERS = {"nothing": "o", "network": "s", "batch size": "^", "training-set size": "D", "loss": "v", _SEVERAL: "X"}


def _chosen(bounds: pd.DataFrame, what: str) -> pd.DataFrame:
    if bounds.empty:
        raise InputError(f"{what}: no bounds; they are measured at the last checkpoint of runs that finished")
    return chosen_bounds(bounds)


@style.styled
def bound(bounds: pd.DataFrame) -> Figure:
    """The bound, the error that it bounds and its terms along each sweep that the data set has.

    Above: the bound, the posterior's train and test error and the test error of the trained network, in per cent.
    Below: the right-hand side and its three terms. Points are means over seeds, bands one standard error over them
    (none with one seed). Raises InputError where there is no sweep of at least two values.
    """
    rows = _chosen(bounds, "bound")
    along = sweeps(rows)
    if not along:
        raise InputError(f"bound: a single value of each of {', '.join(AXES)}; add values of one to the profile")
    width = {1: 4.6, 2: 3.0}.get(len(along), 2.2)
    figure, (errors, terms) = headed_grid(2, len(along), (width, 2.3), sharex="col", sharey="row")
    figure.set_figwidth(figure.get_figwidth() + _LEGEND)
    for upper, lower, (axis, here), letter in zip(errors, terms, along.items(), letters(len(along)), strict=True):
        here = here.assign(**{name: 100 * here[name] for name in ERRORS})
        here = here.assign(x=100 * here["label_noise"] if axis == "label_noise" else here[AXES[axis]])
        for ax, looks in ((upper, ERRORS), (lower, TERMS)):
            for column, look in looks.items():
                draw_over_seeds(ax, here, column, "x", markersize=_SIZE, **{**look, "label": None})
        upper.set_title(letter)
        _measure(lower, axis, here["x"])
    errors[0].set(ylabel="error (%)")
    errors[0].set_ylim(bottom=0.0)
    terms[0].set_ylabel("terms of the bound")
    terms[0].axhline(0.0, color="0.7", linewidth=0.6, zorder=0)
    for ax, looks in ((errors[-1], ERRORS), (terms[-1], TERMS)):
        handles = [Line2D([], [], markersize=_SIZE, **look) for look in looks.values()]
        ax.legend(handles=handles, loc="upper left", bbox_to_anchor=(1.02, 1.0), labelspacing=1.0)
    head(figure, rows, f"generalisation bound and its terms along each sweep, {_vacuous(rows)}", model=False)
    return figure


def _vacuous(rows: pd.DataFrame) -> str:
    """How many bounds say nothing."""
    return f"{rows['vacuous'].sum()} of {len(rows)} bounds are no better than guessing"


def _measure(ax: Axes, axis: str, values: pd.Series) -> None:
    ax.set_xlabel(X_LABELS[axis])
    if axis == "label_noise":
        present = sorted(values.unique())
        ax.xaxis.set_major_locator(FixedLocator(present) if len(present) < 5 else MaxNLocator(4))
        return
    ax.set_xscale("log")
    ticks_at(ax.xaxis, values)
    ax.xaxis.set_major_formatter(lambda value, _: count_text(value))


@style.styled
def bound_against_error(bounds: pd.DataFrame) -> Figure:
    """The bound against the test error, and its right-hand side under one prior against the generalisation gap.

    A point a run; colours are label noises, markers what else differs from the base point. Titles have Spearman's rank
    correlation over the runs drawn (seeds counted one by one), of bounds over those that are better than guessing.
    """
    rows = _chosen(bounds, "bound against error")
    figure, [axes] = headed_grid(1, 2, (3.4, 2.9))
    noises = sorted(rows["label_noise"].unique())
    colours = dict(zip(noises, style.scale_colours(noises, Normalize(0.0, 1.2 * max(noises) or 1.0)), strict=True))
    differs = departure(rows).where(lambda words: ~words.str.contains(" and "), _SEVERAL)
    percent = rows.assign(**{name: 100 * rows[name] for name in ("bound", "test_error", "gap")})
    drawn = (("test_error", "bound", ~rows["vacuous"]), ("gap", "right_hand_side_at_one_prior", rows["gap"].notna()))
    for ax, (x, y, telling), letter in zip(axes, drawn, letters(2), strict=True):
        for (noise, word), here in percent.groupby(["label_noise", differs], sort=True):
            ax.plot(here[x], here[y], color=colours[noise], **_point(word))
        spearman, runs = rank_correlation(percent.loc[telling, x], percent.loc[telling, y])
        known = "no rank correlation" if pd.isna(spearman) else f"rank correlation ${spearman:.2f}$"
        ax.set_title(f"{letter} {known}, {runs} run{'s' * (runs != 1)}")
    ends = [0.0, min(percent["test_error"].max(), 100.0)]
    axes[0].plot(ends, ends, color="0.7", linewidth=0.8, zorder=0)
    axes[0].set(xlabel="test error (%)", ylabel="bound (%)")
    prior = rows["one_prior"].iloc[0]
    axes[1].set(xlabel="test error $-$ train error (%)", ylabel=rf"right-hand side at $\sigma$ = {prior:g}")
    _legend_of_points(figure, colours, [word for word in _MARKERS if (differs == word).any()])
    head(figure, rows, f"generalisation bound against what was measured, {_vacuous(rows)}", model=False)
    return figure


def _point(word: str) -> dict[str, object]:
    return {"marker": _MARKERS[word], "markersize": _SIZE, "linestyle": "none", "alpha": 0.8, "markeredgewidth": 0}


def _legend_of_points(figure: Figure, colours: dict[float, object], present: list[str]) -> None:
    """Label noises in the first row, what differs in the second; a legend fills its columns one by one."""
    noises = [Line2D([], [], color=colours[noise], label=noise_text(noise), **_point("nothing")) for noise in colours]
    named = {"nothing": "base point", _SEVERAL: "several differ"}
    words = [Line2D([], [], color="0.4", label=named.get(word, f"other {word}"), **_point(word)) for word in present]
    blank = Line2D([], [], linestyle="none", label=" ")
    handles = [handle for pair in zip_longest(noises, words, fillvalue=blank) for handle in pair]
    figure.legend(handles=handles, loc="outside lower center", ncols=max(len(noises), len(words)))
