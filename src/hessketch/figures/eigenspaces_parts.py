"""Where masks and curvature sit in a network, and how good sketched eigenspaces are beside exact ones."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from hessketch.figures import style
from hessketch.figures.curves import log_ticks
from hessketch.figures.eigenspaces_marks import CYCLE, LINES, SPLIT_NAMES, methods_of, one_setting, splits_of
from hessketch.figures.sgd_dynamics_marks import (
    STEP,
    draw_over_seeds,
    head,
    headed_grid,
    legend_below,
    over_seeds,
    step_axis,
)
from hessketch.studies.eigenspaces import first_method
from hessketch.studies.sgd_dynamics import landmarks

METHOD_COLOURS = {"exact": "0.15", "sketched": CYCLE[0], "lanczos": CYCLE[1]}
_NAMED_LAYERS = 14  # more have a colour bar instead of names
_LEGEND = 1.4  # inches beside the panels


@style.styled
def layers(layers: pd.DataFrame) -> Figure:
    """Shares of the layers in the parameters, in the mask of largest magnitudes and in the top eigenspace.

    Stacked bars at the first, the middle and the last checkpoint, means over seeds; columns are k, the split is the
    first that there is. The share of a layer in the eigenspace is that of the squared norms of its rows of U_k.
    """
    one_setting(layers, "layers")
    rows = first_method(layers[layers["split"] == splits_of(layers)[0]])
    rows = rows.assign(**{"mask": rows["in_mask"] / rows["k"], "eigenspace": rows["energy"] / rows["k"]})
    names, steps, ks = list(dict.fromkeys(rows["layer"])), landmarks(rows["time"]), sorted(rows["k"].unique())
    colours = dict(zip(names, style.scale_colours(range(len(names)), _layer_norm(names)), strict=True))
    figure, [axes] = headed_grid(1, len(ks), (max(2.2, 4.0 / len(ks)), 2.6), sharey=True)
    figure.set_figwidth(figure.get_figwidth() + _LEGEND)
    for ax, k in zip(axes, ks, strict=True):
        bars = _bars(rows[rows["k"] == k], steps)
        bottom = np.zeros(len(bars))
        for name, colour in colours.items():
            heights = 100 * np.array([shares.get(name, 0.0) for _, _, shares in bars])
            ax.bar([x for x, _, _ in bars], heights, 0.85, bottom=bottom, color=colour, linewidth=0)
            bottom += heights
        ax.set_xticks([x for x, _, _ in bars], [text for _, text, _ in bars], rotation=90, fontsize=6.5)
        ax.set(title=f"$k$ = {k:,} ({k / rows['p'].iloc[0]:.2g} $p$)", ylim=(0, 100))
        ax.tick_params(axis="x", length=0)
    axes[0].set_ylabel("share (%)")
    _name_layers(figure, axes, colours)
    split = SPLIT_NAMES[rows["split"].iloc[0]].removeprefix("Hessian ")
    head(figure, rows, f"the $k$ largest parameters and the top-$k$ eigenspace, {split}, by layer")
    return figure


def _bars(rows: pd.DataFrame, steps: list[int]) -> list[tuple[float, str, pd.Series]]:
    """Place, name and shares of the layers of each bar: all parameters, then mask and eigenspace at each step."""
    parameters = rows.groupby("layer")["parameters"].first()
    bars = [(0.0, "parameters", parameters / parameters.sum())]
    for i, step in enumerate(steps):
        here = rows[rows["time"] == step].groupby("layer")
        for j, column in enumerate(("mask", "eigenspace")):
            bars.append((1.5 + 2.5 * i + j, f"{column}, step {step:,}", here[column].mean()))
    return bars


def _layer_norm(names: list[str]) -> Normalize:
    return Normalize(0.0, max(len(names) - 1, 1))


def _name_layers(figure: Figure, axes: list[Axes], colours: dict) -> None:
    if len(colours) <= _NAMED_LAYERS:
        handles = [Patch(color=colour, label=name) for name, colour in colours.items()]
        axes[-1].legend(
            handles=handles[::-1], title="layer", title_fontsize=7, loc="upper left", bbox_to_anchor=(1.02, 1.0)
        )
        return
    bar = figure.colorbar(style.colour_scale(_layer_norm(list(colours))), ax=axes, ticks=[0, len(colours) - 1])
    bar.set_ticklabels(["first", "last"])
    bar.set_label(f"layer (of {len(colours)})")


@style.styled
def sketch_quality(quality: pd.DataFrame, eigenvalues: pd.DataFrame) -> Figure:
    """How near the sketched decomposition comes to the exact one; rows are splits.

    Columns: eigenvalues at the last checkpoint; and over steps, where the exact decomposition is known, the largest
    relative error of the first half of the eigenvalues and the overlap of the eigenspaces; and what the eigenpairs
    leave of |H|_F^2, of the sketch with the bounds of its a-posteriori estimate (means over seeds).

    Parameters
    ----------
    quality, eigenvalues : of one network, as the jobs measure them
    """
    one_setting(quality, "sketch quality")
    compared = quality["subspace_overlap"].notna().any()
    parts = {"eigenvalues": (_eigenvalues, "$|$eigenvalue$|$")}
    if compared:
        parts["first half of the eigenvalues"] = _errors, "largest relative error"
        parts["eigenspaces"] = _overlaps, "overlap with exact"
    parts["what the eigenpairs leave"] = _residuals, r"$\|H-H_k\|_F^2$"
    splits = splits_of(quality)
    figure, grid = headed_grid(len(splits), len(parts), (2.4, 2.0), sharex="col")
    for line, split in zip(grid, splits, strict=True):
        own = quality[quality["split"] == split], eigenvalues[eigenvalues["split"] == split]
        for ax, (draw, label) in zip(line, parts.values(), strict=True):
            draw(ax, *own)
            ax.set_ylabel(label)
        line[0].set_ylabel(f"{SPLIT_NAMES[split].removeprefix('Hessian on ')}\n{line[0].get_ylabel()}")
    last = eigenvalues["time"].max()
    for ax, name in zip(grid[0], parts, strict=True):
        ax.set_title(f"{name}, step {last:,}" if name == "eigenvalues" else name)
    grid[-1][0].set_xlabel("rank")
    for ax in grid[-1][1:]:
        ax.set_xlabel(STEP)
    handles = [Line2D([], [], color=METHOD_COLOURS[m], linestyle=LINES[m], label=m) for m in methods_of(quality)]
    if compared:
        handles += [Line2D([], [], color="0.5", alpha=alpha, label=text) for text, alpha in _SPACES.values()]
    if np.isfinite(quality["residual_upper"]).any():
        handles.append(Line2D([], [], color="0.5", linestyle=":", linewidth=0.7, label="bounds of the estimate"))
    legend_below(figure, handles, 1.7)
    head(figure, quality, f"{quality['pairs'].max():,} eigenpairs by each method")
    return figure


_SPACES = {
    "subspace_overlap_half": ("eigenspace of half the pairs", 1.0),
    "subspace_overlap": ("eigenspace of all pairs", 0.45),
}


def _eigenvalues(ax: Axes, quality: pd.DataFrame, eigenvalues: pd.DataFrame) -> None:
    last = eigenvalues[eigenvalues["time"] == eigenvalues["time"].max()]
    ax.set(xscale="log", yscale="log")
    for method in methods_of(last):
        here = last[last["method"] == method].assign(size=lambda rows: rows["eigenvalue"].abs())
        here = here[here["size"] > 0]
        draw_over_seeds(ax, here, "size", "rank", color=METHOD_COLOURS[method], linestyle=LINES[method])
    log_ticks(ax.yaxis, *ax.get_ylim())
    log_ticks(ax.xaxis, 1, last["rank"].max())


def _errors(ax: Axes, quality: pd.DataFrame, eigenvalues: pd.DataFrame) -> None:
    known = quality.dropna(subset=["eigenvalue_error"])
    ax.set_yscale("log")
    for method in methods_of(known):
        here = known[(known["method"] == method) & (known["eigenvalue_error"] > 0)]
        draw_over_seeds(ax, here, "eigenvalue_error", "time", color=METHOD_COLOURS[method], linestyle=LINES[method])
    step_axis(ax.xaxis, quality["time"])
    log_ticks(ax.yaxis, *ax.get_ylim())


def _overlaps(ax: Axes, quality: pd.DataFrame, eigenvalues: pd.DataFrame) -> None:
    known = quality.dropna(subset=["subspace_overlap"])
    for method in methods_of(known):
        here = known[known["method"] == method]
        look = {"color": METHOD_COLOURS[method], "linestyle": LINES[method]}
        for column, (_, alpha) in _SPACES.items():
            draw_over_seeds(ax, here, column, "time", alpha=alpha, **look)
    ax.set_ylim(-0.03, 1.05)
    step_axis(ax.xaxis, quality["time"])


def _residuals(ax: Axes, quality: pd.DataFrame, eigenvalues: pd.DataFrame) -> None:
    ax.set_yscale("log")
    for method in methods_of(quality):
        here = quality[quality["method"] == method]
        draw_over_seeds(ax, here, "residual_squared", "time", color=METHOD_COLOURS[method], linestyle=LINES[method])
        bounds = here[np.isfinite(here["residual_upper"]) & (here["residual_lower"] > 0)]
        if len(bounds):
            low, high = (over_seeds(bounds, f"residual_{end}", "time")["mean"] for end in ("lower", "upper"))
            for end in (low, high):
                ax.plot(end.index, end, color=METHOD_COLOURS[method], linestyle=":", linewidth=0.7)
    step_axis(ax.xaxis, quality["time"])
    log_ticks(ax.yaxis, *ax.get_ylim())
