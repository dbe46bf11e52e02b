"""Overlap of magnitude masks with the Hessian's top eigenspace against chance (Fernandez et al. 2025).

Each function takes the overlaps of one network trained by SGD (`studies.eigenspaces.of_network`). Lines are means over
seeds, bands one standard error over them (none with one seed); those of chance levels are one standard deviation of
random masks. Solid is the exact eigenspace, dashed the sketched one.
"""

from collections.abc import Sequence

import pandas as pd
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from hessketch.figures import style
from hessketch.figures.curves import log_ticks
from hessketch.figures.eigenspaces_marks import (
    LEVEL_LOOKS,
    MASK_LOOKS,
    draw_level,
    draw_methods,
    finish_axes_of_k,
    landmark_panels,
    level_handles,
    method_handles,
    method_looks,
    one_setting,
    present_levels,
    split_panels,
)
from hessketch.figures.sgd_dynamics_marks import draw_over_seeds, head, legend_below
from hessketch.studies.eigenspaces import first_method, largest_common_k, nearest_k

_COLOUR = MASK_LOOKS["magnitude"]["color"]
_WIDEST = 2.1  # inches of the widest entry of a legend
FEW = (10, 50, 100)
"""The k of the paper's figure over steps."""


def _by_magnitude(overlaps: pd.DataFrame, what: str) -> pd.DataFrame:
    one_setting(overlaps, what)
    return overlaps[overlaps["mask"] == "magnitude"]


@style.styled
def overlap_over_steps(overlaps: pd.DataFrame) -> Figure:
    """Overlap at the largest k over the steps, exact and sketched, against the three chance levels."""
    rows = _by_magnitude(overlaps, "overlap over steps")
    k = largest_common_k(rows, "overlap over steps")
    rows = rows[rows["k"] == k]
    figure, panels = split_panels(rows, "overlap")
    for ax, here in panels:
        for level in present_levels(rows):
            draw_level(ax, first_method(here), level, "time")
        draw_methods(ax, here, "overlap", "time", _COLOUR)
        ax.set_ylim(bottom=0.0)
    legend_below(figure, [*method_handles(rows, _COLOUR, "mask"), *level_handles(rows)], _WIDEST)
    share = k / rows["p"].iloc[0]
    head(figure, rows, f"overlap of the $k$ = {k:,} largest parameters with the top eigenspace, $k/p$ = {share:.2g}")
    return figure


@style.styled
def overlap_at_k(overlaps: pd.DataFrame, ks: Sequence[int] = FEW) -> Figure:
    """Overlap over the steps at a few k (those of the table nearest to `ks`, and its largest), against k / p."""
    rows = _by_magnitude(overlaps, "overlap at k")
    largest = largest_common_k(rows, "overlap at k")
    present = rows.loc[rows["k"] <= largest, "k"]
    chosen = sorted({*(nearest_k(present, k) for k in ks if k <= largest), largest})
    figure, panels = split_panels(rows, "overlap")
    colours = dict(zip(chosen, style.scale_colours(range(len(chosen)), _scale(len(chosen))), strict=True))
    for ax, here in panels:
        ax.set_yscale("log")
        for k, colour in colours.items():
            at_k = here[here["k"] == k]
            draw_methods(ax, at_k, "overlap", "time", colour)
            ax.axhline(k / at_k["p"].iloc[0], color=colour, linestyle=":", linewidth=0.8)
    low, high = panels[0][0].get_ylim()
    panels[0][0].set_ylim(max(low, 0.01 * chosen[0] / rows["p"].iloc[0]), high)
    for ax, _ in panels:
        log_ticks(ax.yaxis, *ax.get_ylim())
    handles = [Line2D([], [], color=colour, label=f"$k$ = {k:,}") for k, colour in colours.items()]
    handles += [Line2D([], [], label=method, **look) for method, look in method_looks(rows, "0.3").items()]
    chance = Line2D([], [], **LEVEL_LOOKS["chance"])
    legend_below(figure, [*handles, chance], 1.5)
    head(figure, rows, "overlap of the $k$ largest parameters with the top eigenspace")
    return figure


def _scale(count: int) -> Normalize:
    return Normalize(0.0, 1.2 * max(count - 1, 1))  # the yellow end is hard to see on white


@style.styled
def overlap_against_k(overlaps: pd.DataFrame) -> Figure:
    """Overlap against k, log-log, at the first, the middle and the last checkpoint, with the three chance levels."""
    rows = _by_magnitude(overlaps, "overlap against k")
    figure, panels = landmark_panels(rows, "overlap")
    for ax, here in panels:
        for level in present_levels(rows):
            draw_level(ax, first_method(here), level, "k")
        draw_methods(ax, here, "overlap", "k", _COLOUR)
    finish_axes_of_k(panels, rows["k"], rows["chance"].min())
    legend_below(figure, [*method_handles(rows, _COLOUR, "mask"), *level_handles(rows)], _WIDEST)
    head(figure, rows, "overlap of the $k$ largest parameters with the top-$k$ eigenspace")
    return figure


@style.styled
def times_chance(overlaps: pd.DataFrame) -> Figure:
    """Overlap over chance (k / p) against k: of the mask, of random masks like it in each layer, of live parameters."""
    rows = _by_magnitude(overlaps, "times chance")
    rows = rows.assign(times=rows["overlap"] / rows["chance"])
    figure, panels = landmark_panels(rows, "times chance")
    for ax, here in panels:
        for level in present_levels(rows):
            draw_level(ax, first_method(here), level, "k", over="chance")
        draw_methods(ax, here, "times", "k", _COLOUR)
    finish_axes_of_k(panels, rows["k"], 1.0)
    legend_below(figure, [*method_handles(rows, _COLOUR, "mask"), *level_handles(rows)], _WIDEST)
    head(figure, rows, "overlap of the $k$ largest parameters over that of random ones")
    return figure


@style.styled
def masks(overlaps: pd.DataFrame) -> Figure:
    """Overlap against k of the mask by magnitude, of that by layer, of the best there is, and of random ones."""
    one_setting(overlaps, "masks")
    rows = first_method(overlaps)
    rows = rows.assign(overlap=rows["overlap"].where(rows["overlap"] > 0))  # none has no place on this axis
    figure, panels = landmark_panels(rows, "overlap")
    present = [mask for mask in MASK_LOOKS if (rows["mask"] == mask).any()]
    for ax, here in panels:
        draw_level(ax, here[here["mask"] == present[0]], "chance", "k")
        for mask in present:
            draw_over_seeds(ax, here[here["mask"] == mask], "overlap", "k", color=MASK_LOOKS[mask]["color"])
    panels[0][0].set_ylim(top=min(panels[0][0].get_ylim()[1], 1.5))  # an overlap is at most 1
    finish_axes_of_k(panels, rows["k"], rows["chance"].min())
    handles = [Line2D([], [], **MASK_LOOKS[mask]) for mask in present]
    legend_below(figure, [*handles, Line2D([], [], **LEVEL_LOOKS["chance"])], _WIDEST)
    head(figure, rows, f"overlap of masks of size $k$ with the top-$k$ eigenspace, {rows['method'].iloc[0]}")
    return figure
