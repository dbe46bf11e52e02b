"""Parts that the figures of Hessian eigenspaces share: how methods, masks and chance levels look, panels, axes of k."""

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from hessketch.figures import style
from hessketch.figures.curves import log_ticks
from hessketch.figures.sgd_dynamics_marks import (
    STEP,
    draw_over_seeds,
    headed_grid,
    one_network,
    over_seeds,
    shades,
    step_axis,
)
from hessketch.studies.eigenspaces import METHODS
from hessketch.studies.sgd_dynamics import landmarks
from hessketch.studies.spectra import require_one

CYCLE = style.SETTINGS["axes.prop_cycle"].by_key()["color"]
LINES = dict(zip(METHODS, ("-", (0, (4, 1.5)), (0, (1, 1))), strict=True))
_SHADES = (0, 3, 2)
SPLIT_NAMES = {"train": "Hessian on training examples", "test": "Hessian on test examples"}
MASK_LOOKS = {
    "magnitude": {"color": CYCLE[0], "label": "largest magnitudes"},
    "magnitude_by_layer": {"color": CYCLE[1], "label": "largest of each layer"},
    "best": {"color": CYCLE[2], "label": "best of size $k$"},
}
LEVEL_LOOKS = {
    "chance": {"color": "0.3", "linestyle": ":", "label": r"random mask, $k/p$"},
    "chance_by_layer": {"color": CYCLE[3], "linestyle": "-.", "label": "random, layers as the mask's"},
    "chance_live": {"color": CYCLE[4], "linestyle": "--", "label": "random, live parameters"},
}
_CHOSEN = ("label_noise", "trainer")
_BELOW = 0.01


def one_setting(frame: pd.DataFrame, what: str) -> None:
    """As `one_network`, and of one label noise and trainer."""
    one_network(frame, what)
    require_one(frame, _CHOSEN, what, "select it")


def splits_of(frame: pd.DataFrame) -> list[str]:
    """Splits of a table, train first."""
    return [split for split in SPLIT_NAMES if (frame["split"] == split).any()]


def methods_of(frame: pd.DataFrame) -> list[str]:
    """Methods of a table in the order of METHODS."""
    return [method for method in METHODS if (frame["method"] == method).any()]


def split_panels(frame: pd.DataFrame, label: str) -> tuple[Figure, list[tuple[Axes, pd.DataFrame]]]:
    """A panel a split side by side over steps; [(axes, rows of the panel)]."""
    splits = splits_of(frame)
    figure, [axes] = headed_grid(1, len(splits), (4.4 if len(splits) == 1 else 3.3, 2.4), sharey=True)
    for ax, split in zip(axes, splits, strict=True):
        ax.set_title(SPLIT_NAMES[split])
        ax.set_xlabel(STEP)
        step_axis(ax.xaxis, frame["time"])
    axes[0].set_ylabel(label)
    return figure, [(ax, frame[frame["split"] == split]) for ax, split in zip(axes, splits, strict=True)]


def landmark_panels(frame: pd.DataFrame, label: str) -> tuple[Figure, list[tuple[Axes, pd.DataFrame]]]:
    """A row a split and a column each the first, the middle and the last checkpoint, log-log against k."""
    splits, steps = splits_of(frame), landmarks(frame["time"])
    width = {1: 4.4, 2: 3.3}.get(len(steps), 2.6)
    figure, grid = headed_grid(len(splits), len(steps), (width, 2.1), sharex=True, sharey=True)
    for row, split in zip(grid, splits, strict=True):
        row[0].set_ylabel(f"{SPLIT_NAMES[split].removeprefix('Hessian on ')}\n{label}")
    for ax, step in zip(grid[0], steps, strict=True):
        ax.set_title(f"step {step:,}")
    panels = []
    for row, split in zip(grid, splits, strict=True):
        for ax, step in zip(row, steps, strict=True):
            ax.set(xscale="log", yscale="log")
            panels.append((ax, frame[(frame["split"] == split) & (frame["time"] == step)]))
    for ax in grid[-1]:
        ax.set_xlabel("$k$")
    return figure, panels


def finish_axes_of_k(panels: Sequence[tuple[Axes, pd.DataFrame]], ks: pd.Series, least: float) -> None:
    """Ticks and limits of the log-log panels whose data is drawn now.

    `least` is the least chance level: what is below a hundredth of it leaves the panel, as the overlap of one or two
    parameters may be by ten decades.
    """
    low, high = panels[0][0].get_ylim()
    panels[0][0].set_ylim(max(low, _BELOW * least), high)
    for ax, _ in panels:
        log_ticks(ax.xaxis, ks.min(), ks.max())
        log_ticks(ax.yaxis, *ax.get_ylim())


def draw_methods(ax: Axes, rows: pd.DataFrame, column: str, x: str, colour: object) -> None:
    """A line a method, each with its band over seeds."""
    for method, look in method_looks(rows, colour).items():
        draw_over_seeds(ax, rows[rows["method"] == method], column, x, **look)


def method_looks(frame: pd.DataFrame, colour: object) -> dict[str, dict[str, object]]:
    """Line and shade of each method of a table: after the first lighter ones, since they often lie on its line."""
    present = methods_of(frame)
    tones = [shades(colour, 4)[shade] for shade in _SHADES[: len(present)]]
    return {method: {"color": tone, "linestyle": LINES[method]} for method, tone in zip(present, tones, strict=True)}


def draw_level(ax: Axes, rows: pd.DataFrame, level: str, x: str, over: str | None = None) -> None:
    """A chance level, of the column `over` where one is given, and a band of one standard deviation of random masks."""
    unit = rows[over] if over else 1.0
    scaled = rows.assign(level=rows[level] / unit, spread=rows[f"{level}_sd"] / unit)
    middle, spread = over_seeds(scaled, "level", x)["mean"], over_seeds(scaled, "spread", x)["mean"]
    look = LEVEL_LOOKS[level]
    ax.plot(middle.index, middle, color=look["color"], linestyle=look["linestyle"])
    if len(spread):
        low = middle - spread
        low = low.clip(lower=middle / 10) if ax.get_yscale() == "log" else low
        ax.fill_between(middle.index, low, middle + spread, color=look["color"], alpha=0.15, linewidth=0)


def present_levels(frame: pd.DataFrame) -> list[str]:
    """Chance levels of which the table knows a value; that of live parameters only where some are not."""
    known = [level for level in LEVEL_LOOKS if frame[level].notna().any()]
    return [level for level in known if level != "chance_live" or (frame["live"] < frame["p"]).any()]


def level_handles(frame: pd.DataFrame) -> list[Line2D]:
    return [Line2D([], [], **LEVEL_LOOKS[level]) for level in present_levels(frame)]


def method_handles(frame: pd.DataFrame, colour: object, what: str) -> list[Line2D]:
    """Entries `WHAT, exact`, `WHAT, sketched`."""
    looks = method_looks(frame, colour)
    return [Line2D([], [], label=f"{what}, {method}", **look) for method, look in looks.items()]
