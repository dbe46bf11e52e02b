"""Whether raw data files are whole, and those that were published. Imports no torch and unpickles nothing."""

import gzip
import hashlib
import math
import struct
import zlib
from pathlib import Path

from hessketch.data.catalog import describe, is_system_folder, require_raw_file

_IDX_MAGIC = {"idx3": (2051, 3), "idx1": (2049, 1)}  # magic number and number of dimensions


def damaged_files(name: str, folder: Path) -> list[str]:
    """One line for each raw file in `folder` that is cut short or of another format, with what to do about it."""
    lines = []
    for file in describe(name).files:
        path = require_raw_file(folder, file)
        reason = _idx_damage(path) if "ubyte" in file else _pickle_damage(path)
        if reason:
            remedy = "reinstall the package that holds it" if is_system_folder(folder) else "delete or replace it"
            lines.append(f"{path} is damaged or cut short ({reason}); {remedy}")
    return lines


def unpublished_files(name: str, folder: Path) -> list[str]:
    """One line for each raw file in `folder` whose content is not the published one, by its SHA-256.

    Such a file may be a variant of the user's own: reading it runs no code. CIFAR's are pickles and not looked at here:
    `sources` reads none but those of the published MD5 digest.
    """
    dataset = describe(name)
    lines = []
    for file, published in zip(dataset.files, dataset.digests, strict=False):
        path = require_raw_file(folder, file)
        found = hashlib.sha256(_content(path)).hexdigest()
        if found != published:
            lines.append(f"{path} is not the published file of {name}: its SHA-256 is {found}, that one's {published}")
    return lines


def _content(path: Path) -> bytes:
    return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()


def _idx_damage(path: Path) -> str:
    magic, dimensions = _IDX_MAGIC["idx3" if "idx3" in path.name else "idx1"]
    try:
        content = _content(path)
    except (OSError, EOFError, zlib.error) as error:
        return str(error) or type(error).__name__
    header = 4 + 4 * dimensions
    if len(content) < header or struct.unpack(">i", content[:4])[0] != magic:
        return "no IDX file"
    expected = header + math.prod(struct.unpack(f">{dimensions}i", content[4:header]))
    return "" if len(content) == expected else f"{len(content)} bytes, {expected} expected"


def _pickle_damage(path: Path) -> str:
    """A pickle of protocol 2 or later begins with 0x80 and ends with a stop sign."""
    with open(path, "rb") as file:
        first = file.read(1)
        file.seek(max(0, path.stat().st_size - 1))
        last = file.read(1)
    return "" if (first, last) == (b"\x80", b".") else "no whole pickle"
