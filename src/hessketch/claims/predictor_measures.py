"""Measures of the claims on the predictor Hessian: from the tables of its study to observations."""

import numpy as np
import pandas as pd

from hessketch.claims.claim import NotTested, Tables
from hessketch.claims.observations import large_networks, observed, required, rows

KAPPA = "predictor_hessian/kappa"
_SETUP = ["dataset", "label_noise", "examples_per_class", "network", "norm", "width", "loss", "trainer", "seed"]
_SPECTRUM = [*_SETUP, "kind", "time", "example", "estimator"]
_WITHOUT = "no predictor Hessian was measured along a training without sketching"
_NEAR = 0.1  # of the largest magnitude
_SHARP = 0.03  # of the largest magnitude: with a wider kernel a density does not show what lies near zero


def kappa_over_p_at_all_epochs(tables: Tables) -> pd.DataFrame:
    """Largest kappa / p over epochs, examples and estimators."""
    return _largest_kappa_over_p(_of_epochs(tables))


def kappa_over_p_at_scale(tables: Tables) -> pd.DataFrame:
    """The same of networks with many parameters."""
    return _largest_kappa_over_p(large_networks(_of_epochs(tables)))


def kappa_over_p_under_sketching(tables: Tables) -> pd.DataFrame:
    """Largest kappa / p over rounds, examples and estimators, of each sketch."""
    table = rows(tables, KAPPA)
    own = table[(table["kind"] == "round") & (table["method"] == "count_sketch")]
    own = required(own, "no predictor Hessian was measured along a sketched training: predictor_hessian.trainers")
    return _largest_kappa_over_p(own, "trainer")


def _of_epochs(tables: Tables) -> pd.DataFrame:
    """Rows of trainings without sketching that have a kappa."""
    table = rows(tables, KAPPA)
    return required(table[(table["kind"] == "epoch") & np.isfinite(table["kappa"])], _WITHOUT)


def _largest_kappa_over_p(table: pd.DataFrame, case: str = "loss") -> pd.DataFrame:
    table = table[np.isfinite(table["kappa"])]
    ordered = table.assign(value=table["kappa"] / table["p"]).sort_values("value", ascending=False)
    return _one_a_training(ordered.drop_duplicates(_SETUP), case)


def _one_a_training(table: pd.DataFrame, case: str = "loss") -> pd.DataFrame:
    """Observations of one row a training; n are its examples, one each: a predictor Hessian is of a single one."""
    of_case = table[case]
    drop = [name for name in ("loss", "label_noise") if case == "loss" and (table["label_noise"] == 0).all()]
    return observed(table.drop(columns=drop).assign(n=1), _WITHOUT, of_case)


def spread_of_kappa(tables: Tables) -> pd.DataFrame:
    """Largest over smallest kappa of an example after the first step, mean over examples and estimators."""
    table = _of_epochs(tables)
    later = required(table[table["time"] > 0], "no checkpoint after the first step")
    kappas = later.groupby([*_SETUP, "example", "estimator"], dropna=False)["kappa"]
    spread = later.assign(value=kappas.transform("max") / kappas.transform("min"))
    spread = required(spread[kappas.transform("size") > 1], "needs two checkpoints after the first step")
    return _mean_of_trainings(spread.drop_duplicates([*_SETUP, "example", "estimator"]))


def balance_of_signs(tables: Tables) -> pd.DataFrame:
    """Smaller over larger of the largest eigenvalue and the negated smallest, mean over epochs and examples."""
    table = _of_epochs(tables)
    ends = np.array([table["largest_eigenvalue"], -table["smallest_eigenvalue"]])
    value = np.clip(ends.min(axis=0), 0, None) / ends.max(axis=0)
    return _mean_of_trainings(table.assign(value=value))


def _mean_of_trainings(table: pd.DataFrame) -> pd.DataFrame:
    means = table.groupby(_SETUP, dropna=False)["value"].transform("mean")
    return _one_a_training(table.assign(value=means).drop_duplicates(_SETUP))


def share_near_zero(tables: Tables) -> pd.DataFrame:
    """Least share of the density within a tenth of the largest magnitude from zero, estimator `fast`."""
    table = _of_epochs(tables)
    magnitudes = table.drop_duplicates(_SPECTRUM)[[*_SPECTRUM, "largest_magnitude"]]
    magnitudes = magnitudes.rename(columns={"largest_magnitude": "extent"})
    density = rows(tables, "predictor_hessian/density")
    density = density[(density["kind"] == "epoch") & (density["estimator"] == "fast")]
    density = density.merge(magnitudes, on=_SPECTRUM)
    density = density[density["broadening"] <= _SHARP * density["extent"]]
    found = []
    for _, curve in density.groupby(_SPECTRUM, dropna=False, sort=False):
        first = curve.iloc[0]
        found.append({**first, "value": _share_within(curve, _NEAR * first["extent"])})
    if not found:
        raise NotTested("no density of a predictor Hessian by the estimator `fast` resolves a tenth of its range")
    worst = pd.DataFrame(found).sort_values("value").drop_duplicates(_SETUP)
    return _one_a_training(worst)


def _share_within(curve: pd.DataFrame, bound: float) -> float:
    """Share of a density's integral over [-bound, bound]."""
    curve = curve.sort_values("eigenvalue")
    x, phi = curve["eigenvalue"].to_numpy(), curve["density"].to_numpy()
    mass = np.append(0.0, np.cumsum(np.diff(x) * (phi[1:] + phi[:-1]) / 2))
    inside = np.interp(bound, x, mass) - np.interp(-bound, x, mass)
    return float(inside / mass[-1])
