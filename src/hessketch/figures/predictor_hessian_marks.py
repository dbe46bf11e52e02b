"""Parts that the figures of the predictor Hessian share: names of setups, headings, how an estimator looks."""

from collections.abc import Sequence

import pandas as pd
from matplotlib.figure import Figure

from hessketch.errors import InputError
from hessketch.figures import style
from hessketch.figures.sharper_sketching_marks import legend_below, trainer_looks
from hessketch.studies.spectra import require_one

LOSSES = {
    "binary_cross_entropy": "binary cross-entropy",
    "cross_entropy": "cross-entropy",
    "mean_squared_error": "mean squared error",
    "sigmoid_squared_error": "squared error of the sigmoid",
}
_COLOURS = style.SETTINGS["axes.prop_cycle"].by_key()["color"]
ESTIMATORS = {
    "paper": {"color": _COLOURS[1], "linestyle": "-", "linewidth": 0.6, "label": "paper: the authors' kernel"},
    "fast": {"color": _COLOURS[0], "linestyle": "-", "label": "fast"},
}
_LEGEND_ROW = 0.16  # inches
_TASK = ["loss", "label_noise", "examples_per_class"]


def of_kind(table: pd.DataFrame, kind: str, what: str) -> pd.DataFrame:
    """Rows of kind `epoch` or `round`; raises InputError where there are none, or of more than one network."""
    rows = table[table["kind"] == kind] if len(table) else table
    if rows.empty:
        raise InputError(f"{what}: no checkpoint of {'an' if kind == 'epoch' else 'a'} {kind} was measured; name some")
    require_one(rows, ("dataset", "network"), what, "choose it by of_cell")
    return rows


def heading(rows: pd.DataFrame, what: str) -> str:
    """Two lines: `CIFAR10, ResNet18`, then what is shown."""
    row = rows.iloc[0]
    return f"{style.dataset_name(row['dataset'])}, {style.network_name(row['network'])}\n{what}"


def trajectories(rows: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """Each loss, trainer and rate, named in two lines, with its rows: a panel of kappa or a row of densities."""
    groups = rows.groupby([*_TASK, "trainer", "learning_rate"], dropna=False, sort=True)
    several_sizes = rows["examples_per_class"].nunique(dropna=False) > 1
    return [(f"{_task(key, several_sizes)}\n{_trainer(key[-2])}, rate {key[-1]:g}", group) for key, group in groups]


def federations(rows: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """Each loss, named, with the rows of all its trainers.

    Raises InputError where a trainer has several learning rates: its line would mix them.
    """
    several_sizes = rows["examples_per_class"].nunique(dropna=False) > 1
    named = []
    for key, group in rows.groupby(_TASK, dropna=False, sort=True):
        rates = group.groupby("trainer")["learning_rate"].unique()
        for trainer, present in rates.items():
            if len(present) > 1:
                raise InputError(
                    f"{trainer} has rows of several learning rates ({', '.join(f'{rate:g}' for rate in present)}); "
                    "allowed: one; choose the selected one by select"
                )
        named.append((_task(key, several_sizes), group))
    return named


def _task(key: tuple, several_sizes: bool) -> str:
    loss, noise, size = key[:3]
    name = LOSSES.get(loss, loss.replace("_", " "))
    name += f", label noise {noise:g}" if noise else ""
    return name + (f", {'all' if pd.isna(size) else int(size)} per class" if several_sizes else "")


def _trainer(label: str) -> str:
    """`SGD, batches of 50` for sgd-b50, `SGD, full batch` for sgd-full; other labels as they are."""
    method, _, batch = label.partition("-")
    words = {"": "", "full": ", full batch"}.get(batch, f", batches of {batch.removeprefix('b')}")
    return f"SGD{words}" if method == "sgd" else label


def looks_with_rates(rows: pd.DataFrame) -> dict[str, dict[str, object]]:
    """`trainer_looks` whose labels end in the learning rate: a rate moves curvature by itself."""
    rates = rows.groupby("trainer")["learning_rate"].unique()
    looks = {}
    for name, look in trainer_looks(rows).items():
        several = "rates" if len(rates[name]) > 1 else "rate"
        listed = ", ".join(f"{rate:.3g}" for rate in sorted(rates[name]))
        looks[name] = look | {"label": f"{look['label']} ({several} {listed})"}
    return looks


def legend_of_trainers(figure: Figure, looks: Sequence[dict[str, object]], columns: int) -> None:
    """`legend_below` in a figure that grows by the legend's rows beyond two, so that panels keep their height."""
    rows = -(-len(looks) // columns)
    figure.set_figheight(figure.get_figheight() + _LEGEND_ROW * max(rows - 2, 0))
    legend_below(figure, looks, columns)


def counted(rows: pd.DataFrame, column: str, word: str) -> str:
    """`1 seed`, `3 seeds`, or `2 to 3 seeds` where the number differs between rows."""
    least, most = int(rows[column].min()), int(rows[column].max())
    number = f"{most}" if least == most else f"{least} to {most}"
    return f"{number} {word}{'' if most == 1 else 's'}"


def estimator_of(rows: pd.DataFrame, wanted: Sequence[str] = ("fast", "paper")) -> str:
    """The first of the wanted estimators that the table has."""
    return next(name for name in wanted if (rows["estimator"] == name).any())
