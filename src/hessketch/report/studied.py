"""Studies as the report shows them: what was run, figures, tables."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from hessketch.claims.papers import PAPERS, Paper
from hessketch.figures.style import dataset_name, network_name
from hessketch.ledger import file_digest
from hessketch.recorded import read_recorded
from hessketch.records import read_table
from hessketch.report.pictures import Group, Picture, groups_of
from hessketch.report.words import NOTHING, Commands, anchor, listed, number, title
from hessketch.runs import number_text

_FIRST_ROWS = 3
_MOST_COLUMNS = 8  # of a table that is shown upright


@dataclass(frozen=True)
class Table:
    """A table's first rows; `whole` where these are all, `turned` where its columns stand below each other.

    `state` compares its digest with what the record of the job that wrote it says.
    """

    name: str
    place: str
    rows: int
    columns: int
    bytes: int
    digest: str
    state: str
    head: tuple[str, ...]
    cells: tuple[tuple[str, ...], ...]
    whole: bool
    turned: bool
    command: str


@dataclass(frozen=True)
class Runs:
    """What a study looked at, as text."""

    datasets: str
    networks: str
    parameters: str
    examples: str
    trainers: str
    seeds: str
    runs: int
    diverged: int


@dataclass(frozen=True)
class Study:
    name: str
    title: str
    anchor: str
    paper: Paper | None
    runs: Runs | None
    groups: tuple[Group, ...]
    tables: tuple[Table, ...]
    notebook: str
    command: str
    notebook_command: str


def studies_of(results: Path) -> list[str]:
    """Names of the studies that have tables, in the order of the papers; others, such as an extension's, after them."""
    known = [study for paper in PAPERS.values() for study in paper.studies]
    found = {path.parent.name for path in results.glob("*/*.parquet")}
    return [*(study for study in known if study in found), *sorted(found - set(known))]


def study_of(name: str, results: Path, pictures: Sequence[Picture], commands: Commands) -> Study:
    """Raises InputError for a damaged table."""
    folder = results / name
    recorded = read_recorded((folder / "record.json").absolute()) if (folder / "record.json").is_file() else None
    digests = {} if recorded is None else recorded.outputs
    tables = [_table(path, digests, commands) for path in sorted(folder.glob("*.parquet"))]
    tables[:0] = [_table(path, digests, commands) for path in sorted(folder.glob("*.csv"))]
    notebook = folder / "notebook.html"
    return Study(
        name=name,
        title=title(name),
        anchor=anchor("study", name),
        paper=next((paper for paper in PAPERS.values() if name in paper.studies), None),
        runs=_runs(folder / "runs.parquet"),
        groups=tuple(groups_of(list(pictures))),
        tables=tuple(tables),
        notebook=notebook.as_posix() if notebook.is_file() else "",
        command=commands.making(name),
        notebook_command=commands.making(notebook.as_posix()),
    )


def _table(path: Path, digests: Mapping[Path, str | None], commands: Commands) -> Table:
    is_csv = path.suffix == ".csv"
    frame = pd.read_csv(path, dtype=str, keep_default_na=False) if is_csv else read_table(path)
    shown = frame if is_csv else frame.head(_FIRST_ROWS)
    turned = len(frame.columns) > _MOST_COLUMNS
    head, cells = _turned(shown) if turned else _upright(shown)
    found, told = file_digest(path), digests.get(path.absolute())
    return Table(
        name="Table 1" if path.stem == "table1" and is_csv else path.stem,
        place=path.as_posix(),
        rows=len(frame),
        columns=len(frame.columns),
        bytes=path.stat().st_size,
        digest=found,
        state="not recorded" if told is None else "as recorded" if told == found else "changed since it was recorded",
        head=tuple(head),
        cells=tuple(cells),
        whole=len(shown) == len(frame),
        turned=turned,
        command="" if not digests else commands.making(path.as_posix()),
    )


def _upright(shown: pd.DataFrame) -> tuple[list[str], list[tuple[str, ...]]]:
    return list(map(str, shown.columns)), [tuple(map(_cell, row)) for row in shown.itertuples(index=False)]


def _turned(shown: pd.DataFrame) -> tuple[list[str], list[tuple[str, ...]]]:
    """A line a column, with its kind: wide tables fit on a phone and on paper."""
    head = ["column", "kind", *(f"row {i + 1}" for i in range(len(shown)))]
    return head, [(str(name), _kind(shown[name]), *map(_cell, shown[name])) for name in shown]


def _cell(value: object) -> str:
    item = value.item() if hasattr(value, "item") else value
    if isinstance(item, bool):
        return "yes" if item else "no"
    return number(item) if isinstance(item, int | float) else NOTHING if item is None or item == "" else str(item)


def _kind(column: pd.Series) -> str:
    names = {"f": "number", "i": "whole number", "u": "whole number", "b": "yes or no"}
    return names.get(column.dtype.kind, "text")


def _runs(path: Path) -> Runs | None:
    if not path.is_file():
        return None
    runs = read_table(path)
    networks = runs[["network", "norm", "width"]].drop_duplicates().itertuples(index=False)
    return Runs(
        datasets=listed(map(dataset_name, sorted(set(runs["dataset"])))),
        networks=listed(network_name(f"{row.network}-{row.norm}-w{number_text(row.width)}") for row in networks),
        parameters=listed(map(number, sorted(set(runs["p"].dropna())))),
        examples=listed(map(number, sorted(set(runs["n"].dropna())))),
        trainers=listed(sorted(set(runs["trainer"])), most=4),
        seeds=listed(sorted(set(runs["seed"]))),
        runs=len(runs),
        diverged=int((runs["status"] == "diverged").sum()),
    )
