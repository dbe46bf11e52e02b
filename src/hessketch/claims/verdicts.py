"""Verdicts: the claims' criteria held against what the studies of a profile measured.

Of each case the mean over seeds counts, with its standard error. Where the criterion must hold in every case, the worst
one decides; for a mean of cases, cases are averaged within each seed first. A claim is supported where the value lies
on its side of the threshold by more than one standard error, contradicted where it lies on the other side by as much,
and not tested in between. With one seed, or seeds that do not differ, the value alone decides.
"""

import functools
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from hessketch.claims.catalog import STUDIES, all_claims
from hessketch.claims.claim import CASE, OBSERVED, Claim, NotTested
from hessketch.claims.observations import case_name, scale
from hessketch.errors import InputError
from hessketch.records import read_table

SUPPORTED, CONTRADICTED, NOT_TESTED = VERDICTS = ("supported", "contradicted", "not tested at this scale")
CLOSE = "within one standard error of the criterion: more seeds needed"
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
            seen.append(observations.assign(claim=claim.name))
        rows.append({"claim": claim.name, **{name: getattr(claim, name) for name in _TOLD}, **decided})
    found = pd.concat(seen[1:] or seen, ignore_index=True)
    return Judged(pd.DataFrame(rows)[list(COLUMNS)], found[["claim", *OBSERVED]])


def _observations(claim: Claim, results: Path, studies: set[str], read: Callable[[str], pd.DataFrame]) -> pd.DataFrame:
    """What a claim's measure finds, without missing values. Raises NotTested with the reason for nothing."""
    for table in claim.tables:
        study = table.split("/")[0]
        if study not in studies or not (results / study).is_dir():
            raise NotTested(f"the profile has no study {study}")
        if not (results / f"{table}.parquet").is_file():
            raise NotTested(f"the table {table} is missing: it was not made, or not recorded")
    observations = claim.measure({table: read(table) for table in claim.tables})
    observations = observations.loc[observations["value"].notna(), list(OBSERVED)]
    if observations.empty:
        raise NotTested("nothing was measured")
    return observations


def verdict(claim: Claim, observations: pd.DataFrame) -> dict[str, Any]:
    """The columns `value` to `reason` of a claim with at least one observation, none of them missing."""
    by_case = observations.groupby(_CASE, dropna=False, sort=False)["value"]
    cases = by_case.agg(["mean", "sem", "count"]).reset_index()
    sign = 1 if claim.sense == "at least" else -1
    worst = cases.loc[(sign * cases["mean"]).idxmin()]
    if claim.over == "every case":
        value, error, seeds, deciding = worst["mean"], worst["sem"], worst["count"], case_name(worst)
    else:
        means = observations.groupby("seed")["value"].mean()
        value, error, seeds, deciding = means.mean(), means.sem(), len(means), f"mean of {len(cases)}"
    decision, reason = _decision(sign * (value - claim.threshold), error, int(seeds))
    return {
        "value": float(value),
        "standard_error": float(error),
        "seeds": int(seeds),
        "cases": len(cases),
        "cases_met": int((sign * (cases["mean"] - claim.threshold) >= 0).sum()),
        "deciding_case": deciding,
        "scale": scale(observations),
        "verdict": decision,
        "reason": reason,
    }


def _decision(margin: float, error: float, seeds: int) -> tuple[str, str]:
    """Verdict and reason; `margin` is how far the value lies on the claim's side of the threshold."""
    if seeds > 1 and error > 0 and abs(margin) <= error:
        return NOT_TESTED, CLOSE
    return (SUPPORTED if margin >= 0 else CONTRADICTED), ("" if seeds > 1 else ONE_SEED)
