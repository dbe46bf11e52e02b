"""Tables of the parts of a job (runs, checkpoints, pairs): they wait on the disk until all parts are done.

A workflow deletes the declared outputs of a job that was killed, but not what waits.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hessketch.provenance import code_digest
from hessketch.records import is_intact, joined, read_record, read_table, write_record, write_table

if TYPE_CHECKING:
    import pandas

Join = Callable[[str, "list[pandas.DataFrame]"], "pandas.DataFrame"]


def with_columns(columns: Mapping[str, Any], table: "pandas.DataFrame") -> "pandas.DataFrame":
    """The table behind columns of one value each."""
    import pandas

    return pandas.concat([pandas.DataFrame(dict(columns), index=table.index), table], axis=1)


class WaitingTables:
    """The tables `names` of a job that writes into `output`, part by part in `output/partial`.

    A part is known by its task, a JSON-able mapping of all that its tables depend on; the package's code belongs to it.
    What another task or other code left is never taken.
    """

    def __init__(self, output: Path, names: Sequence[str]):
        self._output, self._names = output, tuple(names)
        self._folders: list[Path] = []

    def part(self, task: Mapping[str, Any]) -> Path:
        """The folder of the next part; what it keeps of unfinished work may lie there too."""
        text = json.dumps({**task, "code": code_digest()}, sort_keys=True)
        self._folders.append(self._output / "partial" / hashlib.sha256(text.encode()).hexdigest()[:32])
        return self._folders[-1]

    def is_done(self, folder: Path) -> bool:
        """Whether a part was finished before, and all that it left is whole."""
        return all(is_intact(folder / name) for name in ("record.json", *(f"{table}.parquet" for table in self._names)))

    def keep(self, folder: Path, tables: Mapping[str, "pandas.DataFrame"], record: Mapping[str, Any]) -> None:
        """Leaves the tables of a part in its folder, and last the record that says that it is done."""
        for name in self._names:
            write_table(tables[name], folder / f"{name}.parquet")
        write_record(record, folder / "record.json")

    def publish(self, record: Mapping[str, Any], join: Join | None = None) -> dict[str, Any]:
        """Writes the tables of all parts, joined, then `record` with those of the parts as `measured`; returns it."""
        for name in self._names:
            frames = [read_table(folder / f"{name}.parquet") for folder in self._folders]
            write_table(join(name, frames) if join else joined(frames), self._output / f"{name}.parquet")
        whole = {**record, "measured": [read_record(folder / "record.json") for folder in self._folders]}
        write_record(whole, self._output / "record.json")
        shutil.rmtree(self._output / "partial", ignore_errors=True)
        return whole
