"""Parts that the spectrum figures share: density curves, marks at eigenvalues, limits, titles."""

import math

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from hessketch.figures import style

DENSITY = "spectral density"
EIGENVALUE = "eigenvalue"


def finest(curves: pd.DataFrame) -> pd.DataFrame:
    """Of each spectrum the deflated curve where there is one, else the raw one."""
    keys = ["dataset", "network", "examples_per_class", "split", "operator"]
    return curves[curves["deflated"] == curves.groupby(keys)["deflated"].transform("any")]


def one_eigenvalue(curves: pd.DataFrame) -> float:
    """Height at which the density of one eigenvalue among p peaks: 1 / (p broadening sqrt(2 pi)); the least of all."""
    return float((1.0 / (curves["p"] * curves["broadening"] * math.sqrt(2.0 * math.pi))).min())


def density_limits(curves: pd.DataFrame, headroom: float = 0.05) -> tuple[float, float]:
    """Vertical limits that show all the curves, with a share of the (logarithmic) height left free above them.

    The lower one is a factor 30 below the height of one eigenvalue: what is lower are tails of the kernel.
    """
    bottom, top = one_eigenvalue(curves) / 30.0, float(curves["density"].max())
    return bottom, top * (top / bottom) ** (headroom / (1.0 - headroom))


def draw_density(ax: Axes, curve: pd.DataFrame, colour: object, label: str | None = None, linestyle: str = "-") -> None:
    """One density on a logarithmic axis, with a band of one standard error where it is finite."""
    curve = curve.sort_values("eigenvalue")
    x, density, error = (curve[name].to_numpy() for name in ("eigenvalue", "density", "density_standard_error"))
    hidden = density_limits(curve)[0] / 1000.0  # zeros have no logarithm: the line leaves the panel there
    ax.set_yscale("log")
    ax.xaxis.set_major_locator(MaxNLocator(6))
    ax.plot(x, np.maximum(density, hidden), color=colour, label=label, linestyle=linestyle)
    if np.isfinite(error).all():
        low, high = np.maximum(density - error, hidden), np.maximum(density + error, hidden)
        ax.fill_between(x, low, high, color=colour, alpha=0.25, linewidth=0)


def log_ticks(axis: Axis, low: float, high: float) -> None:
    """Labels of a logarithmic axis that do not run into each other, be its range a factor of two or many decades."""
    if high < 50.0 * low:
        axis.set_major_locator(MaxNLocator(5) if high < 5.0 * low else LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())


def mark_eigenvalues(ax: Axes, values: pd.Series, colour: object, height: float | None = None) -> None:
    """Triangles on the horizontal axis at single eigenvalues; with `height`, a stem up to it too."""
    if values.empty:  # an empty unclipped line would count as a point at the figure's corner in the layout
        return
    if height is not None:
        ax.vlines(values, 1e-300, height, color=colour, linewidth=0.6)
    ax.plot(
        values,
        np.full(len(values), 0.015),
        linestyle="none",
        marker="^",
        markersize=4.5,
        markerfacecolor=colour,
        markeredgewidth=0,
        transform=ax.get_xaxis_transform(),
        clip_on=False,
        zorder=5,
    )


def spectrum_title(rows: pd.DataFrame, letter: str = "") -> str:
    """`(a) MNIST, 5000 per class` and below it n and p, of the spectrum that the rows belong to."""
    row = rows.iloc[0]
    name = f"{style.dataset_name(row['dataset'])}, {row['examples_per_class']} per class"
    return f"{letter} {name}\n$n$ = {row['n']:,}, $p$ = {row['p']:,}".strip()


def letters(count: int) -> list[str]:
    """`(a)`, `(b)`, ... for 2 to 26 panels; nothing for one panel or for more."""
    return [f"({chr(ord('a') + i)})" if 1 < count <= 26 else "" for i in range(count)]
