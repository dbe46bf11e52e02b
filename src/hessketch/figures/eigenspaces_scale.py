"""Overlap of masks and eigenspaces across network sizes and trainers, and what each method costs.

`width` and `runtimes` take tables of one data set, all its networks; `federated` those of one network's federated runs.
"""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from hessketch.errors import InputError
from hessketch.figures import style
from hessketch.figures.curves import log_ticks
from hessketch.figures.eigenspaces_marks import (
    LEVEL_LOOKS,
    LINES,
    SPLIT_NAMES,
    draw_level,
    methods_of,
    present_levels,
    splits_of,
)
from hessketch.figures.eigenspaces_parts import METHOD_COLOURS
from hessketch.figures.sgd_dynamics_marks import (
    count_text,
    draw_over_seeds,
    head,
    headed_grid,
    legend_below,
    one_network,
    step_axis,
)
from hessketch.figures.sharper_sketching_marks import ticks_at, trainer_looks
from hessketch.runs import IDENTITY, Run
from hessketch.studies.eigenspaces import first_method, largest_common_k, trained_by
from hessketch.studies.eigenspaces_comparisons import UNCOMPRESSED, federated_summary, width_summary
from hessketch.trainers import trainer_columns

_OVER = {
    "chance": "over any random mask",
    "chance_by_layer": "over random masks, layers as its own",
    "chance_live": "over random live parameters",
}
_PARAMETERS = "parameters $p$"
_THIN = {"linewidth": 0.7}


@style.styled
def width(overlaps: pd.DataFrame) -> Figure:
    """Overlap of the largest parameters over each chance level against the network's size, at the last checkpoint.

    Columns: at about the same k / p, and at about the same k, in all networks; rows are splits. Points are means over
    seeds, bars one standard error over them. Raises InputError with one size only.
    """
    _one_data_set(overlaps, "width")
    summary = width_summary(overlaps)
    sizes = summary["p"].nunique()
    if sizes < 2:
        raise InputError(f"width: networks of {sizes} size; give tables of two or more to compare them")
    splits, sides, levels = splits_of(summary), list(dict.fromkeys(summary["at"])), present_levels(overlaps)
    figure, grid = headed_grid(len(splits), len(sides), (3.3, 2.2), sharex=True, sharey=True)
    for line, split in zip(grid, splits, strict=True):
        for ax, at in zip(line, sides, strict=True):
            _draw_sizes(ax, summary[(summary["split"] == split) & (summary["at"] == at)], levels)
        line[0].set_ylabel(f"{SPLIT_NAMES[split].removeprefix('Hessian on ')}\noverlap over chance")
    for ax, at in zip(grid[0], sides, strict=True):
        here = summary[summary["at"] == at]
        share = (here["k"] / here["p"]).median()
        size = f"{share:.2g} $p$" if at == "same share" else f"{here['k'].median():,.0f}"
        ax.set_title(rf"$k \approx$ {size}")
    for line in grid:
        log_ticks(line[0].yaxis, *line[0].get_ylim())
    for ax in grid[-1]:
        _size_axis(ax, summary["p"])
    handles = [_level_line(level, _OVER[level]) for level in levels]
    handles += [Line2D([], [], color="0.3", linestyle=LINES[m], label=m) for m in methods_of(summary)]
    legend_below(figure, handles, 2.4)
    head(figure, overlaps, "overlap of magnitude masks and top eigenspaces by network size, last checkpoint", False)
    return figure


def _one_data_set(frame: pd.DataFrame, what: str) -> None:
    if frame["dataset"].nunique() != 1:
        present = ", ".join(frame["dataset"].unique()) or "no rows"
        raise InputError(f"{what}: {present}; allowed: rows of one data set; measure or choose it first")


def _level_line(level: str, label: str) -> Line2D:
    return Line2D([], [], color=LEVEL_LOOKS[level]["color"], marker="o", markersize=3.5, label=label)


def _draw_sizes(ax: Axes, rows: pd.DataFrame, levels: list[str]) -> None:
    ax.set(xscale="log", yscale="log")
    ax.axhline(1.0, color="0.7", linewidth=0.6, zorder=0)
    for level in levels:
        for _, here in rows.groupby(["method", "network", "norm", "trainer"], sort=False):
            here = here.dropna(subset=[f"times_{level}"]).sort_values("p")
            method = here["method"].iloc[0] if len(here) else "exact"
            colour = LEVEL_LOOKS[level]["color"]
            look = {"color": colour, "markersize": 3.5, "linestyle": LINES[method], "elinewidth": 0.8}
            filled = {"markerfacecolor": colour if method == "exact" else "white"}
            errors = here[f"times_{level}_standard_error"].to_numpy()
            ax.errorbar(here["p"], here[f"times_{level}"], yerr=errors, marker="o", capsize=1.5, **look, **filled)


def _size_axis(ax: Axes, sizes: pd.Series) -> None:
    ax.set_xscale("log")
    ax.set_xlabel(_PARAMETERS)
    ticks_at(ax.xaxis, sizes)
    ax.xaxis.set_major_formatter(lambda value, _: count_text(value))


@style.styled
def runtimes(quality: pd.DataFrame) -> Figure:
    """Products with the Hessian and seconds that one decomposition takes, by method, against the network's size.

    Points are means over checkpoints, splits and seeds of a size, bands one standard error over them.
    """
    _one_data_set(quality, "run times")
    rows = trained_by(quality, federated=False)
    if rows.empty:
        raise InputError("run times: no rows of a training by SGD; measure one first")
    figure, [axes] = headed_grid(1, 2, (3.3, 2.4))
    for ax, column in zip(axes, ("products", "seconds"), strict=True):
        ax.set_yscale("log")
        for method in methods_of(rows):
            look = {"color": METHOD_COLOURS[method], "linestyle": LINES[method], "marker": "o", "markersize": 3.5}
            draw_over_seeds(ax, rows[rows["method"] == method], column, "p", **look)
        _size_axis(ax, rows["p"])
        log_ticks(ax.yaxis, *ax.get_ylim())
    axes[0].set_ylabel("products with the Hessian")
    axes[1].set_ylabel("seconds")
    look = {"marker": "o", "markersize": 3.5}
    handles = [Line2D([], [], color=METHOD_COLOURS[m], linestyle=LINES[m], label=m, **look) for m in methods_of(rows)]
    legend_below(figure, handles, 1.2)
    pairs = sorted(rows["pairs"].unique())
    some = f"{pairs[0]:,}" if len(pairs) == 1 else f"{pairs[0]:,} to {pairs[-1]:,}"
    head(figure, rows, f"cost of {some} eigenpairs of one Hessian", model=False)
    return figure


@style.styled
def federated(overlaps: pd.DataFrame) -> Figure:
    """Overlap of the largest parameters with the top eigenspace over rounds, by trainer, at the largest k.

    Thin lines in a trainer's colour are its own chance levels by layer and of live parameters.

    Below: the difference to the uncompressed training of the same seed, where there is one. Columns are splits.
    """
    one_network(overlaps, "federated")
    rows = first_method(trained_by(overlaps, federated=True))
    rows = rows[rows["mask"] == "magnitude"]
    k = largest_common_k(rows, "federated")
    rows = rows[rows["k"] == k]
    compared = rows["trainer"].nunique() > 1 and (rows["trainer"] == UNCOMPRESSED).any()
    splits = splits_of(rows)
    width = 4.6 if len(splits) == 1 else 3.3
    figure, grid = headed_grid(1 + compared, len(splits), (width, 2.1), sharex=True, sharey="row")
    looks, own_levels = _looks(rows), [level for level in present_levels(rows) if level != "chance"]
    for ax, split in zip(grid[0], splits, strict=True):
        here = rows[rows["split"] == split]
        draw_level(ax, here, "chance", "time")
        for trainer, look in looks.items():
            own = here[here["trainer"] == trainer]
            for level in own_levels:
                thin = {"color": look["color"], "linestyle": LEVEL_LOOKS[level]["linestyle"], **_THIN}
                draw_over_seeds(ax, own, level, "time", band=False, **thin)
            draw_over_seeds(ax, own, "overlap", "time", **{**look, "label": None})
        ax.set_ylim(bottom=0.0)
        ax.set_title(SPLIT_NAMES[split])
    grid[0][0].set_ylabel("overlap")
    if compared:
        _draw_differences(grid[1], splits, federated_summary(rows), looks)
    for ax in grid[-1]:
        ax.set_xlabel("round")
        step_axis(ax.xaxis, rows["time"])
    handles = [Line2D([], [], **look) for look in looks.values()]
    handles += [Line2D([], [], **{**LEVEL_LOOKS[level], "color": "0.3", **_THIN}) for level in own_levels]
    legend_below(figure, [*handles, Line2D([], [], **LEVEL_LOOKS["chance"])], 2.3)
    share = k / rows["p"].iloc[0]
    head(figure, rows, f"overlap of the $k$ = {k:,} largest parameters with the top eigenspace, $k/p$ = {share:.2g}")
    return figure


def _looks(rows: pd.DataFrame) -> dict[str, dict[str, object]]:
    """Look of each trainer, as in the figures of sketched training."""
    runs = rows[list(IDENTITY)].drop_duplicates("trainer")
    columns = [trainer_columns(Run(**identity)) for identity in runs.to_dict("records")]
    return trainer_looks(runs.reset_index(drop=True).join(pd.DataFrame(columns)))


def _draw_differences(axes: list[Axes], splits: list[str], summary: pd.DataFrame, looks: dict) -> None:
    axes[0].set_ylabel("less uncompressed")
    for ax, split in zip(axes, splits, strict=True):
        ax.axhline(0.0, color="0.7", linewidth=0.6, zorder=0)
        for trainer, look in looks.items():
            here = summary[(summary["split"] == split) & (summary["trainer"] == trainer)]
            here = here.dropna(subset=["difference"]).sort_values("time")
            if trainer == UNCOMPRESSED or here.empty:
                continue
            ax.plot(here["time"], here["difference"], marker=".", **{**look, "label": None})
            error = here["difference_standard_error"]
            if error.notna().any():
                low, high = here["difference"] - error, here["difference"] + error
                ax.fill_between(here["time"], low, high, color=look["color"], alpha=0.2, linewidth=0)
