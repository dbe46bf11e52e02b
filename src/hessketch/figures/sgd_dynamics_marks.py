"""Parts that the figures of SGD's dynamics share: axes of steps, panels of noise and batch size, colours, titles."""

import re
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis, XAxis, YAxis
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from hessketch.figures import style
from hessketch.studies.spectra import require_one

STEP = "step (0: initialisation)"
_LIGHTEST, _STEP = 0.6, 0.2  # share of white in the lightest shade of a rank, and between neighbours at most
_TICKS = 5
_AROUND = 0.8  # inches
_CHARACTER = 0.072  # inches, of the heading's font


def one_network(frame: pd.DataFrame, what: str) -> None:
    """Raises InputError that names `what` where the rows are none, or of several data sets, networks or sizes."""
    keys = ("dataset", "network", "loss", "examples_per_class")
    require_one(frame, keys, what, "choose a data set and network by of_network")


def head(figure: Figure, frame: pd.DataFrame, what: str, model: bool = True) -> None:
    """Heads a figure with the data set, the network (unless not `model`) and, below, what is drawn; lines fit."""
    row = frame.iloc[0]
    name = style.dataset_name(row["dataset"])
    if model:
        name += f", {style.network_name(row['network'])}, $n$ = {row['n']:,}, $p$ = {row['p']:,}"
    name += "" if row["loss"] == "cross_entropy" else f", {row['loss'].replace('_', ' ')}"
    fits = int(figure.get_figwidth() / _CHARACTER)
    lines = [line for text in (name, what) for line in _lines(text, fits)]
    figure.suptitle("\n".join(lines), fontsize=9)


def _lines(text: str, width: int) -> list[str]:
    """A text broken after commas and colons, where there are any, into lines of at most so many characters."""
    unbroken = re.sub(r"(?<![,:]) ", "\N{NO-BREAK SPACE}", text)
    lines = textwrap.wrap(unbroken, width, break_long_words=False, break_on_hyphens=False)
    return [line.replace("\N{NO-BREAK SPACE}", " ") for line in lines]


def headed_grid(rows: int, columns: int, panel: tuple[float, float], **options: object) -> tuple[Figure, list]:
    """`style.grid` with room above and below for `head` and `legend_below`: few rows are not the flatter for them."""
    figure, axes = style.grid(rows, columns, panel, **options)
    figure.set_figheight(rows * panel[1] + _AROUND)
    return figure, axes


def legend_below(figure: Figure, handles: Sequence[Artist], widest: float) -> None:
    """One legend under all panels, in as many columns as fit where the widest entry has so many inches."""
    columns = max(1, min(len(handles), int(figure.get_figwidth() / widest)))
    figure.legend(handles=handles, loc="outside lower center", ncols=columns)


def noise_text(noise: float) -> str:
    """`label noise 15 %`."""
    return f"label noise {100 * noise:g} %"


def batch_text(rows: pd.DataFrame) -> str:
    """`batch size 50`, and of the rows of a full batch `full batch (500)`."""
    row = rows.iloc[0]
    return f"full batch ({row['n']:,})" if row["batch_size"] == row["n"] else f"batch size {row['batch_size']:,}"


def shades(colour: object, count: int) -> list[tuple[float, ...]]:
    """`count` shades of a colour, itself first, ever more white after it."""
    white = np.linspace(0.0, min(_LIGHTEST, _STEP * (count - 1)), count)
    return [tuple((1 - share) * part + share for part in to_rgb(colour)) for share in white]


def noise_batch_panels(frame: pd.DataFrame, label: str, **options: object) -> tuple[Figure, list]:
    """A figure with a row a label noise and a column a batch size; [(axes, rows of the panel)], row by row.

    `label` is that of the vertical axes, below the noise; batch sizes stand in the titles. A place without rows has no
    panel. `options` go to `style.grid`.
    """
    noises, batches = sorted(frame["label_noise"].unique()), sorted(frame["batch_size"].unique())
    width = {1: 4.4, 2: 3.1}.get(len(batches), 2.5)
    figure, grid = headed_grid(len(noises), len(batches), (width, 2.0), sharex=True, **options)
    panels = []
    for i, noise in enumerate(noises):
        for j, batch in enumerate(batches):
            rows = frame[(frame["label_noise"] == noise) & (frame["batch_size"] == batch)]
            if len(rows):
                panels.append((grid[i][j], rows))
                continue
            grid[i][j].remove()
            grid[i][j] = None
    for row, noise in zip(grid, noises, strict=True):
        next(ax for ax in row if ax).set_ylabel(f"{noise_text(noise)}\n{label}")
    for column, batch in zip(zip(*grid, strict=True), batches, strict=True):
        present = [ax for ax in column if ax]
        present[0].set_title(batch_text(frame[frame["batch_size"] == batch]))
        present[-1].set_xlabel(STEP)
        present[-1].tick_params(labelbottom=True)
    for ax, _ in panels:
        step_axis(ax.xaxis, frame["step"])
    return figure, panels


def step_axis(axis: Axis, steps: Iterable[int]) -> None:
    """A logarithmic axis of steps on which step 0 has a place, one decade left of the least other step."""
    present = sorted(set(steps))
    positive = [step for step in present if step > 0] or [1]
    axis.axes.set_xscale("symlog", linthresh=positive[0], linscale=0.5)
    candidates = [10**k for k in range(12) if positive[0] <= 10**k <= positive[-1]]
    if len(candidates) < 2:
        candidates = [c * 10**k for k in range(12) for c in (1, 2, 5) if positive[0] <= c * 10**k <= positive[-1]]
    candidates = candidates[:: -(-len(candidates) // _TICKS)] if candidates else positive[-1:]
    axis.set_major_locator(FixedLocator([0] * (present[0] == 0) + candidates))
    axis.set_major_formatter(lambda value, _: count_text(value))
    axis.set_minor_locator(NullLocator())


def signed_log_axis(axis: XAxis | YAxis, values: Iterable[float], ticks: int = 7) -> None:
    """An axis that is logarithmic on both sides of a linear part around zero, for the given values.

    The linear part ends where a twentieth of the values are smaller, but not more than six decades below the largest.
    `ticks` is about how many labels fit.
    """
    numbers = np.asarray(list(values), dtype=float)
    numbers = numbers[np.isfinite(numbers)]
    sizes = np.abs(numbers[numbers != 0])
    if not len(sizes):
        return
    top = np.ceil(np.log10(sizes.max()))
    bottom = min(max(np.floor(np.log10(np.quantile(sizes, 0.05))), top - 6), top - 1)
    scale = axis.axes.set_xscale if axis.axis_name == "x" else axis.axes.set_yscale
    scale("symlog", linthresh=10.0**bottom, linscale=1.0)  # the linear part is as long as a decade on each side
    sides = 1 + bool(numbers.min() < 0 < numbers.max())
    apart = np.ceil(sides * (top - bottom + 1) / ticks)
    powers = 10.0 ** np.arange(bottom + apart - 1, top + 1, apart)
    axis.set_major_locator(FixedLocator([*-powers[::-1], 0.0, *powers]))
    axis.set_minor_locator(NullLocator())


def count_text(value: float) -> str:
    """A count of at most four characters or so: `353`, `9,030`, `11.2k`, `28.2M`."""
    if value < 1e4:
        return f"{value:,.0f}"
    return f"{value / 1e6:.3g}M" if value >= 1e6 else f"{value / 1e3:.3g}k"


def over_seeds(rows: pd.DataFrame, column: str, x: str = "step") -> pd.DataFrame:
    """Columns mean and sem (NaN with one seed) of a column's known values, by x."""
    return rows.dropna(subset=[column]).groupby(x)[column].agg(["mean", "sem"])


def draw_over_seeds(
    ax: Axes, rows: pd.DataFrame, column: str, x: str = "step", band: bool = True, **looks: object
) -> None:
    """Line of the means over seeds, with a band of one standard error where there are several and `band` is asked."""
    values = over_seeds(rows, column, x)
    marked = {"marker": ".", "markersize": 4} if len(values) < 3 else {}  # a line of one point is none
    ax.plot(values.index, values["mean"], **marked | looks)
    if band and values["sem"].notna().any():
        low, high = values["mean"] - values["sem"], values["mean"] + values["sem"]
        ax.fill_between(values.index, low, high, color=looks["color"], alpha=0.2, linewidth=0)


def by(frame: pd.DataFrame, column: str) -> Iterator[tuple[Any, pd.DataFrame]]:
    """Values of a column in order, each with its rows."""
    yield from frame.groupby(column, sort=True)
