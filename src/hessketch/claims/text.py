"""Verdicts as a table in plain text, for a terminal."""

import textwrap
from itertools import zip_longest

import numpy as np
import pandas as pd

from hessketch.claims.observations import case_name
from hessketch.claims.papers import PAPERS
from hessketch.documents import VERDICTS

WIDTH = 118
_COLUMNS = {"statement": 37, "criterion": 35, "value": 17, "cases": 7, "verdict": 14}
_GAP = "  "


def claims_text(claims: pd.DataFrame) -> str:
    """The verdicts by paper, each with its scale and what decided it, and a tally; at most WIDTH columns wide."""
    blocks = []
    for key in _papers(claims):
        paper = PAPERS.get(key)
        title = f"{paper.authors} ({paper.year}): {paper.title}. {paper.where}" if paper else key
        blocks += [f"{textwrap.fill(title, WIDTH)}\n{_line({name: name for name in _COLUMNS})}\n{'-' * WIDTH}"]
        blocks += [_claim(row) for row in claims[claims["paper"] == key].to_dict("records")]
    return "\n\n".join([*blocks, _tally(claims)])


def _papers(claims: pd.DataFrame) -> list[str]:
    """Keys of the claims' papers, in the order of PAPERS, then those of claims of one's own."""
    present = set(claims["paper"])
    return [*(key for key in PAPERS if key in present), *sorted(present - set(PAPERS))]


def measured_text(value: float, standard_error: float) -> str:
    """`0.123 ± 0.004`: the error in two digits, the value to as many places; without an error in three digits."""
    if np.isnan(value):
        return ""
    if not np.isfinite(standard_error) or standard_error == 0:
        return f"{value:.3g}"
    places = max(0, 1 - int(np.floor(np.log10(standard_error))))
    return f"{value:.{places}f} ± {standard_error:.{places}f}" if places <= 6 else f"{value:.3g} ± {standard_error:.2g}"


def _claim(row: dict) -> str:
    unit = f" {row['unit']}" if row["unit"] else ""
    cells = {
        "statement": row["statement"],
        "criterion": f"{row['sense']} {row['threshold']:g}{unit}: {row['quantity']}",
        "value": measured_text(row["value"], row["standard_error"]),
        "cases": f"{row['cases_met']} of {row['cases']}" if row["cases"] else "",
        "verdict": row["verdict"],
    }
    notes = {"decided by": row["deciding_case"], "scale": row["scale"], "note": row["reason"]}
    indented = [
        textwrap.fill(f"{name}: {text}", WIDTH, initial_indent="    ", subsequent_indent="      ")
        for name, text in notes.items()
        if text
    ]
    return "\n".join([_line(cells), *indented])


def _line(cells: dict[str, str]) -> str:
    """Cells side by side, each wrapped to its column's width."""
    columns = [textwrap.wrap(cells[name], width) or [""] for name, width in _COLUMNS.items()]
    lines = zip_longest(*columns, fillvalue="")
    padded = (_GAP.join(map(str.ljust, line, _COLUMNS.values())) for line in lines)
    return "\n".join(line.rstrip() for line in padded)


def _tally(claims: pd.DataFrame) -> str:
    """Counts of the verdicts, of each paper and in all."""
    rows = [("", *VERDICTS, "claims")]
    groups = [(paper, claims[claims["paper"] == paper]) for paper in _papers(claims)]
    for name, own in [*groups, ("all", claims)]:
        rows.append((name, *(str((own["verdict"] == verdict).sum()) for verdict in VERDICTS), str(len(own))))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [_GAP.join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows]
    return "\n".join(lines)


def observations_text(observations: pd.DataFrame) -> str:
    """What one claim was decided on, a line for each case and seed."""
    if observations.empty:
        return "no observations"
    cases = [case_name(row) for row in observations.to_dict("records")]
    table = observations.assign(case=cases)[["case", "p", "n", "seed", "value"]]
    return table.to_string(index=False, float_format="{:.6g}".format)
