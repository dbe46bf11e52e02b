"""Measures of the claims; see the module of the same name."""

import pandas as pd

from hessketch.claims.claim import NotTested, Tables


def clusters_on_bulk(tables: Tables) -> pd.DataFrame:
    raise NotTested("not measured yet")


def clusters_on_outliers(tables: Tables) -> pd.DataFrame:
    raise NotTested("not measured yet")


def ggn_difference(tables: Tables) -> pd.DataFrame:
    raise NotTested("not measured yet")


def near_zeros_beyond_rank(tables: Tables) -> pd.DataFrame:
    raise NotTested("not measured yet")


def negative_ratio_change(tables: Tables) -> pd.DataFrame:
    raise NotTested("not measured yet")


def outliers_off_classes(tables: Tables) -> pd.DataFrame:
    raise NotTested("not measured yet")


def output_gradient_overlap(tables: Tables) -> pd.DataFrame:
    raise NotTested("not measured yet")


def separation_on_top_eigenvalue(tables: Tables) -> pd.DataFrame:
    raise NotTested("not measured yet")


def trained_near_zero(tables: Tables) -> pd.DataFrame:
    raise NotTested("not measured yet")


def trained_negative_ratio(tables: Tables) -> pd.DataFrame:
    raise NotTested("not measured yet")


def width_on_near_zeros(tables: Tables) -> pd.DataFrame:
    raise NotTested("not measured yet")


def width_on_outliers(tables: Tables) -> pd.DataFrame:
    raise NotTested("not measured yet")


def width_on_top_eigenvalue(tables: Tables) -> pd.DataFrame:
    raise NotTested("not measured yet")


def zeros_beyond_rank(tables: Tables) -> pd.DataFrame:
    raise NotTested("not measured yet")
