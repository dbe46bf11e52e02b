"""Spectral density of one example's predictor Hessian as training goes on (Shrivastava et al. 2024, Figures 3 to 23).

Tables of one data set and network (`studies.predictor_hessian.of_cell`), of all losses. Drawn is one example, the first
of the first seed. Over epochs every panel has axes of its own, since scales differ by orders of magnitude; over rounds
each spectrum is divided by its largest magnitude, so that all share theirs.
"""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from hessketch.figures import style
from hessketch.figures.curves import DENSITY, EIGENVALUE, density_limits, draw_density
from hessketch.figures.predictor_hessian_marks import (
    ESTIMATORS,
    estimator_of,
    federations,
    heading,
    legend_of_trainers,
    looks_with_rates,
    of_kind,
    trajectories,
)
from hessketch.figures.sharper_sketching_marks import evenly, legend_below
from hessketch.studies.predictor_hessian import SETUP

COLUMNS = 6
"""Times drawn, at most; of more, the first, the last and evenly chosen ones between."""
_WIDTHS = {1: 4.6, 2: 2.9, 3: 2.4}  # of a panel, in inches, by the number in a row
_HEIGHTS = {1: 3.0}  # by the number of rows; of more
_HEIGHT = 2.3
_FACTS = ["example_loss", "slope", "largest_magnitude"]


@style.styled
def density_over_epochs(density: pd.DataFrame, kappa: pd.DataFrame) -> Figure:
    """Log density of the predictor Hessian at each epoch (columns), by both estimators, a row a loss and trainer.

    Parameters
    ----------
    density, kappa : the raw tables (`studies.predictor_hessian.joined`); the second has each panel's loss and slope.
        Where one estimator alone was run, it alone is drawn

    Raises InputError where no epoch was measured.
    """
    curves = _with_facts(of_kind(density, "epoch", "density over epochs"), kappa)
    rows = [(name, *_first_example(group)) for name, group in trajectories(curves)]
    figure, panels = _panels(rows, heading(curves, _what(curves, rows)))
    for ax, place, curve in panels:
        for name, look in ESTIMATORS.items():
            _draw(ax, curve[curve["estimator"] == name], look | ({"alpha": 0.55} if name == "paper" else {}))
        _finish(ax, curve, f"epoch {place['time']}\n{_state(place)}")
    drawn = [look for name, look in ESTIMATORS.items() if (curves["estimator"] == name).any()]
    legend_below(figure, drawn, 2)
    return figure


@style.styled
def density_over_rounds(density: pd.DataFrame, kappa: pd.DataFrame) -> Figure:
    """Log density of the predictor Hessian over its largest magnitude at each kept round (columns), a row a loss.

    A line is a federated trainer; the legend names its learning rate. Divided so, the spectra are what kappa sums: a
    slope of the loss that is small, as of an example that has been learnt, leaves no trace. Tables as of
    `density_over_epochs`; drawn is the estimator `fast`, `paper` where it is the only one. Raises InputError where no
    round was measured, or where a trainer has several learning rates.
    """
    curves = of_kind(density, "round", "density over rounds")
    curves = _divided(_with_facts(curves[curves["estimator"] == estimator_of(curves)], kappa))
    rows = [(name, *_first_example(group)) for name, group in federations(curves)]
    looks = looks_with_rates(pd.concat([group for _, group, _ in rows]))
    figure, panels = _panels(rows, heading(curves, _what(curves, rows)))
    shown = pd.concat([curve for _, _, curve in panels])
    for ax, place, curve in panels:
        for trainer, look in looks.items():
            _draw(ax, curve[curve["trainer"] == trainer], look)
        _finish(ax, curve, f"round {place['time']}", shown)
        ax.set_xlabel(r"eigenvalue / max $|\lambda|$")
    legend_of_trainers(figure, list(looks.values()), 2 if len(looks) > 1 else 1)
    return figure


def _with_facts(curves: pd.DataFrame, kappa: pd.DataFrame) -> pd.DataFrame:
    """Curves with what `kappa` knows of their Hessian: the example's loss, its slope, the largest magnitude."""
    names = [*SETUP, "seed", "kind", "time", "example", "estimator"]
    return curves.merge(kappa[[*names, *_FACTS]], on=names, how="left")


def _divided(curves: pd.DataFrame) -> pd.DataFrame:
    """Curves on the axis eigenvalue / largest magnitude, where they still integrate to 1; NaN for a Hessian of zero."""
    scale = curves["largest_magnitude"].where(curves["largest_magnitude"] > 0)
    divided = {name: curves[name] / scale for name in ("eigenvalue", "broadening")}
    return curves.assign(**divided, **{name: curves[name] * scale for name in ("density", "density_standard_error")})


def _first_example(rows: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """Rows of the first example of the first seed, and its name."""
    rows = rows[rows["seed"] == rows["seed"].min()]
    rows = rows[rows["example"] == rows["example"].min()]
    return rows, f"example {rows['example'].iloc[0]}, label {rows['label'].iloc[0]}"


def _what(curves: pd.DataFrame, rows: list[tuple[str, pd.DataFrame, str]]) -> str:
    """What the figure shows, with the example and p where they are the same in all rows of panels."""
    examples, sizes = {name for _, _, name in rows}, curves["p"].unique()
    which = f"training {examples.pop()}" if len(examples) == 1 else "one training example"
    return f"predictor Hessian of {which}" + (f", $p$ = {sizes[0]:,}" if len(sizes) == 1 else "")


def _panels(
    rows: list[tuple[str, pd.DataFrame, str]], name: str
) -> tuple[Figure, list[tuple[Axes, dict[str, Any], pd.DataFrame]]]:
    """Axes with the place (a setup's values and the time) and the curves of each panel; places without are removed."""
    times = [evenly(group["time"], COLUMNS) for _, group, _ in rows]
    columns = max(map(len, times))
    width = _WIDTHS.get(columns, 2.1)
    figure, axes = style.grid(len(rows), columns, (width, _HEIGHTS.get(len(rows), _HEIGHT)))
    differing = len({example for _, _, example in rows}) > 1
    panels = []
    for (label, group, example), line, present in zip(rows, axes, times, strict=True):
        line[0].set_ylabel(f"{label}\n{example if differing else ''}\n{DENSITY}".replace("\n\n", "\n"))
        for ax in line[len(present) :]:
            ax.remove()
        for ax, time in zip(line, present, strict=False):
            curve = group[group["time"] == time]
            panels.append((ax, curve.iloc[0].to_dict(), curve))
    figure.suptitle(name, fontsize=9)
    return figure, panels


def _draw(ax: Axes, rows: pd.DataFrame, look: dict[str, object]) -> None:
    rows = _drawable(rows)
    if len(rows):
        draw_density(ax, rows, look["color"], linestyle=look["linestyle"])
        ax.lines[-1].set(linewidth=look.get("linewidth", 1.0), alpha=look.get("alpha"))


def _drawable(rows: pd.DataFrame) -> pd.DataFrame:
    return rows[np.isfinite(rows["density"]) & np.isfinite(rows["eigenvalue"]) & (rows["broadening"] > 0)]


def _finish(ax: Axes, curves: pd.DataFrame, title: str, shown: pd.DataFrame | None = None) -> None:
    """Limits and few ticks for the curves of this panel, or for all `shown` on divided axes; a word for no curve."""
    ax.set(title=title, xlabel=EIGENVALUE)
    if _drawable(curves).empty:  # a slope of zero, as of a saturated loss, makes a Hessian of zero
        ax.text(0.5, 0.5, "no density", ha="center", va="center", transform=ax.transAxes, color="0.4")
        ax.set(xticks=[], yticks=[])
        return
    within = _drawable(curves if shown is None else shown)
    ax.set_ylim(density_limits(within))
    ax.yaxis.set_major_locator(LogLocator(numticks=6))
    ax.yaxis.set_minor_formatter(NullFormatter())
    if shown is None:
        ax.xaxis.set_major_locator(MaxNLocator(4))
        ax.ticklabel_format(axis="x", style="sci", scilimits=(-2, 3))
    else:
        ax.set(xticks=[-1, 0, 1], xlim=(within["eigenvalue"].min(), within["eigenvalue"].max()))


def _state(place: dict[str, Any]) -> str:
    """The example's loss and, of a single output, the slope of the loss in it."""
    text = rf"$\ell$ = {_number(place['example_loss'])}"
    return text if np.isnan(place["slope"]) else text + rf", $\ell'$ = {_number(place['slope'])}"


def _number(value: float) -> str:
    """Two digits, small and large numbers with a power of ten; for mathtext, that its minus is one."""
    digits, _, power = f"{value:.2g}".partition("e")
    times = rf"{{\cdot}}10^{{{int(power)}}}" if power else ""
    return f"${digits}{times}$"
