"""What sketched training does to the Hessian: its spectrum at equal training loss, and its sums over rounds.

Tables of one cell (`studies.sharper_sketching.of_cell`). Reductions of one method share its colour, larger ones are
lighter; dashed lines are methods with error feedback.
"""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from hessketch.errors import InputError
from hessketch.figures import style
from hessketch.figures.curves import DENSITY, EIGENVALUE, density_limits, draw_density, log_ticks
from hessketch.figures.sharper_sketching_marks import head, legend_below, title, trainer_looks
from hessketch.studies.sharper_sketching import one_cell

_SPLITS = ("train", "test")
_STRIP = 0.09  # height of the row of a trainer's eigenvalues, in that of the density above


@style.styled
def spectra(density: pd.DataFrame, eigenvalues: pd.DataFrame) -> Figure:
    """Train (left) and test (right) Hessian of networks that were trained in different ways to the same training loss.

    Parameters
    ----------
    density, eigenvalues : of the checkpoints of kind `loss` at the equal loss. Of several seeds the first is drawn,
        without deflation; its leading eigenvalues stand in a row a trainer under the curves. `eigenvalues` may be
        empty. The legend has the rate and the training loss of each network itself, at or below the common target

    Raises InputError where there is no such checkpoint, or where the trainers' targets differ.
    """
    if density.empty:
        raise InputError(
            "spectra: no densities at an equal training loss: the compared trainers reached no common one; "
            "add larger losses to the checkpoints or train for more rounds"
        )
    curves = density[(density["operator"] == "hessian") & (density["estimator"] == "lanczos") & ~density["deflated"]]
    one_cell(curves, "spectra")
    curves = curves[curves["seed"] == curves["seed"].min()]
    targets = sorted(curves["target_loss"].unique())
    if len(targets) > 1:
        raise InputError(
            f"spectra: checkpoints at training losses {', '.join(map(str, targets))}; allowed: one; "
            "choose the rows of one loss by equal_loss"
        )
    looks = _noted(trainer_looks(curves), curves, rate="learning_rate", loss="train_loss")
    splits = [split for split in _SPLITS if (curves["split"] == split).any()]
    figure, tops, strips = _panels_with_strips(len(splits), len(looks) if len(eigenvalues) else 0)
    for ax, split in zip(tops, splits, strict=True):
        here = curves[curves["split"] == split]
        for trainer, look in looks.items():
            draw_density(ax, here[here["trainer"] == trainer], look["color"], linestyle=look["linestyle"])
        ax.set(title=f"{split}, $n$ = {here['n'].iloc[0]:,}", ylim=density_limits(curves))
    for ax in strips or tops:
        ax.set_xlabel(EIGENVALUE)
    for ax, split in zip(strips, splits, strict=False):
        marks = eigenvalues[(eigenvalues["operator"] == "hessian") & (eigenvalues["split"] == split)]
        _draw_strip(ax, marks[marks["seed"] == curves["seed"].min()], looks)
    tops[0].set_ylabel(DENSITY)
    legend_below(figure, list(looks.values()), 2 if len(splits) > 1 else 1)
    head(figure, title(curves, f"Hessian at equal training loss {targets[0]:g}, $p$ = {curves['p'].iloc[0]:,}"))
    return figure


def _noted(looks: dict[str, dict[str, object]], rows: pd.DataFrame, **columns: str) -> dict[str, dict[str, object]]:
    """Looks whose labels end in what the networks drawn had: ` (rate 0.03, loss 0.92)`, means of the given columns.

    The selected rate stands there since it moves curvature by itself: a larger one leaves flatter networks.
    """
    means = rows.groupby("trainer")[list(columns.values())].mean()
    noted = {}
    for name, look in looks.items():
        notes = ", ".join(f"{word} {means.loc[name, column]:.3g}" for word, column in columns.items())
        noted[name] = look | {"label": f"{look['label']} ({notes})"}
    return noted


def _panels_with_strips(columns: int, trainers: int) -> tuple[Figure, list[Axes], list[Axes]]:
    """Densities, and under each, on the same horizontal axis, a strip with a row for each trainer."""
    strip = _STRIP * trainers
    figure = style.new_figure(3.4 * columns if columns > 1 else 4.4, 3.0 + 2.2 * strip)
    rows = figure.subplots(
        1 + bool(trainers), columns, sharex="col", sharey="row", squeeze=False,
        height_ratios=[1.0, strip] if trainers else [1.0],
    ).tolist()  # fmt: skip
    return figure, rows[0], rows[1] if trainers else []


def _draw_strip(ax: Axes, eigenvalues: pd.DataFrame, looks: dict[str, dict[str, object]]) -> None:
    for row, (trainer, look) in enumerate(looks.items()):
        values = eigenvalues.loc[eigenvalues["trainer"] == trainer, "eigenvalue"]
        ax.plot(values, [-row] * len(values), "|", color=look["color"], markersize=6, markeredgewidth=1.0)
    ax.set(ylim=(0.3 - len(looks), 0.7), yticks=[])
    ax.spines["left"].set_visible(False)


@style.styled
def curvature_over_rounds(curvature: pd.DataFrame) -> Figure:
    """Largest eigenvalue, trace and kappa = sum |eigenvalues| / max |eigenvalue| of the Hessian over rounds.

    Rows of kind `round`; train left, test right. Points are means over seeds, bands one standard error over them; with
    one seed, the standard error of the estimate itself (of trace and kappa). Raises InputError where there is no such
    row.
    """
    chosen = curvature
    if len(curvature):
        chosen = curvature[(curvature["kind"] == "round") & (curvature["operator"] == "hessian")]
    if chosen.empty:
        raise InputError("curvature over rounds: no checkpoint of a round was measured; name rounds in the profile")
    name = title(chosen, f"curvature over rounds, $p$ = {chosen['p'].iloc[0]:,}")
    looks = _noted(trainer_looks(chosen), chosen, rate="learning_rate")
    splits = [split for split in _SPLITS if (chosen["split"] == split).any()]
    quantities = {"largest_eigenvalue": "largest eigenvalue", "trace": "trace", "kappa": r"$\kappa$"}
    figure, axes = style.grid(3, len(splits), (3.3 if len(splits) > 1 else 4.4, 1.9), sharex=True, sharey="row")
    for row, (column, label) in zip(axes, quantities.items(), strict=True):
        for ax, split in zip(row, splits, strict=True):
            for trainer, look in looks.items():
                rows = chosen[(chosen["split"] == split) & (chosen["trainer"] == trainer)]
                _draw_quantity(ax, rows, column, look)
        row[0].set_ylabel(label)
        if (chosen[column] > 0).all():
            row[0].set_yscale("log")
            log_ticks(row[0].yaxis, *row[0].get_ylim())
    for ax, split in zip(axes[0], splits, strict=True):
        ax.set_title(f"{split}, $n$ = {chosen.loc[chosen['split'] == split, 'n'].iloc[0]:,}")
    for ax in axes[-1]:
        ax.set_xlabel("round")
        ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    legend_below(figure, [one | {"marker": "."} for one in looks.values()], 2 if len(splits) > 1 else 1)
    head(figure, name)
    return figure


def _draw_quantity(ax: Axes, rows: pd.DataFrame, column: str, looks: dict[str, object]) -> None:
    rounds = rows.groupby("round")[column].agg(["mean", "sem", "size"])
    error = rounds["sem"]
    if f"{column}_standard_error" in rows and rounds["size"].max() == 1:
        error = rows.set_index("round")[f"{column}_standard_error"].reindex(rounds.index)
    ax.plot(rounds.index, rounds["mean"], marker=".", **looks)
    if np.isfinite(error).any():
        low, high = rounds["mean"] - error, rounds["mean"] + error
        ax.fill_between(rounds.index, low, high, color=looks["color"], alpha=0.2, linewidth=0)
