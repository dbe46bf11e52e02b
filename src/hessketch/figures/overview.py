"""The spectra of one model: one panel an operator."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from hessketch.figures import style
from hessketch.figures.curves import DENSITY, EIGENVALUE, density_limits, draw_density, mark_eigenvalues

_KPM = {"color": "0.3", "linestyle": "--"}


@style.styled
def spectrum_overview(density: pd.DataFrame, eigenvalues: pd.DataFrame) -> Figure:
    """Raw spectral density of each operator of one model, eigenvalues of the deflation marked.

    Parameters
    ----------
    density : columns dataset, split, operator, n, p, estimator (`lanczos`, `kpm`), deflated, eigenvalue, density,
        density_standard_error, broadening; one model, no identity columns
    eigenvalues : columns operator, eigenvalue; may be empty
    """
    raw = density[~density["deflated"]]
    operators = [name for name in style.NAMES if (raw["operator"] == name).any()]
    figure, axes = style.wrapped_grid(len(operators), columns=1, panel=(4.2, 2.0))
    for ax, operator in zip(axes, operators, strict=True):
        _draw_operator(ax, raw[raw["operator"] == operator], operator)
        mark_eigenvalues(ax, eigenvalues["eigenvalue"][eigenvalues["operator"] == operator], style.COLOURS[operator])
    row = raw.iloc[0]
    numbers = f"{row['split']}, $n$ = {row['n']:,}, $p$ = {row['p']:,}"
    figure.suptitle(f"{style.dataset_name(row['dataset'])}, {numbers}", fontsize=9)
    axes[-1].set_xlabel(EIGENVALUE)
    if (raw["estimator"] == "kpm").any():
        methods = {"Lanczos": {"color": style.COLOURS[operators[0]]}, "Kernel Polynomial Method": _KPM}
        lines = [Line2D([], [], label=name, **look) for name, look in methods.items()]
        figure.legend(handles=lines, loc="outside lower center", ncols=2)
    return figure


def _draw_operator(ax: Axes, curves: pd.DataFrame, operator: str) -> None:
    lanczos = curves[curves["estimator"] == "lanczos"]
    draw_density(ax, lanczos, style.COLOURS[operator])
    kpm = curves[curves["estimator"] == "kpm"]
    if len(kpm):
        draw_density(ax, kpm, _KPM["color"], linestyle=_KPM["linestyle"])
    ax.set(title=style.NAMES[operator], ylabel=DENSITY, ylim=density_limits(lanczos, headroom=0.1))
