"""Figure 4 of Papyan 2018: the test Hessian beside its two components, and the tails of the residual."""

import textwrap

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hessketch.figures import style
from hessketch.figures.curves import (
    DENSITY,
    EIGENVALUE,
    density_limits,
    draw_density,
    finest,
    log_ticks,
    mark_eigenvalues,
    one_eigenvalue,
    spectrum_title,
)
from hessketch.studies.spectra import first_seed, select

_OPERATORS = ("hessian", "ggn", "residual")
_SIDES = ((1, "positive", "#000000"), (-1, "|negative|", "#D55E00"))


@style.styled
def figure4(
    density: pd.DataFrame,
    eigenvalues: pd.DataFrame,
    tails: pd.DataFrame,
    dataset: str,
    network: str,
    examples_per_class: int,
) -> Figure:
    """Test Hessian, GGN and residual of one run (Papyan 2018, Figure 4; its covariance of gradients is the GGN).

    (a) linear and (b) logarithmic eigenvalues, the deflated ones as stems at the height of one eigenvalue;
    (c) the three over the range of the residual; (d) the residual's two tails on logarithmic axes with the fits in
    `tails`. The residual is drawn without deflation, the others with it where there is one.
    """
    cell = {"dataset": dataset, "network": network, "examples_per_class": examples_per_class, "split": "test"}
    curves = finest(first_seed(select(density, **cell, estimator="lanczos")))
    curves = {operator: select(curves, operator=operator) for operator in _OPERATORS}
    marks = first_seed(select(eigenvalues, **cell)) if len(eigenvalues) else eigenvalues
    fits = first_seed(select(tails, **cell, operator="residual", deflated=False))
    figure = style.new_figure(7.0, 6.6)
    halves = figure.add_gridspec(2, 1, height_ratios=(1.3, 1.0))
    stacks = halves[0].subgridspec(3, 2).subplots(sharex="col", sharey=True, squeeze=False)
    [[zoom, tail]] = halves[1].subgridspec(1, 2).subplots(squeeze=False)
    _draw_stack(stacks[:, 0], curves, marks)
    _draw_stack(stacks[:, 1], curves, marks)
    _set_logarithmic(stacks[:, 1], curves, marks)
    stacks[0, 0].set_title("(a)")
    stacks[0, 1].set_title("(b) positive eigenvalues")
    _draw_zoom(zoom, curves)
    _draw_tails(tail, curves["residual"], fits)
    figure.suptitle(f"{style.network_name(network)}, {spectrum_title(curves['residual'])}, test examples", fontsize=9)
    return figure


def _draw_stack(axes: np.ndarray, curves: dict[str, pd.DataFrame], marks: pd.DataFrame) -> None:
    limits = density_limits(pd.concat(curves.values()))
    for ax, (operator, curve) in zip(axes, curves.items(), strict=True):
        draw_density(ax, curve, style.COLOURS[operator])
        values = marks["eigenvalue"][marks["operator"] == operator]
        mark_eigenvalues(ax, values, style.COLOURS[operator], one_eigenvalue(curve))
        ax.set_ylim(limits)
        ax.text(0.98, 0.92, style.NAMES[operator], transform=ax.transAxes, ha="right", va="top", fontsize=8)
    axes[-1].set_xlabel(EIGENVALUE)
    axes[1].set_ylabel(DENSITY)


def _set_logarithmic(axes: np.ndarray, curves: dict[str, pd.DataFrame], marks: pd.DataFrame) -> None:
    """A logarithmic eigenvalue axis that begins at the least broadening: below it there is only the kernel."""
    low = min(curve["broadening"].iloc[0] for curve in curves.values())
    high = max(curve["eigenvalue"].max() for curve in curves.values())
    high = max(high, marks["eigenvalue"].max()) if len(marks) else high
    for ax in axes:
        ax.set(xscale="log", xlim=(low, 1.3 * high), ylabel="")
        log_ticks(ax.xaxis, low, 1.3 * high)


def _draw_zoom(ax: Axes, curves: dict[str, pd.DataFrame]) -> None:
    for operator, curve in curves.items():
        draw_density(ax, curve, style.COLOURS[operator], style.NAMES[operator])
    limits = curves["residual"]["eigenvalue"].agg(["min", "max"])
    ax.set(title="(c) bulk", xlabel=EIGENVALUE, ylabel=DENSITY, xlim=tuple(limits))
    ax.set_ylim(density_limits(pd.concat(curves.values()), headroom=0.2))
    ax.legend(loc="upper center", ncols=3)


def _draw_tails(ax: Axes, curve: pd.DataFrame, fits: pd.DataFrame) -> None:
    unfitted = []
    for sign, name, colour in _SIDES:
        side = curve[sign * curve["eigenvalue"] > 0]
        draw_density(ax, side.assign(eigenvalue=side["eigenvalue"].abs()), colour, name)
        fit = fits[fits["sign"] == sign]
        if len(fit):
            _draw_fits(ax, fit.iloc[0], colour)
        unfitted += [f"{name}: no fit, {reason}" for reason in fit["reason"] if reason]
    limits = curve["broadening"].iloc[0], curve["eigenvalue"].abs().max()
    ax.set(title="(d) residual", xscale="log", xlim=limits, xlabel=f"|{EIGENVALUE}|")
    ax.set(ylabel=DENSITY, ylim=density_limits(curve, headroom=0.35))
    log_ticks(ax.xaxis, *limits)
    notes = "\n".join(textwrap.fill(line, 28) for line in unfitted)
    ax.text(0.03, 0.97, notes, transform=ax.transAxes, va="top", fontsize=6, color="0.3")
    ax.legend(loc="upper right", fontsize=6)


def _draw_fits(ax: Axes, fit: pd.Series, colour: str) -> None:
    """The power law and the Marchenko-Pastur density of one side, over the range that they were fitted to."""
    if np.isfinite(fit["exponent"]):
        x = np.geomspace(fit["lower"], fit["upper"], 100)
        law = rf"${_power_of_ten(fit['coefficient'])}\,|\lambda|^{{-{fit['exponent']:.1f}}}$"
        power = fit["coefficient"] * x ** -fit["exponent"]
        ax.plot(x, power, "--", color=colour, label=f"{law}, $R^2$ = {fit['r_squared']:.2f}")
    if np.isfinite(fit["mp_r_squared"]):
        a, b = fit["mp_lower_edge"], fit["mp_upper_edge"]
        x = np.geomspace(fit["lower"], fit["upper"], 100)
        scale = fit["mp_mass"] * 2.0 / (np.pi * (np.sqrt(b) - np.sqrt(a)) ** 2)
        label = f"Marchenko-Pastur, $R^2$ = {fit['mp_r_squared']:.2f}"
        ax.plot(x, scale * np.sqrt((b - x) * (x - a)) / x, ":", color=colour, label=label)


def _power_of_ten(value: float) -> str:
    exponent = int(np.floor(np.log10(value)))
    return rf"{value / 10.0**exponent:.1f}\times 10^{{{exponent}}}"
