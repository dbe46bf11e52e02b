"""What is recorded in folders PROFILE/STUDY: which figures, and how each is drawn. Imports neither torch nor pandas."""

import re
from collections.abc import Iterable
from pathlib import Path

from hessketch.errors import InputError
from hessketch.records import read_record

_NAME = re.compile(r"[\w.+-]*\w[\w.+-]*")


def recorded_figures(folder: str | Path) -> dict[tuple[str, str], dict[str, list[str]]]:
    """(profile, study) to what is drawn of it: `folder/figure` to the plotting script's arguments.

    Raises InputError for a damaged `figures.json`, or one with a name as of `require_names`.
    """
    found = {}
    for path in sorted(Path(folder).glob("*/*/figures.json")):
        figures = read_record(path)
        require_names(figures)
        found[path.parts[-3], path.parts[-2]] = figures
    return found


def require_names(figures: Iterable[str]) -> None:
    """Raises InputError for a figure that is not `folder/figure` in plain words: its files would lie elsewhere."""
    for name in figures:
        parts = name.split("/")
        if len(parts) != 2 or not all(map(_NAME.fullmatch, parts)):
            raise InputError(f"figure {name!r}: allowed is folder/figure, in letters, digits and . + - _")
