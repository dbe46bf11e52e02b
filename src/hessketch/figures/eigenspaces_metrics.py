"""Metrics between subspaces, synthetic and along training, and the stability of masks and eigenspaces."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from hessketch.errors import InputError
from hessketch.figures import style
from hessketch.figures.eigenspaces_marks import CYCLE, SPLIT_NAMES, one_setting, splits_of
from hessketch.figures.sgd_dynamics_marks import (
    STEP,
    count_text,
    draw_over_seeds,
    head,
    headed_grid,
    legend_below,
    step_axis,
)
from hessketch.figures.sharper_sketching_marks import evenly
from hessketch.studies.eigenspaces import first_method
from hessketch.studies.eigenspaces_comparisons import metric_baselines

METRIC_NAMES = {
    "geodesic": "geodesic",
    "chordal_max": "chordal, 2-norm",
    "chordal": "chordal, F-norm",
    "projection_max": "projection, 2-norm",
    "projection": "projection, F-norm",
    "fubini_study": "Fubini\N{EN DASH}Study",
    "overlap": "overlap",
}
METRIC_COLOURS = dict(zip(METRIC_NAMES, (*CYCLE[1:7], CYCLE[0]), strict=True))
_METRIC_LINES = {"chordal_max": "--", "projection_max": "-.", "fubini_study": ":"}  # they often lie on each other
PAIRS = ("subspaces", "subspace and mask", "masks")
_PAIR_NAMES = {"subspaces": "two subspaces", "subspace and mask": "subspace and mask", "masks": "two masks"}
_TICKS = 5


@style.styled
def metric_study(metric_study: pd.DataFrame) -> Figure:
    """Similarity of random pairs by each metric (rows) and kind of pair (columns) against k over the dimension.

    Lines are medians, bands the middle half and nine tenths of the samples; colours are dimensions. Dashed beside the
    overlap is its expectation.
    """
    if metric_study.empty:
        raise InputError("metric study: the table has no rows of it; measure it first")
    pairs = [pair for pair in PAIRS if (metric_study["pair"] == pair).any()]
    metrics = [metric for metric in METRIC_NAMES if (metric_study["metric"] == metric).any()]
    dimensions = sorted(metric_study["dimension"].unique())
    norm = LogNorm(dimensions[0], max(1.5 * dimensions[-1], 2.0 * dimensions[0]))
    colours = dict(zip(dimensions, style.scale_colours(dimensions, norm), strict=True))
    figure, grid = headed_grid(len(metrics), len(pairs), (2.3, 1.15), sharex=True, sharey=True)
    for line, metric in zip(grid, metrics, strict=True):
        for ax, pair in zip(line, pairs, strict=True):
            here = metric_study[(metric_study["metric"] == metric) & (metric_study["pair"] == pair)]
            _draw_quantiles(ax, here, colours)
            ax.set(xlim=(-0.04, 1.04), ylim=(-0.04, 1.04), xticks=[0, 0.5, 1], yticks=[0, 0.5, 1])
        line[0].set_ylabel(METRIC_NAMES[metric].replace(" ", "\n"))
    for ax, pair in zip(grid[0], pairs, strict=True):
        ax.set_title(_PAIR_NAMES[pair])
    for ax in grid[-1]:
        ax.set_xlabel("$k$ / dimension")
    handles = [Line2D([], [], color=colour, label=f"dimension {d:,}") for d, colour in colours.items()]
    handles.append(Line2D([], [], color="0.2", linestyle="--", linewidth=0.8, label="expected overlap"))
    legend_below(figure, handles, 1.3)
    samples = metric_study["samples"].max()
    figure.suptitle(f"similarity of random pairs by each metric, {samples} a point", fontsize=9)
    return figure


def _draw_quantiles(ax: Axes, rows: pd.DataFrame, colours: dict) -> None:
    for dimension, colour in colours.items():
        here = rows[rows["dimension"] == dimension].sort_values("k")
        here = here.assign(ratio=here["k"] / here["dimension"])  # of whole numbers, not the one asked for
        ax.fill_between(here["ratio"], here["q05"], here["q95"], color=colour, alpha=0.15, linewidth=0)
        ax.fill_between(here["ratio"], here["q25"], here["q75"], color=colour, alpha=0.25, linewidth=0)
        ax.plot(here["ratio"], here["q50"], color=colour)
    known = rows.dropna(subset=["expected"])
    expected = known.groupby(known["k"] / known["dimension"])["expected"].first()
    if len(expected):
        ax.plot(expected.index, expected, color="0.2", linestyle="--", linewidth=0.8)


@style.styled
def metrics_over_steps(metrics: pd.DataFrame, metric_study: pd.DataFrame) -> Figure:
    """Similarity of magnitude mask and eigenspace by every metric over the steps; dotted thin: of a random mask.

    Parameters
    ----------
    metrics : of one network, as the jobs measure them; rows of panels are the k, columns the splits
    metric_study : of random pairs, where the baselines of all metrics but the overlap come from; may be empty
    """
    one_setting(metrics, "metrics over steps")
    rows = first_method(metrics[metrics["mask"] == "magnitude"])
    baselines = metric_baselines(rows, metric_study)
    ks, splits = sorted(rows["k"].unique(), reverse=True), splits_of(rows)
    figure, grid = headed_grid(len(ks), len(splits), (3.2, 1.9), sharex=True, sharey="row")
    for line, k in zip(grid, ks, strict=True):
        for ax, split in zip(line, splits, strict=True):
            here = rows[(rows["k"] == k) & (rows["split"] == split)]
            _draw_metrics(ax, here, baselines[baselines["k"] == k].set_index("metric")["baseline"])
            step_axis(ax.xaxis, rows["time"])
        line[0].set_ylabel(f"$k$ = {k:,} ({k / rows['p'].iloc[0]:.2g} $p$)\nsimilarity")
    for ax, split in zip(grid[0], splits, strict=True):
        ax.set_title(SPLIT_NAMES[split])
    for ax in grid[-1]:
        ax.set_xlabel(STEP)
    handles = [_metric_line(metric, METRIC_NAMES[metric]) for metric in METRIC_NAMES if metric in set(rows["metric"])]
    handles.append(Line2D([], [], color="0.3", linestyle=":", linewidth=0.8, label="of a random mask"))
    legend_below(figure, handles, 1.6)
    head(figure, rows, f"largest parameters and top eigenspace by each metric, {rows['method'].iloc[0]}")
    return figure


def _metric_line(metric: str, label: str) -> Line2D:
    return Line2D([], [], color=METRIC_COLOURS[metric], linestyle=_METRIC_LINES.get(metric, "-"), label=label)


def _draw_metrics(ax: Axes, rows: pd.DataFrame, baselines: pd.Series) -> None:
    for metric, colour in METRIC_COLOURS.items():
        here = rows[rows["metric"] == metric]
        if len(here):
            line = _METRIC_LINES.get(metric, "-")
            draw_over_seeds(ax, here, "similarity", "time", color=colour, linestyle=line)
            if np.isfinite(baselines[metric]):
                ax.axhline(baselines[metric], color=colour, linestyle=":", linewidth=0.8)


_KINDS = {
    ("mask", ""): "masks",
    ("eigenspace", "train"): "eigenspaces, train",
    ("eigenspace", "test"): "eigenspaces, test",
}


@style.styled
def stability(stability: pd.DataFrame) -> Figure:
    """Heat maps of the similarity of each checkpoint with each other: of masks (columns) and eigenspaces, by ratio.

    Masks are compared by intersection over union, eigenspaces by their overlap; means over seeds. Above each panel
    stands what two random masks or spaces of k have; a panel of what was not compared says so.
    """
    one_setting(stability, "stability")
    ratios = sorted(stability["ratio"].unique())
    kinds = [kind for kind in _KINDS if len(_of(stability, *kind))]
    steps = sorted({*stability["first"], *stability["second"]})
    figure, grid = headed_grid(len(ratios), len(kinds), (2.1, 2.0), sharex=True, sharey=True)
    figure.set_figwidth(figure.get_figwidth() + 1.2)  # for the colour bar
    figure.set_layout_engine("compressed")  # the panels are squares
    norm = Normalize(0.0, 1.0)
    for line, ratio in zip(grid, ratios, strict=True):
        for ax, kind in zip(line, kinds, strict=True):
            here = _of(stability, *kind)
            shown = _square(here[here["ratio"] == ratio], steps)
            ax.imshow(shown, norm=norm, cmap="viridis", origin="lower", interpolation="nearest", aspect="equal")
            ax.spines[:].set_visible(False)
            _say_chance(ax, here[here["ratio"] == ratio])
        k = stability.loc[stability["ratio"] == ratio, "k"].iloc[0]
        line[0].set_ylabel(f"$k$ = {k:,} ({ratio:g} $p$)\nstep")
    places = evenly(range(len(steps)), _TICKS)
    ticks = {"ticks": places, "labels": [count_text(steps[i]) for i in places]}
    grid[0][0].set_xticks(**ticks)
    grid[0][0].set_yticks(**ticks)
    for ax, kind in zip(grid[0], kinds, strict=True):
        ax.set_title(_KINDS[kind], pad=12)  # above the chance level
    for ax in grid[-1]:
        ax.set_xlabel("step")
    bar = figure.colorbar(style.colour_scale(norm), ax=[ax for line in grid for ax in line], shrink=0.6, aspect=30)
    bar.set_label("similarity (masks: intersection\nover union; eigenspaces: overlap)", fontsize=7)
    head(figure, stability, "similarity between checkpoints")
    return figure


def _of(stability: pd.DataFrame, of: str, split: str) -> pd.DataFrame:
    return stability[(stability["of"] == of) & (stability["split"] == split)]


def _say_chance(ax: Axes, rows: pd.DataFrame) -> None:
    small = {"xycoords": "axes fraction", "fontsize": 6, "color": "0.3"}
    if rows["similarity"].notna().any():
        level = f"by chance {rows['chance'].iloc[0]:.2g}"
        ax.annotate(level, (1.0, 1.0), (0, 2), textcoords="offset points", ha="right", va="bottom", **small)
    else:
        ax.annotate("not compared", (0.5, 0.5), ha="center", va="center", **small)


def _square(rows: pd.DataFrame, steps: list[int]) -> np.ndarray:
    """Mean similarity over seeds of each two steps; NaN, drawn white, where it is not known."""
    both = pd.concat([rows, rows.rename(columns={"first": "second", "second": "first"})])
    table = both.pivot_table(index="first", columns="second", values="similarity", aggfunc="mean")
    return table.reindex(index=steps, columns=steps).to_numpy(dtype=float)
