"""One figure of a study, from its tables to files: what the plotting scripts share."""

from argparse import Namespace
from collections.abc import Callable, Sequence
from importlib import import_module

import pandas as pd

from hessketch.errors import InputError
from hessketch.figures import style
from hessketch.records import read_table


def draw_from(
    arguments: Namespace,
    module: str,
    tables: Sequence[str],
    rows_of: Callable[[pd.DataFrame], pd.DataFrame],
    say: Callable[[str], None],
) -> None:
    """Draws `arguments.figure` (see `cli.add_figure`), a function of `figures.MODULE`, to PDF and PNG.

    It takes the rows that `rows_of` takes of each of the named tables of the study. In the study's table of all runs,
    with their `status`, names that `rows_of` does not find raise its InputError, which says what exists, and nothing is
    written. Where the runs exist and there is nothing to draw (InputError), such as of runs that all diverged, the
    figure says why: that is a result too, and a workflow that asked for the figure has it.
    """
    figure, folder = arguments.figure, arguments.tables
    known = rows_of(read_table(folder / "runs.parquet"))
    draw = getattr(import_module(f"hessketch.figures.{module}"), figure)
    read = [read_table(folder / f"{name}.parquet") for name in tables]
    try:
        drawn, said = draw(*(rows_of(table) for table in read)), f"drew {figure}"
    except InputError as error:
        if known.empty:
            raise
        said = f"nothing to draw: {_why_nothing(known, error)}"
        drawn = style.message(said)
    style.save_figure(drawn, arguments.pdf, arguments.png)
    say(said)


def _why_nothing(runs: pd.DataFrame, error: InputError) -> str:
    """Of runs that all diverged a table may have no rows, of which its own error would say that they are unknown."""
    if (runs["status"] == "diverged").all():
        return "the run diverged" if len(runs) == 1 else f"all {len(runs)} runs diverged"
    return str(error)
