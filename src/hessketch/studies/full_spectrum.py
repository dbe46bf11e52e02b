"""Derived tables of *The Full Spectrum of Deepnet Hessians at Scale* (Papyan 2018, arXiv 1811.07062).

Each function takes the long tables of the spectra stage and returns one table. Spectra are named by
`SPECTRUM_KEYS`. Rows with `deflated` false belong to the operator itself (raw), those with `deflated` true to
the operator less its leading eigenpairs.
"""

from dataclasses import asdict

import numpy as np
import pandas as pd

from hessketch.linalg.lanczos import Ritz, merge_ghosts
from hessketch.linalg.outliers import count_outliers
from hessketch.linalg.tails import fit_marchenko_pastur, fit_power_law
from hessketch.studies.spectra import SPECTRUM_KEYS

CONVERGED = 0.05
"""A Ritz value counts as an eigenvalue when its residual bound is at most this share of its absolute value. The
error of a separated eigenvalue is about the square of the residual over the gap, thus far smaller."""

_KEYS = list(SPECTRUM_KEYS)
_BASE = [key for key in _KEYS if key != "operator"]


def outliers(ritz: pd.DataFrame, eigenvalues: pd.DataFrame) -> pd.DataFrame:
    """How many eigenvalues stand apart from the bulk, for every spectrum, by two criteria fixed beforehand.

    Beyond the residual: raw Ritz values above the largest |Ritz value| of the residual of the same run and split. The
    paper identifies the Hessian's bulk with the residual's spectrum, and by Weyl's inequality such an eigenvalue of
    the Hessian cannot come from the residual alone.

    Gaps: `linalg.outliers.count_outliers`, which asks whether a gap is too large for neighbours in one continuous
    bulk; of each sign the leading 4 classes + 10 are examined, so that a count near the number of classes has a bulk
    below it. Outliers that run smoothly into the bulk are not counted by it.

    Both count converged Ritz values of the first start vector, ghosts merged, and so may miss eigenvalues that Lanczos
    had no steps to find.

    Returns
    -------
    One row a spectrum: `beyond_residual` and `residual_edge` (hessian and ggn; NaN for others or without a residual);
    `outlier_count` and `negative_outlier_count` by gaps, with `examined` and `negative_examined` (values looked at:
    at most half of them can be found to be outliers); `top_eigenvalue` (from deflation where it was done, else the
    largest Ritz value).
    """
    deflation = eigenvalues.groupby(_KEYS)["eigenvalue"].max()
    raw = ritz[~ritz["deflated"] & (ritz["start_vector"] == ritz.groupby(_KEYS)["start_vector"].transform("min"))]
    residuals = raw[raw["operator"] == "residual"].groupby(_BASE)["ritz_value"].agg(lambda values: values.abs().max())
    rows = []
    for key, group in raw.groupby(_KEYS):
        names = dict(zip(_KEYS, key, strict=True))
        edge = residuals.get(tuple(names[column] for column in _BASE), np.nan)
        edge = float(edge) if names["operator"] in ("hessian", "ggn") else np.nan
        values = _converged(group)
        rows.append(
            {
                **names,
                "beyond_residual": np.nan if np.isnan(edge) else float((values > edge).sum()),
                "residual_edge": edge,
                **_gap_counts(values, 4 * int(names["classes"]) + 10),
                "top_eigenvalue": float(deflation.get(key, group["ritz_value"].max())),
            }
        )
    return pd.DataFrame(rows)


def _gap_counts(values: np.ndarray, depth: int) -> dict[str, int]:
    above = np.sort(values[values > 0])[::-1][:depth]
    below = np.sort(-values[values < 0])[::-1][:depth]
    return {
        "outlier_count": count_outliers(above),
        "negative_outlier_count": count_outliers(below),
        "examined": len(above),
        "negative_examined": len(below),
    }


def _converged(spectrum: pd.DataFrame) -> np.ndarray:
    """Eigenvalues that one Lanczos run has found, ascending.

    Besides merged ghosts, a value is dropped whose error interval holds a better-known one: it may be a ghost on
    its way to that eigenvalue, and two eigenvalues where there is one would shrink the spacings of the bulk.
    """
    ordered = spectrum.sort_values("ritz_value")
    columns = (ordered[name].to_numpy(dtype=float) for name in ("ritz_value", "weight", "residual_bound"))
    pairs = merge_ghosts(Ritz(*columns))
    near = np.abs(pairs.values[:, None] - pairs.values[None, :]) <= pairs.residuals[:, None]
    repeated = (near & (pairs.residuals[None, :] < pairs.residuals[:, None])).any(axis=1)
    return pairs.values[~repeated & (pairs.residuals <= CONVERGED * np.abs(pairs.values))]


def outlier_positions(eigenvalues: pd.DataFrame) -> pd.DataFrame:
    """Leading eigenvalues of the Hessian beside those of the GGN, by rank (Papyan 2018, Section 3 and Figure 4a).

    Returns
    -------
    One row for each run, split and rank: `hessian`, `ggn`, their `hessian_residual_norm`, `ggn_residual_norm`, and
    `relative_difference` = (hessian - ggn) / |ggn|. Rank 1 is the largest absolute value of each operator. Ranks
    that only one operator has are left out.
    """
    sides = {}
    for operator in ("hessian", "ggn"):
        side = eigenvalues[eigenvalues["operator"] == operator]
        side = side.rename(columns={"eigenvalue": operator, "residual_norm": f"{operator}_residual_norm"})
        sides[operator] = side[[*_BASE, "rank", operator, f"{operator}_residual_norm"]]
    table = sides["hessian"].merge(sides["ggn"], on=[*_BASE, "rank"], validate="one_to_one")
    difference = (table["hessian"] - table["ggn"]) / table["ggn"].abs()
    return table.assign(relative_difference=difference).sort_values([*_BASE, "rank"], ignore_index=True)


def components(ritz: pd.DataFrame) -> pd.DataFrame:
    """Energy of the bulk by component, and negative mass (Papyan 2018, Sections 1 and 3, in words there).

    The energy ||A||_F^2 / p is the mean over random start vectors of the sum of weight theta^2, by Gauss quadrature.
    The bulk is the operator less its leading eigenpairs where deflation was done (`deflated`), else the whole
    operator; the residual is never deflated. Since Hessian = GGN + residual, the energies of the two parts add up to
    the Hessian's only with the cross term 2 tr(GGN residual) / p, which has a row of its own (operator `cross`; it
    also takes in the difference between the subspaces that were deflated). All operators of a run share their start
    vectors, yet with a single one an energy is an estimate within tens of percent.

    Returns
    -------
    One row for each run, split and operator (hessian, ggn, residual, cross): `deflated`; `bulk_energy` and its
    `bulk_energy_share` of the Hessian's, each with its `_standard_error` over start vectors (NaN with one);
    `negative_mass`, the share of the sum of |eigenvalues| that lies below zero, and `negative_energy_share`, the
    energy below zero over the same operator's bulk energy. Both are read from the raw spectrum, for an imperfectly
    converged deflation leaves false negative eigenvalues behind. The plain share of negative eigenvalues is not
    given: Lanczos puts the crowd of eigenvalues around zero on one Ritz value, of either sign by chance.
    """
    rows = []
    for key, group in ritz.groupby(_BASE):
        parts = dict(iter(group.groupby("operator")))
        energies = {operator: _bulk_energies(part) for operator, part in parts.items()}
        if {"hessian", "ggn", "residual"} <= set(parts):
            energies["cross"] = energies["hessian"] - energies["ggn"] - energies["residual"]
        for operator in [name for name in ("hessian", "ggn", "residual", "cross") if name in energies]:
            part = parts["ggn" if operator == "cross" else operator]
            negative = _negative(part, float(energies[operator].mean())) if operator != "cross" else {}
            shares = _energy_and_share(energies[operator], energies.get("hessian"))
            names = dict(zip(_BASE, key, strict=True))
            rows.append({**names, "operator": operator, "deflated": bool(part["deflated"].any()), **shares, **negative})
    return pd.DataFrame(rows)


def _bulk_energies(spectrum: pd.DataFrame) -> np.ndarray:
    """Energy by start vector, of the deflated operator where there is one."""
    bulk = spectrum[spectrum["deflated"]] if spectrum["deflated"].any() else spectrum
    energy = bulk["weight"] * bulk["ritz_value"] ** 2
    return energy.groupby(bulk["start_vector"]).sum().to_numpy()


def _energy_and_share(part: np.ndarray, whole: np.ndarray | None) -> dict[str, float]:
    """Means over start vectors and their standard errors; that of the ratio by the delta method."""
    energy = float(part.mean())
    share = _share(energy, float(whole.mean())) if whole is not None else np.nan
    error = _share(_standard_error(part - share * whole), float(whole.mean())) if whole is not None else np.nan
    return {
        "bulk_energy": energy,
        "bulk_energy_standard_error": _standard_error(part),
        "bulk_energy_share": share,
        "bulk_energy_share_standard_error": error,
    }


def _standard_error(values: np.ndarray) -> float:
    return float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else np.nan


def _negative(spectrum: pd.DataFrame, bulk_energy: float) -> dict[str, float]:
    raw = spectrum[~spectrum["deflated"]]
    negative = raw[raw["ritz_value"] < 0]
    absolute = float((raw["weight"] * raw["ritz_value"].abs()).sum())
    energy = float((negative["weight"] * negative["ritz_value"] ** 2).sum()) / raw["start_vector"].nunique()
    return {
        "negative_mass": _share(-float((negative["weight"] * negative["ritz_value"]).sum()), absolute),
        "negative_energy_share": _share(energy, bulk_energy),
    }


def _share(part: float, whole: float) -> float:
    return part / whole if whole else np.nan


def tails(density: pd.DataFrame) -> pd.DataFrame:
    """Power-law and Marchenko-Pastur fits to both tails (Papyan 2018, Figure 4d), with their symmetry.

    Fitted are the raw residual, as in the figure, and the Hessian less its leading eigenpairs (of whose bulk the
    text says that it is not Marchenko-Pastur), by `linalg.tails`, whose rules choose the range.

    Returns
    -------
    One row for each such spectrum and `sign` (1 or -1): `coefficient`, `exponent`, `r_squared` of
    phi = coefficient |lambda|^-exponent; `mp_mass`, `mp_lower_edge`, `mp_upper_edge`, `mp_r_squared`; the range
    `lower` to `upper` of |lambda| with its `points`; `reason` (empty, or why there is no fit and NaN stands);
    `asymmetry`, the mean of |log10 phi(lambda) - log10 phi(-lambda)| over the range that both sides share (decades;
    0 is perfect symmetry, NaN without a common range).
    """
    raw_residual = (density["operator"] == "residual") & ~density["deflated"]
    bulk = (density["operator"] == "hessian") & density["deflated"]
    chosen = density[(raw_residual | bulk) & (density["estimator"] == "lanczos")]
    rows = []
    for key, curve in chosen.groupby([*_KEYS, "deflated"]):
        curve = curve.sort_values("eigenvalue")
        x, phi = curve["eigenvalue"].to_numpy(), curve["density"].to_numpy()
        sides = [_fit_side(x, phi, curve, sign) for sign in (1, -1)]
        common = np.max([side["lower"] for side in sides]), np.min([side["upper"] for side in sides])
        asymmetry = _asymmetry(x, phi, *common)
        rows += [dict(zip([*_KEYS, "deflated"], key, strict=True), **side, asymmetry=asymmetry) for side in sides]
    return pd.DataFrame(rows)


def _fit_side(x: np.ndarray, phi: np.ndarray, curve: pd.DataFrame, sign: int) -> dict[str, object]:
    settings = float(curve["broadening"].iloc[0]), int(curve["p"].iloc[0]), sign
    power = fit_power_law(x, phi, *settings)
    pastur = fit_marchenko_pastur(x, phi, *settings)
    names = {"mass": "mp_mass", "lower_edge": "mp_lower_edge", "upper_edge": "mp_upper_edge"}
    compared = {column: getattr(pastur, name) for name, column in names.items()}
    return {"sign": sign, **asdict(power), **compared, "mp_r_squared": pastur.r_squared}


def _asymmetry(x: np.ndarray, phi: np.ndarray, lower: float, upper: float) -> float:
    """Mean absolute difference of log10 phi between both sides, over log-spaced |lambda| where both are positive."""
    if not lower < upper:
        return np.nan
    points = np.geomspace(lower, upper, 64)
    right, left = np.interp(points, x, phi), np.interp(-points, x, phi)
    positive = (right > 0) & (left > 0)
    if not positive.any():
        return np.nan
    return float(np.abs(np.log10(right[positive] / left[positive])).mean())
