"""Table 1 of Papyan 2018, with what the grid of learning rates led to."""

import pandas as pd

from hessketch.runs import IDENTITY

_CELL = [column for column in IDENTITY if column not in ("learning_rate", "seed")]


def training_table(runs: pd.DataFrame) -> pd.DataFrame:
    """Experiment parameters (Papyan 2018, Table 1) and the chosen rate of every sample size.

    Parameters
    ----------
    runs : one row a trained run, all learning rates: the identity columns, `status`, `selected`, `epochs`,
        `train_accuracy` and `test_accuracy` (fractions)

    Returns
    -------
    One row for each cell and seed, in the order of the identity: `learning_rates` (the grid, largest first, as
    text), `epochs`, `runs` and `diverged` (counts), `learning_rate` (the selected one), `train_accuracy` and
    `test_accuracy` of the selected run. A cell without a selected run has NaN there.
    """
    cells = runs.groupby([*_CELL, "seed"], sort=True)
    table = cells.agg(
        learning_rates=("learning_rate", _grid),
        epochs=("epochs", "max"),
        runs=("status", "size"),
        diverged=("status", lambda status: int((status == "diverged").sum())),
    )
    chosen = runs[runs["selected"]].set_index([*_CELL, "seed"])
    return table.join(chosen[["learning_rate", "train_accuracy", "test_accuracy"]]).reset_index()


def wide_training_table(table: pd.DataFrame) -> pd.DataFrame:
    """`training_table` for reading: a row for each dataset and network, a column for each sample size.

    A cell reads `rate: accuracy %`, over several seeds `rate: mean ± standard deviation %` (sample standard
    deviation, n - 1), the rates joined by `/` where the seeds chose different ones; `n diverged` is added where
    runs diverged, and `none` stands where no run was selected. Columns of the identity that vary stay; constant
    ones are left out.
    """
    labels = [c for c in _CELL if c != "examples_per_class" and (c in ("dataset", "network") or table[c].nunique() > 1)]
    parameters = table.groupby(labels).agg(
        **{"learning rates": ("learning_rates", _union), "epochs": ("epochs", "max")},
    )
    cells = pd.Series(
        {key: _cell_text(group) for key, group in table.groupby([*labels, "examples_per_class"])}, dtype=object
    )
    cells.index = cells.index.set_names([*labels, "examples_per_class"])
    wide = cells.unstack("examples_per_class").fillna("")
    wide.columns = [f"{size} per class" for size in wide.columns]
    return parameters.join(wide).reset_index()


def _grid(rates: pd.Series) -> str:
    return ", ".join(f"{rate:g}" for rate in sorted(rates.unique(), reverse=True))


def _union(grids: pd.Series) -> str:
    rates = {float(rate) for grid in grids for rate in grid.split(", ")}
    return _grid(pd.Series(sorted(rates)))


def _cell_text(group: pd.DataFrame) -> str:
    finished = group.dropna(subset=["learning_rate"])
    diverged = int(group["diverged"].sum())
    if finished.empty:
        text = "none"
    else:
        rates = "/".join(f"{rate:g}" for rate in sorted(finished["learning_rate"].unique(), reverse=True))
        percent = 100 * finished["test_accuracy"]
        spread = f" ± {percent.std():.1f}" if len(percent) > 1 else ""
        text = f"{rates}: {percent.mean():.1f}{spread} %"
    return text + (f", {diverged} diverged" if diverged else "")
