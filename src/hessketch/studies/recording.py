"""Recorded studies: tables small enough for a repository, and what they were made with, so that figures need no runs.

A recorded study is a folder of the study's tables, `figures.json` (what its plotting script is told for each figure),
`config.json` (the profile's) and `provenance.json` (its run records, condensed).
"""

import datetime
import json
import shlex
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hessketch.errors import InputError
from hessketch.recordings import require_names
from hessketch.records import provenance_of, read_record, read_table, write_atomically

DIGITS = 17
"""Binary digits that are kept of a recorded number: five decimal ones."""
EXACT = 200
"""Columns of at most so many different values are kept as they are: those that say what a row is of are such."""
_FEW = 20  # a column with this many times fewer values than rows is stored by a dictionary


def rounded(frame: pd.DataFrame) -> pd.DataFrame:
    """The table with floats rounded to DIGITS binary digits, but for EXACT columns; their zero bytes then pack well."""
    taken = {}
    for name in frame.select_dtypes("float"):
        if frame[name].nunique() > EXACT:
            mantissas, exponents = np.frexp(frame[name].to_numpy())
            taken[name] = np.ldexp(np.round(mantissas * 2.0**DIGITS), exponents - DIGITS)
    return frame.assign(**taken)


def record_study(
    tables: Path, output: Path, figures: Mapping[str, str], config: Path, records: Iterable[Path]
) -> dict[str, int]:
    """Records a study's tables (a folder of Parquet; CSV is copied) into the folder `output`; returns bytes by file.

    `figures` maps `folder/figure` to the plotting script's arguments for it, as shell words. What `output` held before
    is replaced, but for its pictures (*.png). Raises InputError where there is no table, or a name would leave a
    folder.
    """
    found = sorted(tables.glob("*.parquet"))
    if not found:
        raise InputError(f"{tables}: holds no table; run the study first, then record it")
    require_names(figures)
    condensed = provenance(records)
    for old in (path for pattern in ("*.parquet", "*.csv", "*.json") for path in output.glob(pattern)):
        old.unlink()
    for path in found:
        _write_packed(rounded(read_table(path)), output / path.name)
    for path in sorted(tables.glob("*.csv")):
        write_atomically(output / path.name, partial(shutil.copyfile, path))
    _write_json({name: shlex.split(words) for name, words in figures.items()}, output / "figures.json")
    _write_json(read_record(config), output / "config.json")
    _write_json(condensed, output / "provenance.json")
    return {path.name: path.stat().st_size for path in sorted(output.iterdir()) if path.suffix != ".png"}


def _write_packed(frame: pd.DataFrame, path: Path) -> None:
    few = [name for name in frame if frame[name].nunique() * _FEW <= len(frame) or frame[name].dtype.kind != "f"]
    how: dict[str, Any] = {"use_dictionary": few, "use_byte_stream_split": [name for name in frame if name not in few]}
    how |= {"compression": "zstd", "compression_level": 19, "write_page_checksum": True}
    write_atomically(path, lambda place: frame.to_parquet(place, index=False, **how))


def _write_json(content: Mapping[str, Any], path: Path) -> None:
    """Without what a run record says of its making: `provenance.json` says it once for all files of the folder."""
    text = json.dumps(content, indent=1) + "\n"
    write_atomically(path, lambda place: place.write_text(text))


def provenance(records: Iterable[Path]) -> dict[str, Any]:
    """Run records condensed: how many, when they were written (UTC), commits, environments, seeds, cost.

    An environment is what its records have in common, with the number of them. There is no commit where the code was no
    checkout, and then nobody knows of uncommitted changes (None). `code` has the digests of the package's source, where
    records name them. Raises InputError without any.
    """
    paths = sorted(set(records))
    if not paths:
        raise InputError("no record of a run is given; a recording says what it was made with: give record.json files")
    read = [read_record(path) for path in paths]
    all_made = [provenance_of(path) for path in paths]
    written = sorted(made.get("written") or _time(path) for made, path in zip(all_made, paths, strict=True))
    environments = [dict(record["environment"]) for record in read if "environment" in record]
    sources = [environment.pop("source", {}) for environment in environments]
    kinds = Counter(json.dumps(environment, sort_keys=True) for environment in environments)
    return {
        "records": len(read),
        "written": {"first": written[0], "last": written[-1]},
        "commits": _values(source.get("commit") for source in sources),
        "uncommitted_changes": _any(source.get("uncommitted_changes") for source in sources),
        "code": _values(
            made.get("code", {}).get("package", record.get("code")) for made, record in zip(all_made, read, strict=True)
        ),
        "seeds": _values(record.get("identity", {}).get("seed") for record in read),
        "wall_seconds": round(sum(record.get("wall_seconds", 0.0) for record in read), 1),
        "environments": [{"records": count, **json.loads(text)} for text, count in kinds.most_common()],
    }


def _any(found: Iterable[bool | None]) -> bool | None:
    """True if any is, else None if any is unknown."""
    values = set(found)
    return True if True in values else None if None in values else False


def _values(found: Iterable[Any]) -> list[Any]:
    return sorted({value for value in found if value is not None})


def _time(path: Path) -> str:
    """When a file was written, of a record that does not say it."""
    return datetime.datetime.fromtimestamp(path.stat().st_mtime, datetime.UTC).isoformat(timespec="seconds")
