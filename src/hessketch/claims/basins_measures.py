"""Measures of the claims on basins: barriers between solutions of large and small batches, moves between them."""

import numpy as np
import pandas as pd

from hessketch.claims.claim import Tables
from hessketch.claims.measuring import diverged_runs, identities, worded_cases
from hessketch.claims.observations import required, rows

STUDY = "basins"
MOST_IN_TOP = 0.5
"""A move goes through flat directions where at most this share of its square lies in the top eigenspace."""
_NOT_KNOWN = "what was measured is not known (NaN) in any pair"
_PAIRS = {
    "continued": "large batches and small ones that go on from them",
    "same_start": "large and small batches from one initialisation",
    "other_start": "large and small batches from two initialisations, on the same examples",
}


def continued_barrier(tables: Tables) -> pd.DataFrame:
    """Barrier of the straight line to small batches that go on from large ones, over ln C."""
    return _barrier(tables, "continued", "line")


def same_start_barrier(tables: Tables) -> pd.DataFrame:
    """Barrier of the straight line between batch sizes from one initialisation, over ln C."""
    return _barrier(tables, "same_start", "line")


def found_barrier(tables: Tables) -> pd.DataFrame:
    """Barrier of the path that was found between batch sizes from one initialisation, over ln C."""
    return _barrier(tables, "same_start", "found")


def other_start_barrier(tables: Tables) -> pd.DataFrame:
    """Barrier of the straight line between batch sizes from two initialisations, over ln C."""
    return _barrier(tables, "other_start", "line")


def best_place(tables: Tables) -> pd.DataFrame:
    """Place of the highest test accuracy on the line from large batches (0) to small ones that go on (1)."""
    frame = _of_pair(_sound(tables, "best_places"), "continued")
    return _observed(frame.assign(value=frame["at_highest_test_accuracy"], n=np.nan, p=np.nan))


def test_accuracy_gain(tables: Tables) -> pd.DataFrame:
    """Test accuracy after small batches that go on from large ones less that after large ones."""
    frame = _ends(tables, "continued", "line")
    return _observed(frame.assign(value=frame["second_test_accuracy"] - frame["first_test_accuracy"]))


def move_in_top(tables: Tables) -> pd.DataFrame:
    """Share of the squared move to small batches that go on from large ones in the top eigenspace.

    It is known where a random direction has more than MOST_IN_TOP there: elsewhere chance meets the criterion too.
    """
    frame = _ends(tables, "continued", "line")
    frame = required(frame[frame["move_in_top"].notna()], _NOT_KNOWN)
    tells = frame["move_chance"] > MOST_IN_TOP
    by_chance = (
        f"a random direction has C / p = {frame['move_chance'].max():.2g} of it there: no share below one half says "
        "anything"
    )
    return _observed(frame.assign(value=frame["move_in_top"].where(tells)), by_chance)


def _barrier(tables: Tables, pair: str, path: str) -> pd.DataFrame:
    frame = _ends(tables, pair, path)
    return _observed(frame.assign(value=frame["barrier"] / np.log(frame["classes"].astype(float))))


def _ends(tables: Tables, pair: str, path: str) -> pd.DataFrame:
    """Rows of one kind of pair and path whose ends were trained on the same examples."""
    frame = _sound(tables, "barriers")
    frame = required(frame[frame["path"] == path], f"no path of the kind {path!r} was measured")
    return _of_pair(frame[frame["same_examples"].astype(bool)], pair)


def _of_pair(frame: pd.DataFrame, pair: str) -> pd.DataFrame:
    return required(frame[frame["pair"] == pair], f"needs pairs of {_PAIRS[pair]}")


def _sound(tables: Tables, name: str) -> pd.DataFrame:
    """Rows of pairs of which neither run diverged."""
    frame = rows(tables, f"{STUDY}/{name}")
    diverged = diverged_runs(tables, f"{STUDY}/{name}")
    first = identities(frame, {"trainer": "first_trainer"})
    second = identities(frame, {"trainer": "second_trainer", "seed": "second_seed"})
    kept = [a not in diverged and b not in diverged for a, b in zip(first, second, strict=True)]
    return required(frame[kept], "every pair has a run that diverged: it takes smaller learning rates")


def _observed(frame: pd.DataFrame, missing: str = _NOT_KNOWN) -> pd.DataFrame:
    frame = frame.assign(trainers=frame["first_trainer"] + " to " + frame["second_trainer"])
    return worded_cases(frame, {"trainers": "{}"}, missing)
