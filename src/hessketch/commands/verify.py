"""Verify that results are still what their records say, and tell what made them.

Takes the digests (SHA-256) of all recorded files below the folders again, and compares. Told are files that have
changed, are missing or that no record tells of, results that were made from a file that has been made anew since, and,
which is no error, source files that are not as they were. Exit status 1 where there is such a problem. Where Snakemake
made the results, the last line is the command that makes them anew.

examples:
  python -m hessketch verify results/demo
  python -m hessketch verify results/demo --json > verified.json
"""

import argparse
import json
import shlex
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hessketch.verification import STATES, Finding, Verification, shown, verify

if TYPE_CHECKING:
    from hessketch.recorded import Record

_SHOWN = 100
_NAMED_CODE = 8


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "folders", type=Path, nargs="+", metavar="FOLDER", help="results of a profile, a run or an archive"
    )
    parser.add_argument("--json", action="store_true", help="everything as JSON on the standard output")


def run(arguments: argparse.Namespace, progress) -> None:
    found = verify(arguments.folders, progress.stage("MiB"))
    progress.close()
    print(json.dumps(_as_json(found), indent=2) if arguments.json else _as_text(found, arguments.folders))
    if found.problems:
        raise SystemExit(1)


def _as_text(found: Verification, folders: list[Path]) -> str:
    lines = [*_table(found), "", *_made_by(found), *_code(found), *_notes(found), ""]
    problems = found.problems
    lines += [f"{problem.state:13}{shown(problem.path)}: {problem.why}" for problem in problems[:_SHOWN]]
    if len(problems) > _SHOWN:
        lines.append(f"... and {len(problems) - _SHOWN} more: --json names them all")
    counted = Counter(problem.state for problem in problems)
    size = f"{len(found.findings)} files, {found.size / 2**20:,.0f} MiB"
    words = ", ".join(f"{count} {state}" for state, count in counted.items())
    lines.append(f"{', '.join(map(str, folders))}: {size}, " + (words or "all as recorded"))
    command = mending(problems)
    return "\n".join(lines + ([f"make anew: {command}"] if command else []))


def _table(found: Verification) -> list[str]:
    counts = found.counts()
    columns = ("records", *STATES)
    rows = [("", *columns), *((stage, *(str(of[name]) for name in columns)) for stage, of in counts.items())]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(_padded, range(len(row)), row, widths)) for row in rows]


def _padded(column: int, word: str, width: int) -> str:
    return word.rjust(width) if column else word.ljust(width)


def _made_by(found: Verification) -> list[str]:
    """What the records say made them: a line for each commit, versions and device."""
    groups: dict[str, list[str]] = {}
    for record in found.records.values():
        groups.setdefault(_maker(record), []).append(record.provenance["written"])
    return [f"made with {maker}: {len(when)} records, {min(when)} to {max(when)}" for maker, when in groups.items()]


def _maker(record: "Record") -> str:
    made, environment = record.provenance, record.content.get("environment", {})
    commit = (made.get("commit") or "of no known commit")[:18]
    changed = " with uncommitted changes" if made.get("uncommitted_changes") else ""
    torch = environment.get("packages", made.get("packages", {})).get("torch")
    device = f", on {environment['device']} ({environment['device_name']})" if "device_name" in environment else ""
    return f"source {commit}{changed}, Python {made.get('python')}, torch {torch}{device}"


def _code(found: Verification) -> list[str]:
    changed = found.changed_code()
    if not changed:
        return ["the code is as it was"]
    results = {path for paths in changed.values() for path in paths}
    named = [f"{name} ({len(paths)})" for name, paths in changed.items()]
    more = f" and {len(named) - _NAMED_CODE} more" if len(named) > _NAMED_CODE else ""
    return [f"the code has changed since {len(results)} records in {', '.join(named[:_NAMED_CODE])}{more}"]


def _notes(found: Verification) -> list[str]:
    lines = []
    if found.absent:
        lines.append(f"{len(found.absent)} inputs lie elsewhere and are not there, such as {shown(found.absent[0])}")
    if found.left_out:
        lines.append(f"{len(found.left_out)} files were left out of the archive, such as {shown(found.left_out[0])}")
    if found.unfinished:
        lines.append(f"{found.unfinished} files of unfinished work")
    return lines


def mending(problems: list[Finding]) -> str:
    """The command that makes anew what is not as recorded; empty where Snakemake did not make it."""
    # Files of one folder are made by one job.
    recorded = [problem for problem in reversed(problems) if problem.record is not None]
    files = list({path.parent: shown(path) for path in map(_made_anew, recorded)}.values())[::-1]
    if not files or not Path("Snakefile").is_file() or any(Path(file).is_absolute() for file in files):
        return ""
    profiles = {Path(file).parts[1] for file in files if Path(file).parts[0] == "results" and len(Path(file).parts) > 2}
    config = f"config/{profiles.pop()}.yaml" if len(profiles) == 1 else ""
    configured = ["--configfile", config] if Path(config).is_file() else []
    return shlex.join(["snakemake", "--forcerun", *files, *configured])


def _made_anew(problem: Finding) -> Path:
    """The file to ask a workflow for: of a record the first of its files, since rules need not name it."""
    record = problem.record
    if record is None or problem.path != record.path:
        return problem.path
    return next(iter(record.outputs), record.path)


def _as_json(found: Verification) -> dict[str, Any]:
    return {
        "stages": {stage: dict(counts) for stage, counts in found.counts().items()},
        "bytes": found.size,
        "problems": [
            {"path": shown(problem.path), "state": problem.state, "why": problem.why} for problem in found.problems
        ],
        "make_anew": mending(found.problems) or None,
        "changed_code": {name: [shown(path) for path in paths] for name, paths in found.changed_code().items()},
        "absent": [shown(path) for path in found.absent],
        "left_out": [shown(path) for path in found.left_out],
        "unfinished": found.unfinished,
        "records": [
            {
                "path": shown(path),
                **{key: record.provenance.get(key) for key in ("written", "command", "commit", "uncommitted_changes")},
                "code": record.provenance.get("code", {}).get("package"),
                "environment": record.content.get("environment"),
                "inputs": {shown(place): digest for place, digest in record.inputs.items()},
                "outputs": {shown(place): digest for place, digest in record.outputs.items()},
            }
            for path, record in found.records.items()
        ],
    }
