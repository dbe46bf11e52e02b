"""What an archive says of itself: its files with digests as `sha256sum` writes them, and what it left out."""

import json
import os
from collections.abc import Mapping
from pathlib import Path

MANIFEST, ABOUT = "MANIFEST.sha256", "archive.json"


def manifest_text(digests: Mapping[str, str]) -> str:
    """Digests of files by path in the archive, as lines that `sha256sum --check` reads."""
    return "".join(f"{digest}  {path}\n" for path, digest in sorted(digests.items()))


def packed(folder: Path) -> dict[Path, str]:
    """Absolute path to digest of what the archive around a folder, if there is one, was packed with below it."""
    root, top = archive_around(folder), Path(os.path.abspath(folder))
    if root is None:
        return {}
    lines = (line.split("  ", 1) for line in (root / MANIFEST).read_text().splitlines())
    digests = {root / path: digest for digest, path in lines}
    return {path: digest for path, digest in digests.items() if path.is_relative_to(top)}


def left_out(folder: Path) -> set[Path]:
    """Absolute paths of what the archive around a folder names as left out."""
    root = archive_around(folder)
    return set() if root is None else {root / path for path in json.loads((root / ABOUT).read_text())["left_out"]}


def archive_around(folder: Path) -> Path | None:
    """The unpacked archive that a folder is or lies in, up to three folders above."""
    top = Path(os.path.abspath(folder))
    return next((place for place in (top, *list(top.parents)[:3]) if (place / MANIFEST).is_file()), None)
