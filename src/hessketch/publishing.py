"""Results of one of several runs of a job: they wait in a folder of their own until all runs are done.

A workflow deletes the declared outputs of a job that was killed, but not what waits.
"""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from hessketch.records import read_record


def waiting_record(folder: Path, files: Sequence[str], task: str) -> dict | None:
    """The record of a run that an interrupted job had finished: `files` whole and `record.json` of the same task."""
    if not all((folder / name).is_file() for name in files):
        return None
    record = read_record(folder / "record.json")
    return record if record.get("task") == task else None


def publish(output: Path, files: Sequence[str]) -> None:
    """Puts the files that wait in `output/partial` in their place, in the order given, and removes that folder."""
    partial = output / "partial"
    if partial.is_dir():
        for name in files:
            os.replace(partial / name, output / name)
        shutil.rmtree(partial, ignore_errors=True)
