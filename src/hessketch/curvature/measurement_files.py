"""The columns of a sketched eigendecomposition on disk, as memory-mapped files that outlive a kill."""

import hashlib
import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hessketch.errors import InputError
from hessketch.records import read_record, write_record

# Left on the disk for others: what is written last must not find it full.
_SPARE = 2**24


class MeasurementFiles:
    """A folder with two files a matrix: its columns one after the other, and a JSON of the task and the whole columns.

    A block counts once it is on the disk (fsync) and then the JSON. What another task left, or what is damaged, is set
    aside (renamed to end in .old, in place of what was set aside before) for as long as the disk holds both: starting
    anew is always right.
    """

    def __init__(self, folder: str | Path, task: str):
        """`task` names what the operator is: network, data, code."""
        self._folder, self._task = Path(folder), task
        self._folder.mkdir(parents=True, exist_ok=True)

    def free_bytes(self) -> int:
        """Bytes free on the disk for this user, and those that its matrices and what was set aside take already."""
        disk = os.statvfs(self._folder)
        own = sum(path.stat().st_blocks * 512 for path in self._folder.glob("*.columns*"))
        return max(disk.f_bavail * disk.f_frsize + own - _SPARE, 0)

    def matrix(self, name: str, rows: int, columns: int, dtype: torch.dtype, identity: str) -> "FileMatrix":
        """The matrix of a name with the columns that an earlier process of the same task finished."""
        digest = hashlib.sha256(f"{self._task}|{identity}|{name}|{rows}|{columns}|{dtype}".encode()).hexdigest()
        return FileMatrix(self._folder / f"{name}.columns", digest, rows, columns, dtype)

    def delete(self) -> None:
        """Deletes all matrices, and what was set aside."""
        for pattern in ("*.columns", "*.columns.json", "*.columns.old", "*.columns.json.old"):
            for path in self._folder.glob(pattern):
                path.unlink()


class FileMatrix:
    """A matrix (rows, columns) in a file, column after column; see `linalg.measurement_store.StoredMatrix`."""

    def __init__(self, path: Path, digest: str, rows: int, columns: int, dtype: torch.dtype):
        self._path, self._digest, self._dtype = path, digest, dtype
        self.shape = (rows, columns)
        self._numbers = torch.empty(0, dtype=dtype).numpy().dtype
        self._bytes = rows * columns * dtype.itemsize
        self.finished = self._left()
        if not path.is_file():
            self._allocate()
        self._data = np.memmap(path, self._numbers, "r+", shape=(columns, rows))

    def _record(self) -> Path:
        return self._path.with_name(f"{self._path.name}.json")

    def _left(self) -> int:
        """Columns of an earlier process; sets aside what is not of this task or not whole."""
        try:
            record = read_record(self._record()) if self._record().is_file() else {}
            record = record if isinstance(record, dict) else {}
            finished = record.get("finished")
            whole = self._path.is_file() and self._path.stat().st_size == self._bytes
            if whole and record.get("task") == self._digest and isinstance(finished, int):
                return min(max(finished, 0), self.shape[1])
        except InputError:  # the record is no JSON
            pass
        for path in (self._record(), self._path):  # the record first: without it the columns count for nothing
            if path.exists():
                path.replace(path.with_name(f"{path.name}.old"))
        return 0

    def _allocate(self) -> None:
        """Takes the disk space at once: a memory map on a full disk ends the process without a word."""
        try:
            self._take_space()
        except OSError:
            self._path.with_name(f"{self._path.name}.old").unlink(missing_ok=True)
            try:
                self._take_space()
            except OSError as error:
                self._path.unlink(missing_ok=True)
                raise InputError(
                    f"{self._path}: no room for {self._bytes} bytes of measurements ({error.strerror}); free some disk "
                    "space, or ask for fewer measurements"
                ) from error
        write_record({"task": self._digest, "finished": 0}, self._record())

    def _take_space(self) -> None:
        with open(self._path, "wb") as file:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, self._bytes)
            else:  # macOS
                file.truncate(self._bytes)

    def append(self, block: Tensor) -> None:
        """Writes the next columns (rows, k) and waits until they and their number are on the disk."""
        last = self.finished + block.shape[1]
        self._data[self.finished : last] = block.T.cpu().numpy()
        self._data.flush()
        self.finished = last
        write_record({"task": self._digest, "finished": last}, self._record())

    def write_rows(self, first: int, block: Tensor) -> None:
        """Writes whole rows (k, columns); not waited for."""
        self._data[:, first : first + len(block)] = block.T.cpu().numpy()

    def columns(self, first: int, last: int) -> Tensor:
        """A copy (rows, last - first) in memory."""
        return torch.from_numpy(np.array(self._data[first:last])).T

    def rows(self, first: int, last: int) -> Tensor:
        """A copy (last - first, columns) in memory."""
        return torch.from_numpy(np.array(self._data[:, first:last])).T

    def whole(self) -> Tensor:
        """(rows, columns) mapped into memory, not read into it."""
        return torch.from_numpy(self._data).T
