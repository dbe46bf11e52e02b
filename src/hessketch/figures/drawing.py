"""One figure of a study, from its tables to files: what the plotting scripts share."""

from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path

import pandas as pd

from hessketch.errors import InputError
from hessketch.figures import style
from hessketch.records import read_table


def draw_to_files(
    module: str,
    figure: str,
    tables: Sequence[Path],
    rows_of: Callable[[pd.DataFrame], pd.DataFrame],
    files: Sequence[Path],
    say: Callable[[str], None],
    *,
    runs: Path,
) -> None:
    """Calls the function `figure` of `figures.MODULE` on the rows that `rows_of` takes of each table, and saves it.

    `runs` is the study's table of all runs, with their `status`: names that `rows_of` does not find there raise its
    InputError, which says what exists, and nothing is written. Where the runs exist and there is nothing to draw
    (InputError), such as of runs that all diverged, the figure says why: that is a result too, and a workflow that
    asked for the figure has it.
    """
    known = rows_of(read_table(runs))
    draw = getattr(import_module(f"hessketch.figures.{module}"), figure)
    read = [read_table(table) for table in tables]
    try:
        drawn, said = draw(*(rows_of(table) for table in read)), f"drew {figure}"
    except InputError as error:
        if known.empty:
            raise
        said = f"nothing to draw: {_why_nothing(known, error)}"
        drawn = style.message(said)
    style.save_figure(drawn, *files)
    say(said)


def _why_nothing(runs: pd.DataFrame, error: InputError) -> str:
    """Of runs that all diverged a table may have no rows, of which its own error would say that they are unknown."""
    if (runs["status"] == "diverged").all():
        return "the run diverged" if len(runs) == 1 else f"all {len(runs)} runs diverged"
    return str(error)
