"""A claim: one checkable statement of a paper, with the criterion that its measured value is held against."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import pandas as pd

from hessketch.extensions import register

Tables = Mapping[str, pd.DataFrame]
"""The tables that a claim reads, by `study/table`."""

CASE = ("dataset", "network", "width", "case")
"""What tells the cases of a claim apart: `case` is whatever else is varied, in words, or empty."""
OBSERVED = (*CASE, "p", "n", "seed", "value")
"""Columns of what `Claim.measure` returns: one row a case and seed; p parameters, n examples (NaN: not of one n)."""

Sense = Literal["at least", "at most"]
Over = Literal["every case", "mean of cases"]


class NotTested(Exception):
    """Raised by a measure where the tables cannot decide its claim; the message says what is missing."""


@dataclass(frozen=True)
class Claim:
    """One statement of a paper and how it is decided.

    Attributes
    ----------
    name : snake case, unique among all claims
    paper : a key of `papers.PAPERS`
    place : where it stands there: 'Figure 4', 'abstract', 'question 2'
    statement : what the paper says, in our words
    quantity : what is measured, one line; `unit` its unit, '' for a ratio or share
    sense, threshold : the criterion: the quantity is `at least` or `at most` the threshold. Fixed before any verdict
        was computed, from the paper and from what chance or a trivial network would give
    why : why this threshold decides the statement
    study, tables : what it is computed from: `results/PROFILE/STUDY/TABLE.parquet`; `study` also names the figures
    figure : glob below `figures/PROFILE/STUDY/`, without suffix, of the figure to look at
    pictured : what the paper's own figure or passage shows, in words
    measure : tables to observations, with the columns OBSERVED; raises NotTested with its reason
    over : whether the criterion must hold in `every case` or for the `mean of cases`
    """

    name: str
    paper: str
    place: str
    statement: str
    quantity: str
    sense: Sense
    threshold: float
    why: str
    study: str
    tables: tuple[str, ...]
    figure: str
    pictured: str
    measure: Callable[[Tables], pd.DataFrame]
    unit: str = ""
    over: Over = "every case"


def register_claim(claim: Claim) -> None:
    """Adds a claim of the user's own, judged beside the package's; its `paper` need not be one of `papers.PAPERS`.

    Raises InputError for a name that is taken or not of lower-case letters, digits and underscores.
    """
    register("claim", claim.name, claim, (), claim.measure)
