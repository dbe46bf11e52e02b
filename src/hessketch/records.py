"""Atomic reading and writing of tables, tensors and records; the only place that writes files.

A file appears whole or not at all: it is written beside its place, flushed to the disk and renamed. Tables are
Parquet, tensors safetensors (no pickles: loading never runs code), records JSON. Tables and tensors carry checksums.
Readers name a damaged file and what to delete.
"""

import contextlib
import errno
import glob
import json
import os
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hessketch import ledger, origins
from hessketch.damage import damaged, made_anew
from hessketch.errors import DiskFullError, InputError

if TYPE_CHECKING:  # pandas and torch take a second to import and not every command needs them
    import pandas
    from torch import Tensor

_NO_ROOM = {errno.ENOSPC: "the disk is full", errno.EDQUOT: "this user's share of the disk is used up"}


def unwritable(folder: str | Path) -> str:
    """Why nothing can be written into a folder (which need not exist yet); empty if something can."""
    folder = Path(folder)
    existing = next(path for path in [folder, *folder.absolute().parents] if path.exists())
    if not existing.is_dir():
        return f"{existing} is a file, not a folder"
    return "" if os.access(existing, os.W_OK) else f"{existing} is read-only for this user"


def require_file_place(path: str | Path) -> Path:
    """The path of a file to write; raises InputError where a folder stands there."""
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path}: is a folder; give the name of a file to write, in it for example")
    return path


def write_atomically(path: str | Path, write: Callable[[Path], object]) -> None:
    """Calls `write` with a temporary path in the same folder, then renames it to `path`.

    Raises InputError where `path` is a folder, DiskFullError where there is no room for it.
    """
    path = require_file_place(path)
    with _naming_a_full_disk(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _write_and_rename(path, write)
    ledger.note_written(path)
    for left_by_a_kill in path.parent.glob(f".{glob.escape(path.name)}.*.partial"):
        left_by_a_kill.unlink(missing_ok=True)


@contextlib.contextmanager
def _naming_a_full_disk(path: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # safetensors has an error class of its own, with the system's words in its text
        told = (why for number, why in _NO_ROOM.items() if os.strerror(number) in str(error))
        reason = _NO_ROOM.get(getattr(error, "errno", 0)) or next(told, None)
        if reason is None:
            raise
        raise DiskFullError(
            f"{path}: cannot be written, {reason}; make room on the disk of {path.parent} and run the same command "
            "again: it resumes"
        ) from error


def _write_and_rename(path: Path, write: Callable[[Path], object]) -> None:
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


def _require(path: str | Path) -> Path:
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    ledger.note_read(path)
    return path


def write_table(frame: "pandas.DataFrame", path: str | Path) -> None:
    """Writes a long-format table as Parquet, with the records that it came from; see `table_provenance`."""
    import pyarrow
    from pyarrow import parquet

    table, made = pyarrow.Table.from_pandas(frame, preserve_index=False), json.dumps(origins.of_table(Path(path)))

    def write(temporary: Path) -> None:
        with parquet.ParquetWriter(temporary, table.schema, write_page_checksum=True) as file:
            file.write_table(table)
            file.add_key_value_metadata({"hessketch": made})

    write_atomically(path, write)


def table_provenance(path: str | Path) -> dict[str, Any]:
    """What a table says of its making; empty of a table of unfinished work, or written elsewhere.

    `records`: path to the first 16 digits of the SHA-256 of each record that it came from (paths in the folder of the
    project); `record`: the record beside it, with all digests; `code`, `commit`, `uncommitted_changes`. A row's
    identity columns name its run: `Run(...).path` is the folder of its record below `runs/`.
    """
    from pyarrow import parquet

    path = _require(path)
    try:
        metadata = parquet.read_metadata(path).metadata or {}
    except Exception as error:  # as in read_table
        raise damaged(path, error) from error
    return json.loads(metadata.get(b"hessketch", "{}"))


def read_table(path: str | Path, columns: Mapping[str, str] | None = None) -> "pandas.DataFrame":
    """Reads a Parquet table; `columns` maps each required column to its numpy kind letters ('f', 'iu', 'OU', 'b').

    Raises InputError for a missing or damaged file, a missing column, or a column of another kind.
    """
    import pandas
    from pandas.api import types

    path = _require(path)
    try:
        frame = pandas.read_parquet(path, page_checksum_verification=True)
    except Exception as error:  # pyarrow raises half a dozen kinds for damaged files
        raise damaged(path, error) from error
    tests = {"f": types.is_float_dtype, "i": types.is_integer_dtype, "b": types.is_bool_dtype}
    for column, kind in (columns or {}).items():
        if column not in frame:
            raise InputError(f"{path}: column {column!r} is missing; it has {list(frame)}; {made_anew(path)}")
        test = tests.get(kind, types.is_string_dtype)
        if not test(frame[column]):
            raise InputError(
                f"{path}: column {column!r} is {frame[column].dtype}, expected {kind!r}; {made_anew(path)}"
            )
    return frame


def write_tensors(tensors: Mapping[str, "Tensor"], path: str | Path, metadata: Mapping[str, Any] | None = None) -> None:
    """Writes tensors as safetensors; `metadata` is any JSON-able mapping kept in the same file."""
    from safetensors.torch import save_file

    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    text = json.dumps(metadata or {})
    texts = {"hessketch": text, "crc32": _checksum(contiguous, text)}
    write_atomically(path, lambda temporary: save_file(contiguous, temporary, metadata=texts))


def _checksum(tensors: Mapping[str, "Tensor"], text: str) -> str:
    """CRC-32 of names, values and metadata: of flipped bits, not of malice. Two gigabytes take a second."""
    import torch

    total = zlib.crc32(text.encode())
    for name in sorted(tensors):
        flat = tensors[name].reshape(-1)
        # An empty or one-element tensor may say any stride, and a view as bytes wants 1.
        content = flat.as_strided(flat.shape, (1,)).view(torch.uint8).numpy().data
        total = zlib.crc32(content, zlib.crc32(name.encode(), total))
    return f"{total:08x}"


def read_tensors(path: str | Path) -> tuple[dict[str, "Tensor"], dict[str, Any]]:
    """Reads a safetensors file: the tensors on the CPU and the metadata (empty if written elsewhere).

    Raises InputError for a missing or damaged file, one whose content has changed since it was written among them.
    """
    with _tensor_file(path) as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        texts = file.metadata() or {}
        if texts.get("crc32") not in (None, _checksum(tensors, texts.get("hessketch", ""))):
            raise ValueError("its content is not what was written")
        return tensors, _metadata(file)


def read_metadata(path: str | Path) -> dict[str, Any]:
    """The metadata of a safetensors file alone, without reading its tensors."""
    with _tensor_file(path) as file:
        return _metadata(file)


@contextlib.contextmanager
def _tensor_file(path: str | Path) -> Iterator[Any]:
    from safetensors import safe_open

    path = _require(path)
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except Exception as error:  # safetensors raises its own error class and OSError
        raise damaged(path, error) from error


def _metadata(file: Any) -> dict[str, Any]:
    return json.loads((file.metadata() or {}).get("hessketch", "{}"))


def write_record(record: Mapping[str, Any], path: str | Path) -> None:
    """Writes a JSON record, keys in their order, one a line, and what made it; see `provenance_of`.

    The files that belong to it are written before it.
    """
    text = json.dumps(origins.with_provenance(record, Path(path)), indent=2, allow_nan=True) + "\n"
    write_atomically(path, lambda temporary: temporary.write_text(text))


def read_record(path: str | Path) -> dict[str, Any]:
    """Reads a JSON record as it was given to `write_record`; raises InputError naming a missing or damaged file."""
    record = _read_stored(path)
    if isinstance(record, dict):
        record.pop(origins.KEY, None)
    return record


def provenance_of(path: str | Path) -> dict[str, Any]:
    """What made a record, and digests of the files it came from and of those beside it; see `origins`.

    Empty of a record that has none. Raises InputError as `read_record`.
    """
    record = _read_stored(path)
    return record.get(origins.KEY, {}) if isinstance(record, dict) else {}


def _read_stored(path: str | Path) -> Any:
    path = _require(path)
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise damaged(path, error) from error


def joined(frames: "Iterable[pandas.DataFrame]") -> "pandas.DataFrame":
    """One table of several with the same columns; those without rows, whose kinds would spoil others', left out."""
    import pandas

    frames = list(frames)
    return pandas.concat([frame for frame in frames if len(frame)] or frames[:1], ignore_index=True)


def copy(source: str | Path, target: str | Path) -> None:
    """Writes a copy of a file's bytes."""
    content = _require(source).read_bytes()
    write_atomically(target, lambda temporary: temporary.write_bytes(content))


def is_intact(path: str | Path) -> bool:
    """Whether a file is there; a table, a tensor file or a record also whether it can be read to its end."""
    readers = {".parquet": read_table, ".safetensors": read_tensors, ".json": read_record}
    try:
        readers.get(Path(path).suffix, _require)(path)
    except InputError:
        return False
    return True
