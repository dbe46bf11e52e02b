"""The spectra of one model: one panel an operator."""

from typing import TYPE_CHECKING

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from hessketch.figures import style
from hessketch.figures.curves import DENSITY, EIGENVALUE, density_limits, draw_density, mark_eigenvalues

if TYPE_CHECKING:  # figures of tables do without torch
    from hessketch.curvature.operators import CurvatureOperator
    from hessketch.linalg.spectrum import Spectrum

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
    row = density.iloc[0]
    numbers = f"{row['split']}, $n$ = {row['n']:,}, $p$ = {row['p']:,}"
    return _panels(density, eigenvalues, f"{style.dataset_name(row['dataset'])}, {numbers}")


@style.styled
def spectra_figure(*found: "tuple[CurvatureOperator, Spectrum]", title: str = "") -> Figure:
    """Spectral density of operators of one network of your own, leading eigenvalues marked: one panel an operator.

        spectra_figure((operator, fast_spectrum(operator, FastSettings(), generator)))

    `title` stands before the numbers of examples and parameters of the first.
    """
    from hessketch.curvature.tables import density_table, eigenvalues_table

    density = [density_table(spectrum).assign(operator=of.name, p=of.shape[0]) for of, spectrum in found]
    eigenvalues = [eigenvalues_table(spectrum).assign(operator=of.name) for of, spectrum in found]
    first = found[0][0]
    numbers = f"$n$ = {first.examples:,}, $p$ = {first.shape[0]:,}"
    return _panels(pd.concat(density), pd.concat(eigenvalues), ", ".join(filter(None, [title, numbers])))


def _panels(density: pd.DataFrame, eigenvalues: pd.DataFrame, title: str) -> Figure:
    raw = density[~density["deflated"]]
    operators = style.operators_in(raw["operator"])
    figure, axes = style.wrapped_grid(len(operators), columns=1, panel=(4.2, 2.0))
    for ax, operator in zip(axes, operators, strict=True):
        _draw_operator(ax, raw[raw["operator"] == operator], operator)
        mark_eigenvalues(ax, eigenvalues["eigenvalue"][eigenvalues["operator"] == operator], style.COLOURS[operator])
    figure.suptitle(title, fontsize=9)
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
