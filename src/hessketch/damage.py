"""Damaged files: found by their outer structure, and what is said of them."""

import json
import shlex
from pathlib import Path

from hessketch.errors import InputError


def damaged(path: Path, error: object) -> InputError:
    """The error that a damaged file is refused with."""
    return InputError(f"{path}: cannot be read, it is damaged or cut short ({error}); {made_anew(path)}")


def made_anew(path: Path) -> str:
    """What to do about a damaged file."""
    return f"delete it (rm {shlex.quote(str(path))}) and run the same command again: it will be made anew"


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


def damaged_results(folders: list[str]) -> dict[str, str]:
    """The damaged tables, tensor files and records below the folders, and what is wrong with each.

    By their structure alone. Unfinished work is left out: a job that goes on with it sets aside what is damaged.
    """
    kinds = {".parquet", ".safetensors", ".json"}
    found = [p for folder in folders for p in sorted(Path(folder).rglob("*")) if p.suffix in kinds and p.is_file()]
    paths = [p for p in found if "partial" not in p.parts and p.name != "resume.safetensors"]
    return {str(path): damage for path in paths if (damage := structural_damage(path))}
