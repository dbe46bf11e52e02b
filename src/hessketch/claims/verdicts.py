"""Verdicts: the claims' criteria held against what the studies of a profile measured.

Of each case the mean over seeds counts, with its standard error. A mean is certainly on a side of the threshold where
it lies there by more than one standard error; with one seed, or seeds that do not differ, by its value alone. Where the
criterion must hold in every case, the claim is contradicted if any case is certainly on the wrong side, supported if
all are certainly on the right one, and not tested else. For a mean of cases, cases are averaged within each seed
first, and that mean is held against the threshold as a single case.
"""

import functools
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hessketch.claims.catalog import STUDIES, all_claims
from hessketch.claims.claim import CASE, OBSERVED, Claim, NotTested
from hessketch.claims.observations import case_name, scale
from hessketch.documents import VERDICTS
from hessketch.errors import InputError
from hessketch.records import read_table

SUPPORTED, CONTRADICTED, NOT_TESTED = VERDICTS
CLOSE = "within one standard error of the criterion{}: more seeds needed"
ONE_SEED = "one seed"
COLUMNS = (
    "claim", "paper", "place", "statement", "quantity", "unit", "sense", "threshold", "why", "over", "value",
    "standard_error", "seeds", "cases", "cases_met", "deciding_case", "scale", "verdict", "reason", "study", "figure",
    "pictured",
)  # fmt: skip
_TOLD = ("paper", "place", "statement", "quantity", "unit", "sense", "threshold", "why", "over", "study", "figure",
         "pictured")  # fmt: skip
_CASE = list(CASE)
_UNDECIDED = {
    "value": math.nan, "standard_error": math.nan, "seeds": 0, "cases": 0, "cases_met": 0, "deciding_case": "",
    "scale": "", "verdict": NOT_TESTED,
}  # fmt: skip


@dataclass(frozen=True)
class Judged:
    """What `judged` returns."""

    claims: pd.DataFrame  # one row a claim: COLUMNS
    observations: pd.DataFrame  # one row a claim, case and seed: `claim` and OBSERVED


def judged(results: Path, claims: Iterable[Claim] | None = None, studies: Iterable[str] | None = None) -> Judged:
    """Verdicts on claims by the tables of a profile, `results/STUDY/TABLE.parquet`.

    `results` is a profile's folder, as the pipeline made or recorded it; claims (default: all) on studies that are not
    among `studies` (default: those of all claims) are not tested, whatever lies there.

    Raises InputError where the folder has tables of none of the studies, and for a damaged table.
    """
    known = {*STUDIES, *(claim.study for claim in all_claims())}
    results, studies = Path(results), known if studies is None else set(studies)
    if not any(any((results / study).glob("*.parquet")) for study in studies):
        raise InputError(
            f"{results}: no tables of a study there; give a folder of results that has one of {', '.join(STUDIES)}"
        )
    read = functools.cache(lambda name: read_table(results / f"{name}.parquet"))
    rows, seen = [], [pd.DataFrame(columns=["claim", *OBSERVED])]
    for claim in all_claims() if claims is None else claims:
        try:
            observations = _observations(claim, results, studies, read)
        except NotTested as untested:
            decided = {**_UNDECIDED, "reason": str(untested)}
        else:
            decided = verdict(claim, observations)
            seen.append(observations[observations["value"].notna()].assign(claim=claim.name))
        rows.append({"claim": claim.name, **{name: getattr(claim, name) for name in _TOLD}, **decided})
    found = pd.concat(seen[1:] or seen, ignore_index=True)
    return Judged(pd.DataFrame(rows)[list(COLUMNS)], found[["claim", *OBSERVED]])


def _observations(claim: Claim, results: Path, studies: set[str], read: Callable[[str], pd.DataFrame]) -> pd.DataFrame:
    """What a claim's measure finds, some of it not missing. Raises NotTested with the reason for nothing."""
    for table in claim.tables:
        study = table.split("/")[0]
        if study not in studies or not (results / study).is_dir():
            raise NotTested(f"the profile has no study {study}")
        if not (results / f"{table}.parquet").is_file():
            raise NotTested(f"the table {table} is missing: it was not made, or not recorded")
    observations = claim.measure({table: read(table) for table in claim.tables})[list(OBSERVED)]
    if observations["value"].isna().all():
        raise NotTested("nothing was measured")
    return observations


def verdict(claim: Claim, observations: pd.DataFrame) -> dict[str, Any]:
    """The columns `value` to `reason` of a claim with at least one observation that is not missing (NaN)."""
    known = observations[observations["value"].notna()]
    cases = cases_of(known, claim.sense, claim.threshold)
    held = cases if claim.over == "every case" else _mean_of(cases, known, claim.sense, claim.threshold)
    decision, among = _decision(held)
    deciding = among.loc[among["margin"].idxmin()]
    where = f" in {deciding['name']}" if len(held) > 1 else ""
    every = len(cases) if len(known) == len(observations) else len(observations[_CASE].drop_duplicates())
    notes = {
        CLOSE.format(where): decision == NOT_TESTED,
        ONE_SEED: deciding["seeds"] == 1,
        f"{every - len(cases)} of {every} cases not measured": every > len(cases),
    }
    return {
        "value": float(deciding["mean"]),
        "standard_error": float(deciding["sem"]),
        "seeds": int(deciding["seeds"]),
        "cases": len(cases),
        "cases_met": int(cases["met"].sum()),
        "deciding_case": deciding["name"],
        "scale": scale(known),
        "verdict": decision,
        "reason": "; ".join(note for note, holds in notes.items() if holds),
    }


def cases_of(observations: pd.DataFrame, sense: str, threshold: float) -> pd.DataFrame:
    """Cases of a claim's observations, none of them missing, held against its criterion.

    Returns
    -------
    One row a case: the columns CASE, its `name`, `mean` over `seeds` and standard error `sem` (NaN with one seed), `p`
    and `n` (each a list of its values, None for NaN), `margin` (how far the mean lies on the right side of the
    threshold), `met` (whether it does), `certain` (whether by more than one standard error, on either side).
    """
    place = observations.groupby(_CASE, dropna=False, sort=False).ngroup()
    values = observations["value"].groupby(place)
    cases = observations.loc[~place.duplicated(), _CASE].reset_index(drop=True)
    cases = cases.assign(mean=values.mean(), sem=values.sem(), seeds=values.count())
    for name in "pn":
        found: list[dict] = [{} for _ in range(len(cases))]
        for case, value in zip(place, observations[name], strict=True):
            found[case][None if math.isnan(value) else value] = True
        cases[name] = [list(values) for values in found]
    cases["name"] = [case_name(case) for case in cases.to_dict("records")]
    return _with_margins(cases, sense, threshold)


def _mean_of(cases: pd.DataFrame, observations: pd.DataFrame, sense: str, threshold: float) -> pd.DataFrame:
    """The mean of cases, taken within each seed first, as if it were a single case."""
    means = observations.groupby("seed")["value"].mean()
    row = {"name": f"mean of {len(cases)}", "mean": means.mean(), "sem": means.sem(), "seeds": len(means)}
    return _with_margins(pd.DataFrame([row]), sense, threshold)


def _with_margins(means: pd.DataFrame, sense: str, threshold: float) -> pd.DataFrame:
    margin = (means["mean"] - threshold) * (1 if sense == "at least" else -1)
    near = (means["sem"] > 0) & (np.abs(margin) <= means["sem"])
    return means.assign(margin=margin, met=margin >= 0, certain=~near)


def _decision(cases: pd.DataFrame) -> tuple[str, pd.DataFrame]:
    """The verdict on the criterion in every one of the cases, and those of them whose worst one decides it."""
    wrong, unclear = cases[cases["certain"] & ~cases["met"]], cases[~cases["certain"]]
    if len(wrong):
        return CONTRADICTED, wrong
    return (NOT_TESTED, unclear) if len(unclear) else (SUPPORTED, cases)
