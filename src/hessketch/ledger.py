"""What this process has read and written, by path and SHA-256: so that a result can say which files made it.

`records` tells it of each file as it passes. Digests are taken when a result asks for them, once a file: a file of
300 MB takes about 0.4 s. A file that another process changed between its reading and that moment has None for a digest.

Files are known below the working directory by their path in it, so that records name no folder of a machine and a
project can be moved. Others are named from the result's own folder (`./model.safetensors`, `../run/model.safetensors`),
or, where the two share no folder but the root, by name alone (`.../model.safetensors`).
"""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

_PARTIAL, _RESUME = "partial", "resume.safetensors"
FAR = ".../"  # before the name of a file whose folder is not told


@dataclass
class _Seen:
    signature: tuple[int, int, int]
    digest: str | None = None
    taken: bool = False


_read: dict[str, _Seen] = {}
_written: dict[str, _Seen] = {}
_asked: dict[str, _Seen] = {}


def begin() -> None:
    """Forgets what was read and written: another job begins in this process."""
    for files in (_read, _written, _asked):
        files.clear()


def note_read(path: str | Path) -> None:
    """A file is read."""
    _note(_read, path)


def note_written(path: str | Path) -> None:
    """A file stands in its place."""
    _note(_written, path)


def _note(files: dict[str, _Seen], path: str | Path) -> None:
    name, signature = os.path.abspath(path), _signature(path)
    if name not in files or files[name].signature != signature:
        files[name] = _Seen(signature)


def _signature(path: str | Path) -> tuple[int, int, int]:
    found = os.stat(path)
    return found.st_size, found.st_mtime_ns, found.st_ino


def file_digest(path: str | Path) -> str:
    """SHA-256 of a file's content."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest(path: str, seen: _Seen) -> str | None:
    if not seen.taken:
        try:
            digest = file_digest(path) if _signature(path) == seen.signature else None
            seen.digest = digest if _signature(path) == seen.signature else None
        except FileNotFoundError:
            seen.digest = None
        seen.taken = True
    return seen.digest


def is_work(path: str | Path) -> bool:
    """Whether a file belongs to unfinished work, which goes when its job is done."""
    path = Path(path)
    return _PARTIAL in path.parts or path.name == _RESUME or path.name.startswith(".")


def published(folder: str | Path) -> Path | None:
    """The folder in which the files of a folder will stand: itself, or that above a `partial`; None of work inside."""
    folder = Path(os.path.abspath(folder))
    folder = folder.parent if folder.name == _PARTIAL else folder
    return None if _PARTIAL in folder.parts else folder


def inputs_by_path() -> dict[str, str | None]:
    """Digests of what was read and neither written here nor unfinished work, by absolute path."""
    files = {path: seen for path, seen in sorted(_read.items()) if path not in _written and not is_work(path)}
    return {path: _digest(path, seen) for path, seen in files.items()}


def inputs(folder: str | Path) -> dict[str, str | None]:
    """As `inputs_by_path`, by name as seen from a result's folder."""
    return {told_from(path, folder): digest for path, digest in inputs_by_path().items()}


def digest_of(path: str) -> str | None:
    """Digest of a file as it is, kept for the next question."""
    signature = _signature(path)
    if path not in _asked or _asked[path].signature != signature:
        _asked[path] = _Seen(signature)
    return _digest(path, _asked[path])


def tables_read() -> dict[str, str | None]:
    """Digests of the tables that were read, written here or not, by name in the working directory: what is drawn."""
    found = {path: seen for path, seen in sorted(_read.items()) if path.endswith(".parquet")}
    return {told_from(path, "."): _digest(path, seen) for path, seen in found.items()}


def outputs(folder: str | Path) -> dict[str, str | None]:
    """Digests of the files that were written into a folder, by name."""
    folder = os.path.abspath(folder)
    files = {path: seen for path, seen in sorted(_written.items()) if os.path.dirname(path) == folder}
    names = {path: os.path.basename(path) for path in files}
    return {
        name: _digest(path, files[path])
        for path, name in names.items()
        if name != _RESUME and not name.startswith(".") and os.path.exists(path)
    }


def place(path: str | Path) -> str | None:
    """A path in the working directory; None of one outside it."""
    path = os.path.abspath(path)
    inside = os.path.relpath(path)
    return None if inside.split(os.sep)[0] == os.pardir else Path(inside).as_posix()


def told_from(path: str | Path, folder: str | Path) -> str:
    """The name of a file in a result of a folder; see the module's text."""
    inside = place(path)
    if inside is not None:
        return inside
    path, folder = os.path.abspath(path), os.path.abspath(folder)
    if os.path.commonpath([path, folder]) == os.path.abspath(os.sep):
        return FAR + os.path.basename(path)
    told = Path(os.path.relpath(path, folder)).as_posix()
    return told if told.startswith("../") else f"./{told}"


def found_at(told: str, result: Path, own_place: str | None) -> Path | None:
    """Where the file that a result names stands now; None where the name does not tell.

    `result` is where the result stands, `own_place` where it says that it stood: what both end with has moved as one.
    """
    if told.startswith(FAR):
        return None
    if told.startswith(("./", "../")):
        return Path(os.path.normpath(result.parent / told))
    if own_place is None:
        return Path(os.path.abspath(told))
    before, now = list(Path(own_place).parts), list(Path(os.path.abspath(result)).parts)
    while before and now and before[-1] == now[-1]:
        before.pop(), now.pop()
    parts = Path(told).parts
    if list(parts[: len(before)]) == before:
        return Path(*now, *parts[len(before) :])
    return Path(os.path.abspath(told))
