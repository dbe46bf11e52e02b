"""Atomic reading and writing of tables, tensors and records; the only place that writes files.

A file appears whole or not at all: it is written beside its place, flushed to the disk and renamed. Tables are
Parquet, tensors safetensors (no pickles: loading never runs code), records JSON. Readers name a damaged file
and what to delete.
"""

import contextlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hessketch.errors import InputError

if TYPE_CHECKING:  # pandas and torch take a second to import and not every command needs them
    import pandas
    from torch import Tensor

_DAMAGED = "delete it and run the same command again: it will be made anew"


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


def write_atomically(path: str | Path, write: Callable[[Path], None]) -> None:
    """Calls `write` with a temporary path in the same folder, then renames it to `path`.

    Raises InputError where `path` is a folder.
    """
    path = require_file_place(path)
    path.parent.mkdir(parents=True, exist_ok=True)
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


def _damaged(path: Path, error: object) -> InputError:
    return InputError(f"{path}: cannot be read, it is damaged or cut short ({error}); {_DAMAGED}")


def _require(path: str | Path) -> Path:
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    return path


def write_table(frame: "pandas.DataFrame", path: str | Path) -> None:
    """Writes a long-format table as Parquet."""
    write_atomically(path, lambda temporary: frame.to_parquet(temporary, index=False))


def read_table(path: str | Path, columns: Mapping[str, str] | None = None) -> "pandas.DataFrame":
    """Reads a Parquet table; `columns` maps each required column to its numpy kind letters ('f', 'iu', 'OU', 'b').

    Raises InputError for a missing or damaged file, a missing column, or a column of another kind.
    """
    import pandas
    from pandas.api import types

    path = _require(path)
    try:
        frame = pandas.read_parquet(path)
    except Exception as error:  # pyarrow raises half a dozen kinds for damaged files
        raise _damaged(path, error) from error
    tests = {"f": types.is_float_dtype, "i": types.is_integer_dtype, "b": types.is_bool_dtype}
    for column, kind in (columns or {}).items():
        if column not in frame:
            raise InputError(f"{path}: column {column!r} is missing; it has {list(frame)}; {_DAMAGED}")
        test = tests.get(kind, types.is_string_dtype)
        if not test(frame[column]):
            raise InputError(f"{path}: column {column!r} is {frame[column].dtype}, expected {kind!r}; {_DAMAGED}")
    return frame


def write_tensors(tensors: Mapping[str, "Tensor"], path: str | Path, metadata: Mapping[str, Any] | None = None) -> None:
    """Writes tensors as safetensors; `metadata` is any JSON-able mapping kept in the same file."""
    from safetensors.torch import save_file

    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    text = {"hessketch": json.dumps(metadata or {})}
    write_atomically(path, lambda temporary: save_file(contiguous, temporary, metadata=text))


def read_tensors(path: str | Path) -> tuple[dict[str, "Tensor"], dict[str, Any]]:
    """Reads a safetensors file: the tensors on the CPU and the metadata (empty if written elsewhere)."""
    with _tensor_file(path) as file:
        return {name: file.get_tensor(name) for name in file.keys()}, _metadata(file)  # noqa: SIM118


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
        raise _damaged(path, error) from error


def _metadata(file: Any) -> dict[str, Any]:
    return json.loads((file.metadata() or {}).get("hessketch", "{}"))


def write_record(record: Mapping[str, Any], path: str | Path) -> None:
    """Writes a JSON record, keys in their order, one a line."""
    text = json.dumps(record, indent=2, allow_nan=True) + "\n"
    write_atomically(path, lambda temporary: temporary.write_text(text))


def read_record(path: str | Path) -> dict[str, Any]:
    """Reads a JSON record; raises InputError naming a missing or damaged file."""
    path = _require(path)
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise _damaged(path, error) from error


def structural_damage(path: str | Path) -> str:
    """What is wrong with a table, a tensor file or a record by its outer structure alone; empty if it seems whole.

    Cheap: reads ends and headers, and neither pandas nor torch is imported.
    """
    path = Path(path)
    size = path.stat().st_size
    try:
        with open(path, "rb") as file:
            if path.suffix == ".parquet":
                ends = file.read(4), file.seek(max(0, size - 4)), file.read(4)
                return "" if size >= 12 and ends[0] == ends[2] == b"PAR1" else "no whole Parquet file"
            if path.suffix == ".safetensors":
                length = int.from_bytes(file.read(8), "little")
                header = json.loads(file.read(min(length, size)))
                end = max((v["data_offsets"][1] for k, v in header.items() if k != "__metadata__"), default=0)
                return "" if size == 8 + length + end else f"{size} bytes, {8 + length + end} expected"
        if path.suffix == ".json":
            json.loads(path.read_text())
    except (OSError, ValueError, KeyError, TypeError) as error:
        return str(error)
    return ""


def damaged_results(folders: list[str]) -> list[str]:
    """One line for each damaged table, tensor file or record below the folders, with what to do about it."""
    kinds = {".parquet", ".safetensors", ".json"}
    paths = [p for folder in folders for p in sorted(Path(folder).rglob("*")) if p.suffix in kinds and p.is_file()]
    return [str(_damaged(path, damage)) for path in paths if (damage := structural_damage(path))]


def load_study(study: str, folder: str | Path | None = None) -> dict[str, "pandas.DataFrame"]:
    """All tables of one study by name, for a notebook.

    `folder` is the results folder of a profile; without it, the environment variable HESSKETCH_RESULTS, else
    `results/demo` in the working directory or in the folder above it.
    """
    chosen = folder or os.environ.get("HESSKETCH_RESULTS")
    candidates = [Path(chosen)] if chosen else [Path("results/demo"), Path("../results/demo")]
    for candidate in candidates:
        paths = sorted((candidate / study).glob("*.parquet"))
        if paths:
            return {path.stem: read_table(path) for path in paths}
    raise InputError(
        f"no tables of {study!r} in {' or '.join(str(c) for c in candidates)}; run `snakemake --cores all` first, "
        "or name the results folder of a profile"
    )
