"""What results were made with: dates, code, devices and versions, as their records say."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hessketch.records import read_record
from hessketch.report.words import NOTHING, listed
from hessketch.studies.recording import provenance


@dataclass(frozen=True)
class Made:
    """The records of `what`, condensed; see `studies.recording.provenance`."""

    what: str
    records: int
    first: str
    last: str
    commits: str
    tree: str
    package: str
    seeds: str
    environments: tuple[dict[str, Any], ...]


def made_with(results: Path) -> list[Made]:
    """Of a profile's results one summary of all records; of recorded studies that of each. Raises InputError."""
    records = sorted(results.rglob("record.json"))
    if records:
        return [_made(results.name, provenance(records))]
    return [_made(path.parent.name, read_record(path)) for path in sorted(results.glob("*/provenance.json"))]


def config_of(results: Path) -> dict[str, Any]:
    """The profile's full config, or, of recorded studies, that of the first; empty without any."""
    found = [path for path in (results / "config.json", *sorted(results.glob("*/config.json"))) if path.is_file()]
    return read_record(found[0]) if found else {}


def _made(what: str, told: dict[str, Any]) -> Made:
    trees = {True: "uncommitted changes in some of them", False: "clean", None: "unknown: no checkout"}
    return Made(
        what=what,
        records=told["records"],
        first=_date(told["written"]["first"]),
        last=_date(told["written"]["last"]),
        commits=listed(told["commits"]),
        tree=trees[told["uncommitted_changes"]],
        package=listed(told["code"]),
        seeds=listed(told["seeds"], most=12),
        environments=tuple(_environment(environment) for environment in told["environments"]),
    )


def _environment(told: dict[str, Any]) -> dict[str, Any]:
    """One environment in words, `packages` by name."""
    words = {True: "yes", False: "no", None: NOTHING}
    names = {"device": "Device", "device_name": "Name", "threads": "Threads", "host_cpus": "Cores of the machine",
             "deterministic_algorithms": "Deterministic algorithms", "tf32": "TF32"}  # fmt: skip
    shown = {name: told.get(key, NOTHING) for key, name in names.items()}
    shown = {name: words.get(value, value) if isinstance(value, bool) else value for name, value in shown.items()}
    packages = {"python": told.get("python", NOTHING), **told.get("packages", {})}
    return {"records": told["records"], "shown": shown, "packages": packages}


def _date(text: str) -> str:
    """2026-11-22T00:44:23+00:00 as 2026-11-22 00:44 UTC; Zones other than UTC do not occur."""
    return f"{text[:10]} {text[11:16]} UTC"
