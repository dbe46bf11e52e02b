"""What the record of a run says beside its tables, kept while the run is measured."""

from pathlib import Path

from hessketch.records import is_intact, read_record, write_record


class Notes:
    """Words by kind and place, in a file: a job that goes on after a kill still knows those of before."""

    def __init__(self, path: Path):
        self._path = path
        self._notes: dict[str, dict[str, str]] = read_record(path) if is_intact(path) else {}

    def of(self, kind: str) -> dict[str, str]:
        """Place to words."""
        return dict(self._notes.get(kind, {}))

    def add(self, kind: str, place: str, words: str) -> None:
        self._notes.setdefault(kind, {})[place] = words
        write_record(self._notes, self._path)
