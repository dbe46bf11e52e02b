"""Measures of the claims; see the module of the same name."""

import pandas as pd

from hessketch.claims.claim import NotTested, Tables


def best_place(tables: Tables) -> pd.DataFrame:
    raise NotTested("not measured yet")


def continued_barrier(tables: Tables) -> pd.DataFrame:
    raise NotTested("not measured yet")


def found_barrier(tables: Tables) -> pd.DataFrame:
    raise NotTested("not measured yet")


def move_in_top(tables: Tables) -> pd.DataFrame:
    raise NotTested("not measured yet")


def other_start_barrier(tables: Tables) -> pd.DataFrame:
    raise NotTested("not measured yet")


def same_start_barrier(tables: Tables) -> pd.DataFrame:
    raise NotTested("not measured yet")


def test_accuracy_gain(tables: Tables) -> pd.DataFrame:
    raise NotTested("not measured yet")
