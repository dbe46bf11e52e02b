"""Claims as the report shows them: by paper, each with its cases and the figures to look at."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pandas as pd

from hessketch import documents
from hessketch.claims.claim import CASE, OBSERVED
from hessketch.claims.observations import case_name
from hessketch.claims.papers import PAPERS, Paper
from hessketch.claims.verdicts import cases_of
from hessketch.records import read_table
from hessketch.report.pictures import Picture
from hessketch.report.words import Commands, anchor, measured, number
from hessketch.runs import number_text

VERDICTS = dict(zip(documents.VERDICTS, "✓✗○", strict=True))
"""Each with the sign that stands beside the word: no reader has to tell colours apart."""
_COLUMNS = {
    "claim": "OU", "paper": "OU", "place": "OU", "statement": "OU", "quantity": "OU", "unit": "OU", "sense": "OU",
    "threshold": "f", "why": "OU", "over": "OU", "value": "f", "standard_error": "f", "verdict": "OU", "reason": "OU",
    "study": "OU", "figure": "OU", "pictured": "OU", "scale": "OU", "seeds": "i", "cases": "i", "cases_met": "i",
    "deciding_case": "OU",
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """One case of a claim: mean over `seeds` and its standard error, as text; `met`: the mean meets the criterion.

    `decides`: the case of a claim on every case that its verdict rests on.
    """

    name: str
    measured: str
    seeds: int
    p: str
    n: str
    met: bool
    decides: bool


@dataclass(frozen=True)
class Claimed:
    """A row of the claims' table, with what a page needs besides."""

    row: Mapping[str, Any]
    anchor: str
    kind: str
    criterion: str
    measured: str
    cases: tuple[Case, ...]
    pictures: tuple[Picture, ...]
    command: str


@dataclass(frozen=True)
class PaperClaims:
    paper: Paper
    anchor: str
    claims: tuple[Claimed, ...]

    def count(self, verdict: str) -> int:
        return sum(claim.row["verdict"] == verdict for claim in self.claims)


def claims_by_paper(results: Path, pictures: Mapping[str, Sequence[Picture]], commands: Commands) -> list[PaperClaims]:
    """The papers that `claims.parquet` has claims of, in the order of PAPERS; none without that table.

    `pictures` has the figures of each study. Raises InputError for a damaged table.
    """
    path = results / "claims.parquet"
    if not path.is_file():
        return []
    rows = read_table(path, _COLUMNS)
    every = results / "claim_observations.parquet"
    observed = read_table(every) if every.is_file() else pd.DataFrame(columns=["claim", *OBSERVED])
    found = []
    for key in [*PAPERS, *sorted(set(rows["paper"]) - set(PAPERS))]:
        own = rows[rows["paper"] == key].to_dict("records")
        if own:
            paper = PAPERS.get(key) or Paper(key, key, 0, "", "", "", (), "")
            claims = tuple(
                _claimed(row, observed[observed["claim"] == row["claim"]], pictures, commands, path) for row in own
            )
            found.append(PaperClaims(paper, anchor("paper", key), claims))
    return found


def _claimed(
    row: Mapping[str, Any],
    observed: pd.DataFrame,
    pictures: Mapping[str, Sequence[Picture]],
    commands: Commands,
    table: Path,
) -> Claimed:
    of_study = [p for p in pictures.get(row["study"], ()) if row["figure"] and fnmatchcase(p.name, row["figure"])]
    cases = observed.drop_duplicates(list(CASE)).assign(name=lambda cases: [*map(case_name, cases.to_dict("records"))])
    shown = tuple(_nearest(of_study, cases, row["deciding_case"]))
    return Claimed(
        row=row,
        anchor=anchor("claim", row["claim"]),
        kind=row["verdict"] if row["verdict"] in ("supported", "contradicted") else "open",
        criterion=" ".join(filter(None, [_SENSE.get(row["sense"]), number(row["threshold"]), row["unit"]])),
        measured=measured(row["value"], row["standard_error"], row["unit"]),
        cases=tuple(_cases(row, observed)),
        pictures=shown,
        command=commands.making(*(picture.place for picture in shown[:1]), table.as_posix()),
    )


_SENSE = {"at least": "≥", "at most": "≤"}


def _nearest(pictures: list[Picture], cases: pd.DataFrame, deciding: str) -> list[Picture]:
    """Those of the case that decides before others, or else of the first case, as far as names of figures tell."""
    if cases.empty:
        return pictures
    chosen = cases[cases["name"] == deciding]
    case = (cases if chosen.empty else chosen).iloc[0]
    width = "" if pd.isna(case["width"]) else f"-w{number_text(case['width'])}"
    words = [case["dataset"], case["network"], width, *case["case"].replace(" ", "").split(",")]
    return sorted(pictures, key=lambda picture: -sum(word != "" and word in picture.name for word in words))


def _cases(row: Mapping[str, Any], observed: pd.DataFrame) -> list[Case]:
    if observed.empty:
        return []
    return [
        Case(
            name=case["name"],
            measured=measured(case["mean"], case["sem"], row["unit"]),
            seeds=case["seeds"],
            p=", ".join(map(number, case["p"])),
            n=", ".join(map(number, case["n"])),
            met=case["met"],
            decides=case["name"] == row["deciding_case"],
        )
        for case in cases_of(observed, row["sense"], row["threshold"]).to_dict("records")
    ]
