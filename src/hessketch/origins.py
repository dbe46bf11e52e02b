"""What a record and a table say of the files and the code that made them: the `provenance` they are stored with.

A record holds digests of all that its process had read when it was written (`inputs`), of the files that its process
wrote into its folder (`outputs`; so it is written after them) and of its own content (`record`), and the command,
script, commit, code and versions. A table holds the records that it came from, each with a shortened digest.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hessketch import ledger
from hessketch.provenance import code_digest, made_by, source_version, versions

KEY = "provenance"
RECORDS = ("record.json", "selection.json")
_SHORT = 16  # hexadecimal digits; the study's record has them all


def content_digest(record: Mapping[str, Any]) -> str:
    """SHA-256 of a record's content as JSON, keys in order of the alphabet, without its own digest."""
    content = json.loads(json.dumps(record))
    content.get(KEY, {}).pop("record", None)
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def with_provenance(record: Mapping[str, Any], path: Path) -> Mapping[str, Any]:
    """The record as it is stored at a path: with its `provenance`, but for records of unfinished work."""
    folder = ledger.published(path.parent)
    if folder is None or not isinstance(record, Mapping):
        return record
    made = made_by() if "environment" in record else {**made_by(), "packages": versions()}
    outputs = {name: digest for name, digest in ledger.outputs(path.parent).items() if name != path.name}
    files = {"place": ledger.place(folder / path.name), "inputs": ledger.inputs(folder), "outputs": outputs}
    stored = {**record, KEY: {**made, **files}}
    return {**record, KEY: {**stored[KEY], "record": content_digest(stored)}}


def of_table(path: Path) -> dict[str, Any]:
    """The `provenance` of a table at a path; empty of unfinished work.

    A file that was read and stands beside a record is told by that record, which has the digests of both.
    """
    folder = ledger.published(path.parent)
    if folder is None:
        return {}
    made = {"record": RECORDS[0], "code": code_digest()[:_SHORT], **source_version()}
    return {**made, "records": _records_of(folder)}


def _records_of(folder: Path) -> dict[str, str | None]:
    records: dict[str, str | None] = {}
    for path, digest in ledger.inputs_by_path().items():
        beside = (os.path.join(os.path.dirname(path), name) for name in RECORDS)
        record = next((name for name in beside if os.path.isfile(name)), None)
        digest = digest if record in (None, path) else ledger.digest_of(record)
        records[ledger.told_from(record or path, folder)] = digest and digest[:_SHORT]
    return records
