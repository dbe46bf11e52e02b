"""Parts that the figures of sketched training share: how a trainer looks, axes of reductions, legends, titles."""

from collections.abc import Iterable, Sequence
from typing import TypeVar

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, NullLocator

from hessketch.figures import style
from hessketch.studies.sharper_sketching import in_order, one_cell
from hessketch.trainers import FEDERATED

Number = TypeVar("Number", bound=float)

_NAMES = ("uncompressed", "Count-Sketch", "local top-$r$", "FetchSGD")
_COLOURS = ("0.2", *(style.SETTINGS["axes.prop_cycle"].by_key()["color"][:3]))
NAMES = style.Looks(dict(zip(FEDERATED, _NAMES, strict=True)), style.own_name)
COLOURS = style.Looks(dict(zip(FEDERATED, _COLOURS, strict=True)), style.own_colour)
_MARKERS = style.Looks(dict(zip(FEDERATED, "Dos^", strict=True)), style.own_marker)
_LIGHTEST = 0.55  # share of white in the lightest shade of a method's colour
_APART = 0.13  # of the length of an axis: labels of four digits do not touch
_ROW = 0.045  # height of a row of crosses, in that of its panel
DIVERGED = {"marker": "x", "linestyle": "none", "markersize": 4.5, "markeredgewidth": 1.1}


def look(method: str, error_feedback: bool) -> dict[str, object]:
    """Line and marker of a method: filled and solid without error feedback, open and dashed with it."""
    colour = COLOURS[method]
    return {
        "color": colour,
        "marker": _MARKERS[method],
        "markersize": 4.5,
        "markerfacecolor": "white" if error_feedback else colour,
        "linestyle": "--" if error_feedback else "-",
        "label": named(method, error_feedback),
    }


def named(method: str, error_feedback: bool, reduction: float = np.nan) -> str:
    """`Count-Sketch, error feedback`, and its reduction where one is given: `, 100x` (with the sign of a product)."""
    words = NAMES[method] + (", error feedback" if error_feedback else "")
    return words if np.isnan(reduction) else f"{words}, {factor(reduction)}"


def factor(reduction: float) -> str:
    """`2.5` and the sign of a product."""
    return f"{reduction:.4g}\N{MULTIPLICATION SIGN}"


def methods(frame: pd.DataFrame) -> list[tuple[str, bool, pd.DataFrame]]:
    """Method, error feedback and rows of each line of a figure over reductions, in the order of the legends."""
    groups = in_order(frame).groupby(["method", "error_feedback"], sort=False)
    return [(*key, rows) for key, rows in groups]


def trainer_looks(frame: pd.DataFrame) -> dict[str, dict[str, object]]:
    """Line, colour and label of each trainer (by its label) where reductions of one method share a panel.

    The larger the reduction, the lighter the method's colour.
    """
    looks: dict[str, dict[str, object]] = {}
    for method, error_feedback, rows in methods(frame):
        reductions = sorted(rows["reduction"].unique())
        for i, reduction in enumerate(reductions):
            white = _LIGHTEST * i / max(len(reductions) - 1, 1)
            colour = tuple((1 - white) * part + white for part in to_rgb(COLOURS[method]))
            here = rows["reduction"].isna() if np.isnan(reduction) else rows["reduction"] == reduction
            looks[rows.loc[here, "trainer"].iloc[0]] = {
                "color": colour,
                "linestyle": "--" if error_feedback else "-",
                "label": named(method, error_feedback, reduction),
            }
    return looks


def evenly(values: Iterable[Number], count: int) -> list[Number]:
    """At most `count` of the distinct values, the least and the largest among them."""
    present = sorted(set(values))
    count = min(count, len(present))
    return [present[round(i * (len(present) - 1) / max(count - 1, 1))] for i in range(count)]


def ticks_at(axis: Axis, values: Iterable[float]) -> None:
    """Ticks of a logarithmic axis at values that occur (2.5, 10, 1000), but for those whose labels would touch."""
    present = sorted(set(values))
    gap = (present[-1] / present[0]) ** _APART
    kept = present[:1]
    for value in present[1:]:
        if value > gap * kept[-1]:
            kept.append(value)
    axis.set_major_locator(FixedLocator(kept))
    axis.set_major_formatter("{x:.4g}")
    axis.set_minor_locator(NullLocator())


def title(frame: pd.DataFrame, what: str) -> str:
    """`CIFAR10, ResNet18: what`; raises InputError where the rows are none or of several cells."""
    row = one_cell(frame, what).iloc[0]
    name = f"{style.dataset_name(row['dataset'])}, {style.network_name(row['network'])}"
    name += "" if row["loss"] == "cross_entropy" else f", {row['loss'].replace('_', ' ')}"
    name += f", label noise {row['label_noise']:g}" if row["label_noise"] else ""
    return f"{name}: {what}"


def head(figure: Figure, name: str) -> None:
    """Heads a figure with a `title`, in two lines where the figure is narrow."""
    figure.suptitle(name if figure.get_figwidth() > 5 else name.replace(": ", "\n"), fontsize=9)


def draw_crosses(ax: Axes, x: Sequence[float], colour: object, row: int) -> None:
    """Crosses where runs diverged, in a row above the horizontal axis; `make_room` keeps points out of the rows."""
    ax.plot(x, [0.035 + _ROW * row] * len(x), color=colour, transform=ax.get_xaxis_transform(), **DIVERGED)


def make_room(ax: Axes, rows: int) -> None:
    """Lowers the lower end of the vertical axis so far that rows of crosses have a place below everything drawn."""
    low, high = ax.get_ylim()
    share = _ROW * rows
    if ax.get_yscale() == "log":
        ax.set_ylim(low * (low / high) ** (share / (1 - share)), high)
    else:
        ax.set_ylim(low - (high - low) * share / (1 - share), high)


def legend_below(figure: Figure, looks: Sequence[dict[str, object]], columns: int, diverged: bool = False) -> None:
    """One legend for the whole figure, under its panels; `diverged` adds the cross."""
    handles = [Line2D([], [], **one) for one in looks]
    if diverged:
        handles.append(Line2D([], [], color="0.4", label="diverged", **DIVERGED))
    figure.legend(handles=handles, loc="outside lower center", ncols=min(columns, len(handles)))
