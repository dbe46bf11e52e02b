"""Parts that the figures of over-parametrized networks share: sorted spectra, colours of stages, heads, time axes."""

from collections.abc import Iterable

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from hessketch.figures import style
from hessketch.figures.sgd_dynamics_marks import count_text, head, over_seeds, step_axis
from hessketch.studies.spectra import require_one

STAGES = {
    "initial": {"color": "0.55", "label": "at initialisation"},
    "trained": {"color": style.COLOURS["hessian"], "label": "after training"},
}
"""Looks of the first and the last checkpoint."""
NAMES = {**style.NAMES, "output_gradients": "output gradients"}
COLOURS = {**style.COLOURS, "output_gradients": style.COLOURS["second_moment"]}
MARKERS = {**style.MARKERS, "output_gradients": {"marker": "D", "markersize": 4, "markerfacecolor": "none"}}
_HELD = ("label_noise", "examples_per_class", "loss", "trainer")


def one_setting(frame: pd.DataFrame, what: str, *columns: str) -> None:
    """Raises InputError that names `what` where rows are none, or of several settings, or values of `columns`."""
    require_one(frame, (*_HELD, *columns), what, "choose a data set and network by of_data")


def examples(frame: pd.DataFrame) -> str:
    """`$n$ = 500, 10 classes` of the rows of one data set."""
    row = frame.iloc[0]
    return f"$n$ = {row['n']:,}, {row['classes']} classes"


def headed(figure: Figure, frame: pd.DataFrame, what: str) -> None:
    """Heads a figure of several networks: the data set, then its size and what is drawn."""
    head(figure, frame, f"{examples(frame)}: {what}", model=False)


def time_axis(ax: Axes, rows: pd.DataFrame) -> None:
    """A logarithmic axis of steps or rounds with a place for 0, and its label."""
    step_axis(ax.xaxis, rows["time"])
    ax.set_xlabel(f"{rows['kind'].iloc[0]} (0: initialisation)")


def thinned(ranks: Iterable[int], most: int = 400) -> list[int]:
    """Of ranks 1 to p those that a line needs: all of the first and the last, the others evenly and by their logarithm.

    A drawing of tens of thousands of points is large and looks the same.
    """
    ranks = np.sort(np.fromiter(set(ranks), dtype=np.int64))
    if len(ranks) <= most:
        return ranks.tolist()
    quarter, last = most // 4, len(ranks) - 1
    evenly = np.linspace(0, last, quarter).round()
    places = np.r_[np.arange(quarter), np.geomspace(1, last, quarter).round(), evenly, last - np.arange(quarter)]
    return ranks[np.unique(places).astype(int)].tolist()


def draw_sorted(ax: Axes, rows: pd.DataFrame, share: bool, **looks: object) -> None:
    """Eigenvalues of one operator and network against rank, or rank over p: mean over seeds, a band of one error."""
    shown = rows[rows["rank"].isin(thinned(rows["rank"]))]
    values = over_seeds(shown, "eigenvalue", "rank")
    x = values.index / rows["p"].iloc[0] if share else values.index
    ax.plot(x, values["mean"], **looks)
    if values["sem"].notna().any():
        low, high = values["mean"] - values["sem"], values["mean"] + values["sem"]
        ax.fill_between(x, low, high, color=looks["color"], alpha=0.2, linewidth=0)


def size_colours(sizes: Iterable[int]) -> dict[int, tuple[float, ...]]:
    """A colour for each number of parameters, by its logarithm; the scale's bright end, hard to see, is left out."""
    sizes = sorted(set(sizes))
    norm = LogNorm(sizes[0], sizes[-1] * (sizes[-1] / sizes[0]) ** 0.2 if sizes[-1] > sizes[0] else 2 * sizes[0])
    return dict(zip(sizes, style.scale_colours(sizes, norm), strict=True))


def size_handles(colours: dict[int, object]) -> list[Line2D]:
    """Legend entries of `size_colours`."""
    return [Line2D([], [], color=colour, label=f"$p$ = {count_text(p)}") for p, colour in colours.items()]
