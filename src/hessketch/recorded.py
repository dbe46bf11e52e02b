"""The records below a folder, and the files that they name, as paths of this machine."""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hessketch import ledger, origins
from hessketch.errors import InputError


@dataclass(frozen=True)
class Record:
    """A record that stands somewhere, with digests of the files that it names, by absolute path."""

    path: Path
    content: Mapping[str, Any] = field(repr=False)
    inputs: Mapping[Path, str | None] = field(repr=False)
    outputs: Mapping[Path, str | None] = field(repr=False)

    @property
    def provenance(self) -> Mapping[str, Any]:
        return self.content[origins.KEY]

    def is_intact(self) -> bool:
        """Whether its content is what was written."""
        return self.provenance.get("record") == origins.content_digest(self.content)

    def changed_code(self, now: Mapping[str, str]) -> list[str]:
        """Source files that it depends on and that are not as they were; `now` as `provenance.code_files`.

        Its script and extensions are among them where they are there to be compared.
        """
        made = self.provenance
        files = made.get("code", {}).get("files", {})
        changed = [name for name, digest in files.items() if now.get(name) != digest]
        for told, digest in {**made.get("script", {}), **made.get("extensions", {})}.items():
            script = ledger.found_at(told, self.path, made.get("place"))
            if script is not None and script.is_file() and ledger.digest_of(str(script)) != digest:
                changed.append(told)
        return changed


def read_recorded(path: Path) -> Record | None:
    """The record in a JSON file (absolute path); None where it does not say what made it, or is no JSON."""
    try:
        content = json.loads(path.read_text())
    except ValueError:
        return None
    if not isinstance(content, dict) or not isinstance(content.get(origins.KEY), dict):
        return None
    made = content[origins.KEY]
    found = {ledger.found_at(told, path, made.get("place")): d for told, d in made.get("inputs", {}).items()}
    inputs = {place: digest for place, digest in found.items() if place is not None}
    outputs = {path.parent / name: digest for name, digest in made.get("outputs", {}).items()}
    return Record(path, content, inputs, outputs)


def files_below(folder: Path) -> Iterator[Path]:
    """Absolute paths of all files below a folder, or of the one that it is; raises InputError where nothing is."""
    top = os.path.abspath(folder)
    if os.path.isfile(top):
        yield Path(top)
        return
    if not os.path.isdir(top):
        raise InputError(f"{folder}: no such folder; run snakemake --cores all first, or give the results of a profile")
    for place, _, names in os.walk(top):
        yield from (Path(place, name) for name in names)


def stage_of(path: Path, folder: Path) -> str:
    """What a file below a folder belongs to: the folder's first below, below `results/PROFILE` if that is below it."""
    top = Path(os.path.abspath(folder))
    parts = path.relative_to(top).parts if path != top else ()
    if parts[:1] == ("results",) and len(parts) > 2:
        parts = parts[2:]
    return parts[0] if len(parts) > 1 else top.name
