"""Measures of the claims; see the module of the same name."""

import pandas as pd

from hessketch.claims.claim import NotTested, Tables


def beyond_dead_inputs(tables: Tables) -> pd.DataFrame:
    raise NotTested("not measured yet")


def eigenspaces_less_masks(tables: Tables) -> pd.DataFrame:
    raise NotTested("not measured yet")


def initial_beyond_layers(tables: Tables) -> pd.DataFrame:
    raise NotTested("not measured yet")


def last_over_early_peak(tables: Tables) -> pd.DataFrame:
    raise NotTested("not measured yet")


def least_times_chance(tables: Tables) -> pd.DataFrame:
    raise NotTested("not measured yet")


def mean_times_chance(tables: Tables) -> pd.DataFrame:
    raise NotTested("not measured yet")


def norm_estimate_error(tables: Tables) -> pd.DataFrame:
    raise NotTested("not measured yet")


def overlap_off_diagonal(tables: Tables) -> pd.DataFrame:
    raise NotTested("not measured yet")


def pairs_at_scale(tables: Tables) -> pd.DataFrame:
    raise NotTested("not measured yet")


def residual_share(tables: Tables) -> pd.DataFrame:
    raise NotTested("not measured yet")


def saturated_similarity(tables: Tables) -> pd.DataFrame:
    raise NotTested("not measured yet")


def settled_masks(tables: Tables) -> pd.DataFrame:
    raise NotTested("not measured yet")


def similarity_to_start(tables: Tables) -> pd.DataFrame:
    raise NotTested("not measured yet")


def size_on_times_chance(tables: Tables) -> pd.DataFrame:
    raise NotTested("not measured yet")


def sketched_eigenvalue_error(tables: Tables) -> pd.DataFrame:
    raise NotTested("not measured yet")


def sketched_overlap_error(tables: Tables) -> pd.DataFrame:
    raise NotTested("not measured yet")


def small_mask_times_chance(tables: Tables) -> pd.DataFrame:
    raise NotTested("not measured yet")


def times_faster(tables: Tables) -> pd.DataFrame:
    raise NotTested("not measured yet")


def trained_beyond_layers(tables: Tables) -> pd.DataFrame:
    raise NotTested("not measured yet")
