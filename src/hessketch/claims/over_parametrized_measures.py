"""Measures of the claims on whole spectra: counts, the Hessian's first term, sweeps over widths and data."""

from functools import partial

import numpy as np
import pandas as pd

from hessketch.claims.claim import Tables
from hessketch.claims.measuring import by_seed, decades, ends_along, finished, of_runs, worded_cases
from hessketch.claims.observations import required
from hessketch.runs import IDENTITY
from hessketch.studies.over_parametrized_sweeps import data_sweep, slopes

STUDY = "over_parametrized"
_CLUSTERS = "clusters-"
_TRAINERS = {"trainer": "{}"}
_NO_CLUSTERS = "needs one network on Gaussian clusters of several"


def trained_near_zero(tables: Tables) -> pd.DataFrame:
    """Share of the trained Hessian's eigenvalues near zero, of networks with more parameters than examples."""
    frame = _trained(tables)
    frame = required(frame[frame["p"] > frame["n"]], "no network has more parameters than examples")
    return _observed(frame.assign(value=frame["near_zero_share"]))


def outliers_off_classes(tables: Tables) -> pd.DataFrame:
    """Distance of the trained Hessian's number of outliers from C - 1 or C, over C, of data other than clusters."""
    frame = _trained(tables)
    frame = required(frame[~frame["dataset"].str.startswith(_CLUSTERS)], "no network was trained on images")
    classes, outliers = frame["classes"], frame["outliers"]
    off = pd.concat([classes - 1 - outliers, outliers - classes], axis="columns").max(axis="columns").clip(lower=0)
    return _observed(frame.assign(value=off / classes))


def negative_ratio_change(tables: Tables) -> pd.DataFrame:
    """- smallest / largest eigenvalue of the trained Hessian over the same before training."""
    counts = _counts(tables)
    initial = counts[(counts["stage"] == "initial") & (counts["operator"] == "hessian")]
    initial = initial[[*IDENTITY, "negative_ratio"]]
    both = _trained(tables).merge(initial, on=list(IDENTITY), suffixes=("", "_initial"))
    both = required(both, "no run has a checkpoint before training beside the last")
    before = both["negative_ratio_initial"]
    return _observed(both.assign(value=both["negative_ratio"] / before.where(before > 0)))


def trained_negative_ratio(tables: Tables) -> pd.DataFrame:
    """- smallest / largest eigenvalue of the trained Hessian."""
    frame = _trained(tables)
    return _observed(frame.assign(value=frame["negative_ratio"]))


def zeros_beyond_rank(tables: Tables) -> pd.DataFrame:
    """Zero eigenvalues of the trained GGN less those that its rank leaves, where it leaves any."""
    frame = _trained(tables, "ggn")
    frame = required(frame[frame["least_zeros"] > 0], "no network has more parameters than examples times C - 1")
    return _observed(frame.assign(value=frame["zero"] - frame["least_zeros"]))


def near_zeros_beyond_rank(tables: Tables) -> pd.DataFrame:
    """Share of p of near-zero eigenvalues of the trained Hessian less those that a rank of n C leaves."""
    frame = _trained(tables)
    least = frame["p"] - frame["n"] * frame["classes"]
    frame = required(frame.assign(least=least)[least > 0], "no network has more parameters than examples times classes")
    return _observed(frame.assign(value=(frame["near_zero"] - frame["least"]) / frame["p"]))


def ggn_difference(tables: Tables) -> pd.DataFrame:
    """Relative difference of the C largest eigenvalues of the trained Hessian and its GGN, mean."""
    frame = _matched(tables)
    frame = frame[frame["rank"] <= frame["classes"]]
    return _observed(of_runs(frame.assign(value=frame["relative_difference"].abs())))


def output_gradient_overlap(tables: Tables) -> pd.DataFrame:
    """Overlap of the C leading eigenvectors of the trained Hessian and of the output gradients."""
    frame = _matched(tables)
    frame = frame[frame["rank"] == frame["classes"]]
    return _observed(frame.assign(value=frame["overlap_output_gradients"]))


def width_on_near_zeros(tables: Tables) -> pd.DataFrame:
    """Exponent of the number of near-zero eigenvalues against p."""
    return _width_exponents(tables, "near_zero")


def width_on_outliers(tables: Tables) -> pd.DataFrame:
    """Magnitude of the exponent of the number of outliers against p."""
    return _magnitudes(_width_exponents(tables, "outliers"))


def width_on_top_eigenvalue(tables: Tables) -> pd.DataFrame:
    """Magnitude of the exponent of the largest eigenvalue against p."""
    return _magnitudes(_width_exponents(tables, "top_eigenvalue"))


def clusters_on_outliers(tables: Tables) -> pd.DataFrame:
    """Exponent of the number of outliers against the number of clusters."""
    return _cluster_exponents(tables, "outliers")


def clusters_on_bulk(tables: Tables) -> pd.DataFrame:
    """Magnitude of the exponent of the bulk's 90 % quantile against the number of clusters."""
    return _magnitudes(_cluster_exponents(tables, "bulk_90"))


def separation_on_top_eigenvalue(tables: Tables) -> pd.DataFrame:
    """Decades from the largest eigenvalue at the greatest separation of clusters to that at the least."""
    frame = by_seed(_trained(tables), data_sweep)
    frame = frame[(frame["axis"] == "separation") & (frame["quantity"] == "top_eigenvalue")]
    frame = required(frame, f"{_NO_CLUSTERS} separations")
    frame = frame.assign(value=decades(frame["mean"]), separation=frame["value"], dataset=frame["fixed"])
    pairs = ends_along(frame, "separation", ["dataset", "network", "norm", "width", "label_noise", "loss", "trainer"])
    return _observed(pairs.assign(value=pairs["value_low"] - pairs["value_high"]))


def _counts(tables: Tables) -> pd.DataFrame:
    return finished(tables, f"{STUDY}/counts")


def _trained(tables: Tables, operator: str = "hessian") -> pd.DataFrame:
    counts = _counts(tables)
    chosen = counts[(counts["operator"] == operator) & (counts["stage"] == "trained")]
    return required(chosen, f"the {operator} of a trained network was not decomposed")


def _matched(tables: Tables) -> pd.DataFrame:
    frame = finished(tables, f"{STUDY}/outlier_match")
    return required(frame[frame["stage"] == "trained"], "no trained network's matrices were compared")


def _width_exponents(tables: Tables, quantity: str) -> pd.DataFrame:
    counts = _trained(tables)
    networks = counts.groupby("dataset")["network"].agg(lambda names: " and ".join(names.unique()))
    frame = _exponents(counts, "parameters", quantity)
    frame = required(frame, "needs networks of several sizes on one data set")
    return _observed(frame.assign(dataset=frame["fixed"], network=frame["fixed"].map(networks), norm="none"))


def _cluster_exponents(tables: Tables, quantity: str) -> pd.DataFrame:
    frame = _exponents(_trained(tables), "classes", quantity)
    frame = required(frame[frame["fixed"].str.startswith(_CLUSTERS)], f"{_NO_CLUSTERS} numbers")
    return _observed(frame.assign(dataset=frame["fixed"]))


def _exponents(counts: pd.DataFrame, axis: str, quantity: str) -> pd.DataFrame:
    """Exponents of a quantity along an axis within each seed, of seeds that have the whole sweep."""
    frame = by_seed(counts, partial(slopes, quantities=[quantity]))
    frame = frame[frame["axis"] == axis]
    sweep = ["fixed", "network", "norm", "width", "label_noise", "loss", "trainer"]
    frame = frame[frame["runs"] == frame.groupby(sweep, dropna=False)["runs"].transform("max")]
    return frame.assign(value=frame["exponent"], p=np.nan, n=np.nan)


def _magnitudes(observations: pd.DataFrame) -> pd.DataFrame:
    return observations.assign(value=observations["value"].abs())


def _observed(frame: pd.DataFrame) -> pd.DataFrame:
    return worded_cases(frame, _TRAINERS)
