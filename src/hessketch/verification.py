"""Whether results are still what was recorded: the digests of every recorded file, taken again.

A record (see `origins`) names with their digests the files that it came from and those that its job wrote. Compared
with what stands there now, a file is

    ok            as recorded
    changed       not what its job wrote; of a record: edited
    missing       named by a record, and not there
    not recorded  a table or weights of which no record tells what made them, or a record that does not say it
    outdated      a record whose result was made from a file that has been made anew since

Inputs elsewhere that are not there (results may be moved without their data) cannot be compared, nor what an archive
left out.
"""

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path

from hessketch import ledger
from hessketch.errors import InputError
from hessketch.manifests import MANIFEST, left_out, packed
from hessketch.provenance import code_files
from hessketch.recorded import Record, files_below, read_recorded, stage_of

OK, CHANGED, MISSING, NOT_RECORDED, OUTDATED = "ok", "changed", "missing", "not recorded", "outdated"
STATES = (OK, CHANGED, MISSING, NOT_RECORDED, OUTDATED)
_RESULTS = {".parquet", ".safetensors", ".json", ".csv"}
_THREADS = 4  # one hashes 0.7 GB/s, and holds no lock of Python's
_MIB = 2**20


@dataclass(frozen=True)
class Finding:
    """The state of one file (a word of the module's text), what is wrong, and the record that says so, if one does."""

    path: Path
    stage: str
    state: str
    why: str = ""
    record: Record | None = None


@dataclass(frozen=True)
class Verification:
    """Everything found below some folders."""

    findings: list[Finding]
    records: Mapping[Path, Record] = field(repr=False)
    stages: Mapping[Path, str] = field(repr=False)
    size: int  # bytes whose digests were taken
    absent: list[Path]  # inputs elsewhere that are not there
    left_out: list[Path]  # of an archive
    unfinished: int  # files of unfinished work

    @property
    def problems(self) -> list[Finding]:
        return [finding for finding in self.findings if finding.state != OK]

    def counts(self) -> dict[str, Counter]:
        """Stage to how many files of each state; how many of them are `records` that tell what made them."""
        counts: dict[str, Counter] = defaultdict(Counter)
        for finding in self.findings:
            counts[finding.stage][finding.state] += 1
        for path in self.records:
            counts[self.stages[path]]["records"] += 1
        return dict(sorted(counts.items()))

    def changed_code(self) -> dict[str, list[Path]]:
        """Source file that is not as it was, to the records that depend on it."""
        now, found = code_files(), defaultdict(list)
        for path, record in self.records.items():
            for name in record.changed_code(now):
                found[name].append(path)
        return dict(sorted(found.items()))


def verify(folders: Sequence[Path], report: Callable[[int, int], None] | None = None) -> Verification:
    """Compares what stands below the folders with what their records say; `report(done, total)` in MiB.

    Raises InputError for a folder that is not there, and where nothing says what it was made of.
    """
    stages = {path: stage_of(path, folder) for folder in folders for path in files_below(folder)}
    jsons = [path for path in sorted(stages) if path.suffix == ".json" and not ledger.is_work(path)]
    records = {record.path: record for path in jsons if (record := read_recorded(path)) is not None}
    manifest = {path: digest for folder in folders for path, digest in packed(folder).items()}
    if not records and not manifest:
        given = ", ".join(map(str, folders))
        raise InputError(f"{given}: no record here says what made it; give a folder that hessketch wrote results into")
    claims = _Claims(records.values(), manifest)
    digests, size = _digests([path for path in claims.paths() if path.is_file()], report)
    tops = [Path(os.path.abspath(folder)) for folder in folders]
    out = {path for folder in folders for path in left_out(folder)}
    findings: list[Finding] = []
    absent: list[Path] = []
    gone: list[Path] = []
    for path in sorted(claims.paths() | records.keys() | stages.keys()):
        own = path in stages or any(path.is_relative_to(top) for top in tops)
        if path not in digests and path not in stages and (path in out or not own):
            (gone if path in out else absent).append(path)
        elif own and (claims.knows(path) or path in records or _is_result(path)):
            stage = stages.get(path) or next(stage_of(path, top) for top in tops if path.is_relative_to(top))
            findings.append(Finding(path, stage, *claims.judge(path, digests)))
    unfinished = sum(ledger.is_work(path) for path in stages)
    return Verification(findings, records, stages, size, absent, gone, unfinished)


def _is_result(path: Path) -> bool:
    return path.suffix in _RESULTS and not ledger.is_work(path) and path.name != MANIFEST


class _Claims:
    """What records, and the manifest of an archive, say of files."""

    def __init__(self, records: Iterable[Record], manifest: Mapping[Path, str]):
        self._records = {record.path: record for record in records}
        self._manifest = manifest
        self._makers: dict[Path, Record] = {}
        self._users: dict[Path, list[Record]] = defaultdict(list)
        for record in self._records.values():
            for path in record.outputs:
                self._makers[path] = record
            for path in record.inputs:
                self._users[path].append(record)

    def knows(self, path: Path) -> bool:
        """Whether a record or the manifest names the file."""
        return path in self._makers or path in self._manifest or path in self._users

    def paths(self) -> set[Path]:
        """All files that are named."""
        return self._makers.keys() | self._manifest.keys() | self._users.keys()

    def judge(self, path: Path, digests: Mapping[Path, str]) -> tuple[str, str, Record | None]:
        """State, what is wrong and the record that says so, of a file below the folders."""
        found, maker = digests.get(path), self._makers.get(path)
        if found is None and self.knows(path):
            return MISSING, f"named by {self._namer(path)}", maker
        if not self._as_written(path, digests):
            return CHANGED, self._why_changed(path), maker or self._records.get(path)
        record = self._records.get(path)
        if record is not None:
            since = [source for source in record.inputs if self._is_outdated(record, source, digests)]
            if since:
                return OUTDATED, f"made from another {_named(since)}", record
        if record is None and maker is None and path not in self._manifest:
            return NOT_RECORDED, f"no record tells what made it{self._also(path)}", None
        return OK, "", maker or record

    def _as_written(self, path: Path, digests: Mapping[Path, str]) -> bool:
        """Whether a file is what its own record, the manifest, or, without either, all who read it say."""
        record, maker, found = self._records.get(path), self._makers.get(path), digests.get(path)
        if record is not None and not record.is_intact():
            return False
        if path in self._manifest and self._manifest[path] != found:
            return False
        if maker is not None:
            return maker.outputs[path] == found
        told = {user.inputs[path] for user in self._users[path]} - {None}
        return record is not None or len(told | {found}) <= 1

    def _is_outdated(self, record: Record, source: Path, digests: Mapping[Path, str]) -> bool:
        """Whether a source has been made anew since; one changed by hand or gone is a problem of its own."""
        found = digests.get(source)
        if found is None or record.inputs[source] in (None, found):
            return False
        made = source in self._makers or source in self._records or source in self._manifest
        return self._as_written(source, digests) if made else True

    def _why_changed(self, path: Path) -> str:
        if path in self._records and path not in self._makers:
            return f"edited since it was written{self._also(path)}"
        return f"not as {self._namer(path)} says{self._also(path)}"

    def _also(self, path: Path) -> str:
        users = len(self._users.get(path, ()))
        return f"; {users} {'result' if users == 1 else 'results'} came from it" if users else ""

    def _namer(self, path: Path) -> str:
        if path in self._makers:
            return self._makers[path].path.name
        return MANIFEST if path in self._manifest else shown(self._users[path][0].path)


def shown(path: Path) -> str:
    """A path as a reader wants it: in the working directory where it is in it."""
    return ledger.place(path) or str(path)


def _named(paths: Sequence[Path]) -> str:
    return shown(paths[0]) + (f" (and {len(paths) - 1} more)" if len(paths) > 1 else "")


def _digests(paths: list[Path], report: Callable[[int, int], None] | None) -> tuple[dict[Path, str], int]:
    """SHA-256 of each file, and their bytes together."""
    sizes = {path: path.stat().st_size for path in paths}
    total, done, digests = sum(sizes.values()), 0, {}
    with ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1)) as pool:
        under_way = {pool.submit(ledger.file_digest, path): path for path in paths}
        for finished in as_completed(under_way):
            path = under_way[finished]
            digests[path], done = finished.result(), done + sizes[path]
            if report is not None and len(digests) < len(paths):
                report(done // _MIB, total // _MIB + 1)
    if report is not None:
        report(total // _MIB + 1, total // _MIB + 1)
    return digests, total
