"""One file for a paper's appendix: the results of a profile, what made them, and digests to verify them by.

The same files give the same bytes: members are sorted and carry no times. Unpacked it is verified as results are, by
`python -m hessketch verify FOLDER` or, without hessketch, by `sha256sum --check MANIFEST.sha256`.
"""

import hashlib
import json
import platform
import shutil
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from hessketch import ledger
from hessketch.errors import InputError
from hessketch.manifests import ABOUT, MANIFEST, manifest_text
from hessketch.provenance import code_digest, code_files, source_version
from hessketch.recorded import files_below
from hessketch.records import write_atomically
from hessketch.verification import Verification, verify

VERSIONS = "versions.txt"
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the first that a zip file knows


def pack(
    output: Path,
    results: Path,
    others: Sequence[Path] = (),
    *,
    weights: bool = False,
    report: Callable[[int, int], None] | None = None,
) -> dict[str, int]:
    """Packs the results of a profile and `others` (folders and files, where they are there) as a zip file.

    Left out are unfinished work and, but for `weights`, all `.safetensors`; `archive.json` names what records tell of
    and is not there. Paths are those in the working directory. Returns the numbers of files `packed` and `left_out`.
    Raises InputError for results that are not as recorded, and for files outside the working directory.
    """
    found = verify([results], report)
    if found.problems:
        raise InputError(
            f"{results}: {len(found.problems)} files are not as recorded, such as {found.problems[0].path.name} "
            f"({found.problems[0].state}); python -m hessketch verify {results} names them, and how to mend it"
        )
    members = _members([results, *(path for path in others if path.exists())], output, weights)
    out = _left_out(found, members)
    about = json.dumps(_about(results.name, out), indent=2) + "\n"
    name = f"hessketch-{results.name}"
    write_atomically(output, lambda path: _write(path, name, members, {ABOUT: about, VERSIONS: _versions()}))
    return {"packed": len(members), "left_out": len(out)}


def _members(places: Iterable[Path], output: Path, weights: bool) -> dict[str, Path]:
    """Path in the archive to file."""
    members, without = {}, {".zip"} if weights else {".zip", ".safetensors"}  # no archive within an archive
    for path in (path for place in places for path in files_below(place)):
        inside = ledger.place(path)
        if inside is None:
            raise InputError(f"{path}: lies outside the working directory; pack in the folder of the project")
        if not ledger.is_work(inside) and path.suffix not in without and path != output.absolute():
            members[inside] = path
    return dict(sorted(members.items()))


def _left_out(found: Verification, members: Mapping[str, Path]) -> list[str]:
    """What the records tell of and the archive has not; in the working directory."""
    told = {path for record in found.records.values() for path in (*record.inputs, *record.outputs)}
    places = {place for path in told if (place := ledger.place(path)) is not None}
    return sorted(places - members.keys())


def _about(profile: str, out: list[str]) -> dict[str, Any]:
    code = {"package": code_digest(), "files": dict(code_files())}
    return {"profile": profile, **source_version(), "python": platform.python_version(), "code": code, "left_out": out}


def _versions() -> str:
    """Every installed distribution, as `pip freeze` writes it."""
    found = {f"{distribution.name}=={distribution.version}" for distribution in metadata.distributions()}
    return "".join(f"{line}\n" for line in sorted(found, key=str.lower))


def _write(path: Path, name: str, members: Mapping[str, Path], texts: Mapping[str, str]) -> None:
    digests = {}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
        for inside, file in members.items():
            with open(file, "rb") as source, archive.open(_member(name, inside), "w", force_zip64=True) as target:
                shutil.copyfileobj(source, target, 2**20)
            digests[inside] = ledger.file_digest(file)
        for inside, text in texts.items():
            archive.writestr(_member(name, inside), text)
            digests[inside] = hashlib.sha256(text.encode()).hexdigest()
        archive.writestr(_member(name, MANIFEST), manifest_text(digests))


def _member(name: str, inside: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(f"{name}/{inside}", _EPOCH)
    info.create_system, info.external_attr, info.compress_type = 3, 0o644 << 16, zipfile.ZIP_DEFLATED
    return info
