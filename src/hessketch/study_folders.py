"""Where a study's tables lie, for notebooks and whoever loads them by hand."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from hessketch.errors import InputError
from hessketch.records import read_table

if TYPE_CHECKING:
    import pandas


def load_study(study: str, folder: str | Path | None = None) -> dict[str, "pandas.DataFrame"]:
    """All tables of one study by name, for a notebook; arguments and errors as of `folder_of_study`."""
    return {path.stem: read_table(path) for path in sorted(folder_of_study(study, folder).glob("*.parquet"))}


def folder_of_study(study: str, folder: str | Path | None = None) -> Path:
    """The folder of a study's tables.

    `folder` is the results folder of a profile; without it, the environment variable HESSKETCH_RESULTS, else
    `results/demo` in the working directory or in the folder above it. Raises InputError where no table lies there.
    """
    chosen = folder or os.environ.get("HESSKETCH_RESULTS")
    candidates = [Path(chosen)] if chosen else [Path("results/demo"), Path("../results/demo")]
    for candidate in candidates:
        if any((candidate / study).glob("*.parquet")):
            return candidate / study
    raise InputError(
        f"no tables of {study!r} in {' or '.join(str(c) for c in candidates)}; run `snakemake --cores all` first, "
        "or name the results folder of a profile"
    )
