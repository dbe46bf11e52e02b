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
    the Hessian cannot come from the residual alone. By interlacing, no more Ritz values lie there than eigenvalues
    do: the count is exact once they have converged and never too large by more than the residual's own edge is low.

    Gaps: `linalg.outliers.count_outliers`, which asks whether a gap is too large for neighbours in one continuous
    bulk, on the converged raw Ritz values; of each sign the leading 4 classes + 10 are examined, so that a count near
    the number of classes has a bulk below it. Outliers that run smoothly into the bulk are not counted by it.

    Both use the first start vector, ghosts merged.

    Returns
    -------
    One row a spectrum: `beyond_residual` and `residual_edge` (hessian and ggn; NaN for the residual or without one);
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
        edge = np.nan if names["operator"] == "residual" else float(edge)
        rows.append(
            {
                **names,
                "beyond_residual": np.nan if np.isnan(edge) else float((_merged(group).values > edge).sum()),
                "residual_edge": edge,
                **_gap_counts(group),
                "top_eigenvalue": float(deflation.get(key, group["ritz_value"].max())),
            }
        )
    return pd.DataFrame(rows)


def _gap_counts(spectrum: pd.DataFrame) -> dict[str, int]:
    values = _converged(spectrum)
    depth = 4 * int(spectrum["classes"].iloc[0]) + 10
    above = np.sort(values[values > 0])[::-1][:depth]
    below = np.sort(-values[values < 0])[::-1][:depth]
    return {
        "outlier_count": count_outliers(above),
        "negative_outlier_count": count_outliers(below),
        "examined": len(above),
        "negative_examined": len(below),
    }


def _merged(spectrum: pd.DataFrame) -> Ritz:
    """Ritz values of one Lanczos run, ascending, ghosts merged."""
    ordered = spectrum.sort_values("ritz_value")
    return merge_ghosts(Ritz(*(ordered[c].to_numpy(dtype=float) for c in ("ritz_value", "weight", "residual_bound"))))


def _converged(spectrum: pd.DataFrame) -> np.ndarray:
    """Eigenvalues that one Lanczos run has found, ascending.

    Besides merged ghosts, a value is dropped whose error interval holds a better-known one: it may be a ghost on
    its way to that eigenvalue, and two eigenvalues where there is one would shrink the spacings of the bulk.
    """
    pairs = _merged(spectrum)
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
    """Energy of the bulk by component, traces, and negative mass (Papyan 2018, Sections 1 and 3, in words there).

    Weights times powers of the Ritz values are Gauss quadratures that estimate spectral moments per parameter: the
    sum of weight theta is tr(A) / p and that of weight theta^2 is ||A||_F^2 / p; both are averaged over start
    vectors. The bulk is the operator less its leading eigenpairs where deflation was done (`deflated`), else the
    whole operator; the residual is never deflated. Since Hessian = GGN + residual, the energies of the two parts
    add up to the Hessian's only with the cross term 2 tr(GGN residual) / p, which has a row of its own
    (operator `cross`, one less both shares; it also takes in the difference between the subspaces that were
    deflated and the noise of the start vectors).

    Returns
    -------
    One row for each run, split and operator (hessian, ggn, residual, cross): `deflated`; `bulk_energy` and its share
    of the Hessian's, `bulk_energy_share`; `trace` (per parameter, raw) and `trace_share`; `negative_mass`, the
    share of the sum of |eigenvalues| that lies below zero, of the raw operator; `negative_energy_share`, the energy
    below zero over the same operator's bulk energy. Negative mass is read from the raw spectrum, for an imperfectly
    converged deflation leaves false negative eigenvalues behind. The plain share of negative eigenvalues is not
    given: Lanczos puts the crowd of eigenvalues around zero on one Ritz value, of either sign by chance.
    """
    rows = []
    for key, group in ritz.groupby(_BASE):
        moments = {operator: _moments(part) for operator, part in group.groupby("operator")}
        rows += [dict(zip(_BASE, key, strict=True), **row) for row in _with_shares(moments)]
    return pd.DataFrame(rows)


def _moments(spectrum: pd.DataFrame) -> dict[str, float]:
    """Moments of one operator; `spectrum` has its raw rows and, if any, its deflated rows."""
    raw = spectrum[~spectrum["deflated"]]
    bulk = spectrum[spectrum["deflated"]] if spectrum["deflated"].any() else raw
    negative = raw[raw["ritz_value"] < 0]
    vectors = raw["start_vector"].nunique()
    absolute = _moment(raw.assign(ritz_value=raw["ritz_value"].abs()), 1, vectors)
    energy = _moment(bulk, 2, bulk["start_vector"].nunique())
    return {
        "deflated": bool(spectrum["deflated"].any()),
        "bulk_energy": energy,
        "trace": _moment(raw, 1, vectors),
        "negative_mass": _share(-_moment(negative, 1, vectors), absolute),
        "negative_energy_share": _share(_moment(negative, 2, vectors), energy),
    }


def _moment(spectrum: pd.DataFrame, power: int, vectors: int) -> float:
    return float((spectrum["weight"] * spectrum["ritz_value"] ** power).sum() / vectors)


def _share(part: float, whole: float) -> float:
    return part / whole if whole else np.nan


def _with_shares(moments: dict[str, dict[str, float]]) -> list[dict[str, object]]:
    whole = moments.get("hessian", {"bulk_energy": np.nan, "trace": np.nan})
    rows = []
    for operator in ("hessian", "ggn", "residual"):
        if operator in moments:
            found = moments[operator]
            shares = {f"{name}_share": _share(found[name], whole[name]) for name in ("bulk_energy", "trace")}
            rows.append({"operator": operator, **found, **shares})
    if len(rows) == 3:
        _, ggn, residual = rows
        cross = {name: 1.0 - ggn[name] - residual[name] for name in ("bulk_energy_share", "trace_share")}
        absolute = {name: cross[f"{name}_share"] * whole[name] for name in ("bulk_energy", "trace")}
        rows.append({"operator": "cross", "deflated": ggn["deflated"], **absolute, **cross})
    return rows


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
