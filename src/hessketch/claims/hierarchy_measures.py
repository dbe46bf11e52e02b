"""Measures of the claims on class means: from the table `matches` of the hierarchy's study to observations."""

import pandas as pd

from hessketch.claims.claim import Tables
from hessketch.claims.observations import largest_sample, observed, plain, required, rows
from hessketch.runs import IDENTITY

_RUN = list(IDENTITY)
_INCOMPLETE = "a part has fewer than C eigenvalues, or none was computed"


def difference_of_class_means(tables: Tables) -> pd.DataFrame:
    """Median relative difference of G1's C largest eigenvalues from G's."""
    table = _part(tables, "G1")
    return observed(table.assign(value=table["median_difference"]), _INCOMPLETE)


def gain_of_cross_class_means(tables: Tables) -> pd.DataFrame:
    """That difference of G1 less that of G1 + G2."""
    sums = _part(tables, "G1+2")[[*_RUN, "median_difference"]]
    pairs = _part(tables, "G1").merge(sums, on=_RUN, suffixes=("", "_sum"))
    return observed(pairs.assign(value=pairs["median_difference"] - pairs["median_difference_sum"]), _INCOMPLETE)


def overlap_with_class_means(tables: Tables) -> pd.DataFrame:
    """Overlap of G's C leading eigenvectors with the span of the class means."""
    table = _part(tables, "G1")
    return observed(table.assign(value=table["overlap"]), _INCOMPLETE)


def _part(tables: Tables, part: str) -> pd.DataFrame:
    """Rows of a part at k = C, on the train split, at the largest sample."""
    table = plain(rows(tables, "outlier_hierarchy/matches"))
    own = table[(table["part"] == part) & (table["k"] == table["classes"]) & (table["split"] == "train")]
    return largest_sample(required(own, _INCOMPLETE))
