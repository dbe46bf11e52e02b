"""Whether the loss after one step of SGD does what its second-order theory says (Li et al. 2020, section on dynamics).

Measured are quantiles over sampled mini-batches from one point; predicted are bounds on them and a regime.
"""

import numpy as np
import pandas as pd

from hessketch.studies.sgd_dynamics import SETTING

REGIMES = ("decreases", "decreases on average", "oscillates")
QUANTILES = {0.01: "q01", 0.05: "q05", 0.1: "q10", 0.25: "q25", 0.5: "q50"}
"""Level: column of the lower quantile."""
UPPER = {"q01": "q99", "q05": "q95", "q10": "q90", "q25": "q75", "q50": "q50"}
"""Column of a lower quantile: that of the upper one of the same level."""
_INSIDE = {"median_inside": "q50", "half_inside": "q25", "nine_tenths_inside": "q05", "nearly_all_inside": "q01"}
_KEYS = [*SETTING, "batch_size", "scheme"]


def with_checks(loss_changes: pd.DataFrame) -> pd.DataFrame:
    """The rows with what each point says of the theory, as 1.0 (true), 0.0 (false) or NaN (cannot be asked there).

    Added: `median_inside`, `half_inside`, `nine_tenths_inside`, `nearly_all_inside` (both quantiles of 50; 25 and 75;
    5 and 95; 1 and 99 % lie within the bounds); `bounds_hold` (neither bound is passed more often than with its
    probability: the least tabulated quantile of at least that level is within); NaN with all examples in a step, where
    nothing is random. `mean_agrees` (measured and predicted mean within two standard errors), `direction_agrees` (same
    sign; NaN where the measured mean is within two standard errors of zero), `relative_error` (of the predicted mean).
    `measured_regime`: decreases where at least 1 - bound_probability of the sampled steps lower the loss, decreases on
    average where else the mean is negative, else oscillates; `regime_agrees`.
    """
    rows = loss_changes
    random = rows["batch_size"] < rows["n"]
    checks = {name: _inside(rows, rows[low], rows[UPPER[low]]) for name, low in _INSIDE.items()}
    checks["bounds_hold"] = _inside(rows, *_guaranteed(rows))
    checks = {name: values.astype(float).where(random) for name, values in checks.items()}
    error = 2 * rows["standard_error"].fillna(0.0)
    apart = (rows["mean"] - rows["predicted_mean"]).abs()
    same = np.sign(rows["mean"]) == np.sign(rows["predicted_mean"])
    certain = rows["share_decreasing"] >= 1 - rows["bound_probability"]
    regime = np.select([certain, rows["mean"] < 0], REGIMES[:2], REGIMES[2])
    return rows.assign(
        **checks,
        mean_agrees=(apart <= error).astype(float).where(random),
        direction_agrees=same.astype(float).where(rows["mean"].abs() > error),
        relative_error=apart / rows["mean"].abs().where(rows["mean"] != 0),
        measured_regime=regime,
        regime_agrees=(regime == rows["regime"]).astype(float),
    )


def _inside(rows: pd.DataFrame, low: pd.Series, high: pd.Series) -> pd.Series:
    return (low >= rows["bound_lower"]) & (high <= rows["bound_upper"])


def _guaranteed(rows: pd.DataFrame) -> tuple[pd.Series, pd.Series]:
    """Quantiles that lie within bounds that hold: if less than d lies below a bound, the d-quantile is not below it."""
    levels = np.array(list(QUANTILES))
    places = np.searchsorted(levels, rows["bound_probability"].to_numpy() - 1e-9).clip(max=len(levels) - 1)
    names = np.array(list(QUANTILES.values()))[places]
    low = [rows[name].iloc[i] for i, name in enumerate(names)]
    high = [rows[UPPER[name]].iloc[i] for i, name in enumerate(names)]
    return pd.Series(low, index=rows.index, dtype=float), pd.Series(high, index=rows.index, dtype=float)


def coverage(loss_changes: pd.DataFrame) -> pd.DataFrame:
    """How often what was measured agrees with the theory, over the checkpoints and seeds of each setting and scheme.

    Returns
    -------
    A row for each setting (with `batch_size`) and `scheme`: `points`, `seeds`; the shares of points with each of
    `with_checks`; `relative_error` (median); `predicted_` and `measured_` shares of each of REGIMES (spaces as
    underscores); `share_decreasing` of the sampled steps in the mean over the points of each predicted regime
    (`share_decreasing_where_` and the regime; NaN where it is never predicted).
    """
    if loss_changes.empty:  # of runs that are not followed: a table without the columns of loss changes
        return loss_changes.iloc[:0]
    checked = with_checks(loss_changes)
    shares = [*_INSIDE, "bounds_hold", "mean_agrees", "direction_agrees", "regime_agrees"]
    groups = checked.groupby(_KEYS, dropna=False, sort=False)
    table = groups.agg(
        points=("step", "size"),
        seeds=("seed", "nunique"),
        **{name: (name, "mean") for name in shares},
        relative_error=("relative_error", "median"),
    )
    for regime in REGIMES:
        word = regime.replace(" ", "_")
        keys = [checked[column] for column in _KEYS]
        for kind, column in {"predicted": "regime", "measured": "measured_regime"}.items():
            is_so = (checked[column] == regime).astype(float)
            table[f"{kind}_{word}"] = is_so.groupby(keys, dropna=False, sort=False).mean()
        lowered = checked["share_decreasing"].where(checked["regime"] == regime)
        table[f"share_decreasing_where_{word}"] = lowered.groupby(keys, dropna=False, sort=False).mean()
    return table.reset_index()
