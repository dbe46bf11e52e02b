"""Whole spectra before and after training, and of networks of several widths (Sagun et al. 2017).

`spectra` is the study's table of the first and last checkpoints, as `studies.over_parametrized.of_data` chooses its
rows. Lines are means over seeds by rank, bands one standard error over them.
"""

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from hessketch.figures import style
from hessketch.figures.curves import EIGENVALUE
from hessketch.figures.over_parametrized_marks import (
    STAGES,
    draw_sorted,
    headed,
    one_setting,
    size_colours,
    size_handles,
)
from hessketch.figures.sgd_dynamics_marks import head, headed_grid, legend_below, signed_log_axis
from hessketch.studies.spectra import select

_CLASSES = {"color": "0.3", "linestyle": ":", "linewidth": 0.8}


@style.styled
def spectrum_before_after(spectra: pd.DataFrame) -> Figure:
    """All eigenvalues of one network's Hessian in their order, at initialisation and after training.

    On the left against rank / p on an axis that is logarithmic on both sides of zero; on the right the 4 C largest on
    a linear one, with a dotted line after the C-th.
    """
    rows = select(spectra, operator="hessian") if len(spectra) else spectra
    one_setting(rows, "spectrum before and after", "dataset", "network")
    figure, [[whole, leading]] = headed_grid(1, 2, (3.4, 2.5))
    classes = rows["classes"].iloc[0]
    for stage, look in STAGES.items():
        here = rows[rows["stage"] == stage]
        if len(here):
            draw_sorted(whole, here, share=True, color=look["color"])
            draw_sorted(leading, here[here["rank"] <= 4 * classes], share=False, color=look["color"], marker=".")
    signed_log_axis(whole.yaxis, rows["eigenvalue"], ticks=9)
    whole.axhline(0, color="0.8", linewidth=0.6, zorder=0)
    whole.set(xlabel="rank / $p$", ylabel=EIGENVALUE, title="(a) all")
    leading.axvline(classes + 0.5, **_CLASSES)
    leading.set(xlabel="rank", title=f"(b) the {4 * classes} largest")
    leading.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    handles = [Line2D([], [], **look) for stage, look in STAGES.items() if (rows["stage"] == stage).any()]
    legend_below(figure, [*handles, Line2D([], [], **_CLASSES, label=f"$C$ = {classes} classes")], 1.6)
    head(figure, rows, "eigenvalues of the Hessian in their order")
    return figure


@style.styled
def width(spectra: pd.DataFrame) -> Figure:
    """The trained Hessian's eigenvalues of networks of several sizes: against rank (left) and rank / p (right).

    Outliers that stay make lines that begin alike on the left; a bulk that scales makes lines that agree on the right.
    """
    rows = select(spectra, operator="hessian", stage="trained") if len(spectra) else spectra
    one_setting(rows, "width", "dataset")
    colours, classes = size_colours(rows["p"]), rows["classes"].iloc[0]
    figure, [[by_rank, by_share]] = headed_grid(1, 2, (3.4, 2.5), sharey=True)
    for p, colour in colours.items():
        here = rows[rows["p"] == p]
        draw_sorted(by_rank, here, share=False, color=colour)
        draw_sorted(by_share, here, share=True, color=colour)
    signed_log_axis(by_rank.yaxis, rows["eigenvalue"], ticks=9)
    for ax in (by_rank, by_share):
        ax.axhline(0, color="0.8", linewidth=0.6, zorder=0)
    by_rank.set_xscale("log")
    by_rank.axvline(classes + 0.5, **_CLASSES)
    by_rank.set(xlabel="rank", ylabel=EIGENVALUE, title="(a) by rank")
    by_share.set(xlabel="rank / $p$", title="(b) by share of the parameters")
    handles = [*size_handles(colours), Line2D([], [], **_CLASSES, label=f"$C$ = {classes} classes")]
    legend_below(figure, handles, 1.4)
    headed(figure, rows, "eigenvalues of the trained Hessian, networks of several widths")
    return figure
