"""The GGN's spectrum with the eigenvalues of its parts, their match, and the class means (Papyan 2019).

Tables are of one data set, network and training-set size (`studies.outlier_hierarchy.of_network`).
"""

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from hessketch.errors import InputError
from hessketch.figures import style
from hessketch.figures.curves import DENSITY, EIGENVALUE, density_limits, log_ticks
from hessketch.figures.sgd_dynamics_marks import draw_over_seeds, head, headed_grid, legend_below
from hessketch.studies.outlier_hierarchy import EXPLAINING, PARTS
from hessketch.studies.spectra import require_one

_PALETTE = sns.color_palette("colorblind")
COLOURS = dict(zip(PARTS, (style.COLOURS["ggn"], *(_PALETTE[i] for i in (0, 1, 2, 4, 7))), strict=True))
MARKERS = {"G1": {"marker": "o", "markerfacecolor": "none", "markersize": 5}, "G1+2": {"marker": "x", "markersize": 4}}
NAMES = {
    "G": "$G$",
    "G1": "$G_1$: class means",
    "G2": "$G_2$: spread of cross-class means",
    "G1+2": "$G_1 + G_2$",
    "G0": "$G_0$: true classes",
    "G3": "$G_3$: examples around means",
}
_SHORT = {part: name.partition(":")[0] for part, name in NAMES.items()}
_DECADES = 4
_LUMINANCE = (0.299, 0.587, 0.114)
"""Of red, green and blue, as an eye sees them."""
_KEYS = ("dataset", "network", "label_noise", "examples_per_class", "loss")


def _one_network(frame: pd.DataFrame, what: str) -> pd.DataFrame:
    """The rows as given. Raises InputError for none, or those of several settings."""
    require_one(frame, _KEYS, what, "choose a data set, network and size by of_network")
    return frame


def _first_seed(frame: pd.DataFrame) -> pd.DataFrame:
    return frame[frame["seed"] == frame["seed"].min()]


@style.styled
def hierarchy(density: pd.DataFrame, parts: pd.DataFrame) -> Figure:
    """Spectral density of G on a logarithmic axis; below it the eigenvalues of G and of its parts, a row each.

    Of several seeds the first is drawn. Values of zero or below, and beyond four decades below the largest, have no
    place. Shaded is what is narrower than the density's kernel, where its height says nothing of places.
    """
    parts = _first_seed(_one_network(parts, "hierarchy"))
    curve = _first_seed(_one_network(density, "hierarchy")).sort_values("eigenvalue")
    figure = style.new_figure(5.0, 4.2)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 2])
    top = max(parts["eigenvalue"].max(), curve["eigenvalue"].max())
    low = max(top * 10.0**-_DECADES, 0.5 * parts.loc[parts["eigenvalue"] > 0, "eigenvalue"].min())
    shown = curve[curve["eigenvalue"] >= low]
    bottom = density_limits(curve)[0]
    above.plot(shown["eigenvalue"], np.maximum(shown["density"], bottom / 1000), color=COLOURS["G"])
    above.axvspan(low, max(low, curve["broadening"].iloc[0]), color="0.93", zorder=0)
    above.set(xscale="log", yscale="log", ylabel=f"{DENSITY} of $G$", xlim=(low, 1.3 * top))
    above.set_ylim(bottom, 2 * max(shown["density"].max(), 2 * bottom))
    present = [part for part in PARTS if (parts["part"] == part).any()]
    for row, part in enumerate(present):
        values = parts.loc[parts["part"] == part, "eigenvalue"]
        values = values[values >= low]
        below.vlines(values, row - 0.38, row + 0.38, color=COLOURS[part], linewidth=0.9)
    below.set(yticks=range(len(present)), yticklabels=[NAMES[part] for part in present], xlabel=EIGENVALUE)
    below.set_ylim(len(present) - 0.4, -0.6)
    below.tick_params(axis="y", length=0)
    head(figure, parts, "the GGN and its parts by class means")
    return figure


@style.styled
def attribution(attributed: pd.DataFrame, matches: pd.DataFrame) -> Figure:
    """The largest eigenvalues of G against those of G1 and of G1 + G2, by value (left) and by rank (right).

    The C - 1 largest of every seed have large marks on the left, further ones small. Right: means over seeds, bands one
    standard error over them.
    """
    rows = _one_network(attributed, "attribution")
    classes = int(rows["classes"].iloc[0])
    figure, [[values, ranks]] = headed_grid(1, 2, (3.3, 2.4))
    for part in EXPLAINING:
        known = rows[(rows["G"] > 0) & (rows[part] > 0)]
        leading = known["rank"] < classes
        for chosen, size in ((leading, 5), (~leading, 2.5)):
            look = {**MARKERS[part], "markersize": size, "markeredgecolor": COLOURS[part]}
            values.plot(known[part][chosen], known["G"][chosen], linestyle="none", **look)
    _identity(values, rows[["G", *EXPLAINING]].to_numpy())
    values.set(xlabel="eigenvalue of the part", ylabel="eigenvalue of $G$", title="(a) rank by rank")
    for part in ("G", *EXPLAINING):
        positive = rows.assign(value=rows[part].where(rows[part] > 1e-9 * rows["G"].max()))
        draw_over_seeds(ranks, positive, "value", "rank", color=COLOURS[part], marker=".", markersize=4)
    ranks.axvline(classes - 0.5, color="0.3", linestyle=":", linewidth=0.8)
    ranks.set(yscale="log", xlabel="rank", ylabel=EIGENVALUE, title="(b) by rank")
    ranks.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    log_ticks(ranks.yaxis, *ranks.get_ylim())
    handles = [Line2D([], [], color=COLOURS[p], label=_SHORT[p], **MARKERS.get(p, {})) for p in ("G", *EXPLAINING)]
    handles.append(Line2D([], [], color="0.6", linewidth=0.8, label="equal"))
    handles.append(Line2D([], [], color="0.3", linestyle=":", linewidth=0.8, label="after $C - 1$"))
    legend_below(figure, handles, 1.1)
    head(figure, rows, _overlap_words(matches))
    return figure


def _identity(ax: Axes, values: np.ndarray) -> None:
    positive = values[np.isfinite(values) & (values > 1e-9 * np.nanmax(values))]
    if len(positive):
        ends = [positive.min() / 1.2, positive.max() * 1.2]
        ax.plot(ends, ends, color="0.6", linewidth=0.8, zorder=0)
        ax.set(xscale="log", yscale="log", xlim=ends, ylim=ends)
    log_ticks(ax.xaxis, *ax.get_xlim())
    log_ticks(ax.yaxis, *ax.get_ylim())


def _overlap_words(matches: pd.DataFrame) -> str:
    """The overlap of G's top C - 1 eigenspace with the class means, mean over seeds, beside chance."""
    known = matches[matches["k"] == matches["classes"] - 1].dropna(subset=["overlap"]) if len(matches) else matches
    if known.empty:
        return "outliers of the GGN against its class means"
    seeds = known.drop_duplicates("seed")["overlap"]
    spread = f" \N{PLUS-MINUS SIGN} {seeds.sem():.2f}" if len(seeds) > 1 else ""
    chance = known["chance"].iloc[0]
    return f"top $C - 1$ eigenspace of $G$ and class means: overlap {seeds.mean():.2f}{spread}, chance {chance:.1g}"


@style.styled
def embedding(means: pd.DataFrame) -> Figure:
    """Class means (large, numbered) and cross-class means (small) in a plane: PCA and t-SNE, coloured by true class.

    Left out are the terms of the true classes, which are no part of the hierarchy, and classes without examples. Of
    several seeds the first is drawn.
    """
    rows = _first_seed(_one_network(means, "embedding"))
    rows = rows[rows["other_class"] != rows["true_class"]].dropna(subset=["pca_1", "tsne_1"])
    if rows.empty:
        raise InputError("embedding: no class has a mean; measure a network with examples of its classes")
    classes = sorted(rows["true_class"].unique())
    bright = _PALETTE if len(classes) <= len(_PALETTE) else sns.color_palette("husl", len(classes))
    colours = dict(zip(classes, bright, strict=False))
    figure, [axes] = headed_grid(1, 2, (3.0, 2.8))
    for ax, method, name in zip(axes, ("pca", "tsne"), ("(a) principal components", "(b) t-SNE"), strict=True):
        for true_class in classes:
            own = rows[rows["true_class"] == true_class]
            cross, mean = own[own["other_class"] >= 0], own[own["other_class"] < 0]
            x, y = f"{method}_1", f"{method}_2"
            ax.plot(cross[x], cross[y], ".", color=colours[true_class], markersize=4)
            ax.plot(mean[x], mean[y], "o", color=colours[true_class], markersize=10, alpha=0.85)
            ink = "black" if np.dot(colours[true_class], _LUMINANCE) > 0.6 else "white"
            for place in mean[[x, y]].to_numpy():
                ax.annotate(str(true_class), place, ha="center", va="center", fontsize=6, color=ink, weight="bold")
        ax.set(title=name, xlabel="first coordinate", ylabel="second coordinate")
    _equal_scales(axes[0])
    handles = [
        Line2D([], [], color="0.4", marker="o", markersize=8, linestyle="none", label="mean of a class"),
        Line2D(
            [], [], color="0.4", marker=".", markersize=4, linestyle="none", label="cross-class mean: as if of another"
        ),
    ]
    legend_below(figure, handles, 2.4)
    head(figure, rows, "means of the output gradients, coloured by true class")
    return figure


def _equal_scales(ax: Axes) -> None:
    """Distances of principal components mean something: a unit is as long on both axes."""
    ax.set_aspect("equal", adjustable="datalim")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(5))
