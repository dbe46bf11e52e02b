"""Spectra of deep-network Hessians, with and without sketched distributed training.

    import hessketch

    tables = hessketch.load("full_spectrum")  # all tables of a study, by name
    hessketch.verdicts("full_spectrum")  # the paper's claims against them

Importing the package is cheap: nothing here imports torch. Import what else you need from
`hessketch.linalg`, `hessketch.curvature`, `hessketch.data`, `hessketch.networks`, `hessketch.training`.
"""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas


def load(study: str, folder: str | Path | None = None) -> dict[str, "pandas.DataFrame"]:
    """All tables of one study by name; `folder` as of `hessketch.study_folders.folder_of_study`."""
    from hessketch.study_folders import load_study

    return load_study(study, folder)


def verdicts(study: str, folder: str | Path | None = None) -> "pandas.DataFrame":
    """The claims of one study with their verdicts, to be read; `folder` as of `load`."""
    from hessketch.claims.of_study import verdicts_of_study

    return verdicts_of_study(study, folder)
