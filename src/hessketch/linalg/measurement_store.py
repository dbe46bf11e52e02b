"""Where the columns of a sketched decomposition are kept."""

from typing import Protocol

import torch
from torch import Tensor


class StoredMatrix(Protocol):
    """A matrix (rows, columns) that is written block by block; each column lies in one piece."""

    finished: int  # leading columns that were appended whole, in this process or an earlier one

    @property
    def shape(self) -> tuple[int, int]: ...

    def append(self, block: Tensor) -> None:
        """Writes the next columns (rows, k), for good when it returns."""
        ...

    def write_rows(self, first: int, block: Tensor) -> None:
        """Writes whole rows (k, columns) from number `first` on; they need not outlive the process."""
        ...

    def columns(self, first: int, last: int) -> Tensor:
        """(rows, last - first)"""
        ...

    def rows(self, first: int, last: int) -> Tensor:
        """(last - first, columns)"""
        ...

    def whole(self) -> Tensor:
        """(rows, columns), not copied: it follows what is written."""
        ...


class MatrixStore(Protocol):
    """A place for such matrices."""

    def matrix(self, name: str, rows: int, columns: int, dtype: torch.dtype, identity: str) -> StoredMatrix:
        """The matrix of a name: the one that was left, if it is of this identity and size, else a new one."""
        ...


class LimitedPlace(Protocol):
    """A place of limited room."""

    def free_bytes(self) -> int:
        """Bytes that it can take, those of its own matrices included."""
        ...


class MeasurementStore(MatrixStore, LimitedPlace, Protocol):
    """A store of limited room; `curvature.measurement_files` has one on disk that outlives a kill."""


class MemoryMatrix:
    """A stored matrix in memory."""

    def __init__(self, rows: int, columns: int, dtype: torch.dtype, place: torch.device | str):
        self._data = torch.empty(columns, rows, dtype=dtype, device=place)
        self.shape, self.finished = (rows, columns), 0

    def append(self, block: Tensor) -> None:
        self._data[self.finished : self.finished + block.shape[1]] = block.T
        self.finished += block.shape[1]

    def write_rows(self, first: int, block: Tensor) -> None:
        self._data[:, first : first + len(block)] = block.T

    def columns(self, first: int, last: int) -> Tensor:
        return self._data[first:last].T

    def rows(self, first: int, last: int) -> Tensor:
        return self._data[:, first:last].T

    def whole(self) -> Tensor:
        return self._data.T


class MemoryStore:
    """Matrices in the memory of a device; nothing outlives the process."""

    def __init__(self, place: torch.device | str):
        self._place = torch.device(place)

    def matrix(self, name: str, rows: int, columns: int, dtype: torch.dtype, identity: str) -> MemoryMatrix:
        return MemoryMatrix(rows, columns, dtype, self._place)
