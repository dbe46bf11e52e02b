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
) -> None:
    """Calls the function `figure` of `figures.MODULE` on the rows that `rows_of` takes of each table, and saves it.

    Where there is nothing to draw (InputError), such as of runs that all diverged, the figure says why: that is a
    result too, and a workflow that asked for the figure has it.
    """
    draw = getattr(import_module(f"hessketch.figures.{module}"), figure)
    read = [read_table(table) for table in tables]
    try:
        drawn = draw(*(rows_of(table) for table in read))
    except InputError as error:
        say(f"nothing to draw: {error}")
        drawn = style.message(f"nothing to draw: {error}")
    style.save_figure(drawn, *files)
    say(f"drew {figure}")
