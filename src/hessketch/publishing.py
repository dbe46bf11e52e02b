"""Results of one of several runs of a job: they wait in a folder of their own until all runs are done.

A workflow deletes the declared outputs of a job that was killed, but not what waits.
"""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from hessketch import ledger
from hessketch.records import is_intact, read_record, write_atomically


def waiting_record(folder: Path, files: Sequence[str], task: str) -> dict | None:
    """The record of a run that an interrupted job had finished: `files` whole and `record.json` of the same task."""
    if not is_intact(folder / "record.json"):
        return None
    record = read_record(folder / "record.json")
    return record if record.get("task") == task and all(is_intact(folder / name) for name in files) else None


def publish(output: Path, files: Sequence[str]) -> None:
    """Puts the files that wait in `output/partial` in their place, in the order given, and removes that folder.

    Until all are there they stay in both: what a kill in between leaves is published again.
    """
    partial = output / "partial"
    if partial.is_dir():
        for name in files:
            put_in_place(partial / name, output / name)
        shutil.rmtree(partial, ignore_errors=True)


def put_in_place(waiting: Path, place: Path) -> None:
    """A second name of a file that is whole or, on a disk that has no such names, a copy."""
    place.unlink(missing_ok=True)
    try:
        os.link(waiting, place)
    except OSError:
        write_atomically(place, lambda temporary: shutil.copyfile(waiting, temporary))
    ledger.note_written(place)
