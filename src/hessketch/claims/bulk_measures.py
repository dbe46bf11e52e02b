"""Measures of the claims on the bulk: from the tables of the full-spectrum study to observations."""

from collections.abc import Callable

import pandas as pd

from hessketch.claims.claim import Tables
from hessketch.claims.observations import largest_sample, observed, plain, required, rows
from hessketch.runs import IDENTITY

_RUN = list(IDENTITY)
_NEAR = 0.01  # of the largest magnitude


def share_near_zero(tables: Tables) -> pd.DataFrame:
    """Share of the train Hessian's eigenvalues within 1% of the largest magnitude from zero, by Gauss quadrature."""
    table = _train_ritz(tables)
    runs = [table[name] for name in _RUN]
    magnitude = table["ritz_value"].abs()
    near = magnitude <= _NEAR * magnitude.groupby(runs, dropna=False).transform("max")
    share = table["weight"].where(near, 0.0).groupby(runs, dropna=False).transform("sum")
    share /= table["weight"].groupby(runs, dropna=False).transform("sum")
    return observed(_one_a_run(table.assign(value=share)), "no train Hessian was computed")


def negative_range(tables: Tables) -> pd.DataFrame:
    """- smallest over largest Ritz value of the train Hessian."""
    table = _train_ritz(tables)
    values = table["ritz_value"].groupby([table[name] for name in _RUN], dropna=False)
    ratio = -values.transform("min") / values.transform("max")
    return observed(_one_a_run(table.assign(value=ratio)), "no train Hessian was computed")


def _train_ritz(tables: Tables) -> pd.DataFrame:
    """Raw Ritz values of the train Hessian at the largest sample, of all start vectors."""
    table = plain(rows(tables, "full_spectrum/ritz"))
    own = table[(table["operator"] == "hessian") & (table["split"] == "train") & ~table["deflated"]]
    return largest_sample(required(own, "no train Hessian was computed"))


def _one_a_run(table: pd.DataFrame) -> pd.DataFrame:
    return table.drop_duplicates(_RUN)


def residual_share_of_bulk(tables: Tables) -> pd.DataFrame:
    """Energy of the residual over that of the test Hessian less its outliers."""
    return _ratio_of_energies(tables, "residual", "hessian")


def ggn_over_residual(tables: Tables) -> pd.DataFrame:
    """Energy of the test GGN less its outliers over that of the residual."""
    return _ratio_of_energies(tables, "ggn", "residual")


def _ratio_of_energies(tables: Tables, above: str, below: str) -> pd.DataFrame:
    """Ratio of two bulk energies; the residual is its own bulk, the others must have been deflated."""
    table = plain(rows(tables, "full_spectrum/components"))
    test = largest_sample(required(table[table["split"] == "test"], "no test spectra were computed"))
    bulks = test[test["deflated"] | (test["operator"] == "residual")]
    other = bulks.loc[bulks["operator"] == below, [*_RUN, "bulk_energy"]]
    pairs = bulks[bulks["operator"] == above].merge(other, on=_RUN, suffixes=("", "_below"))
    missing = "the outliers were not removed (spectrum.deflation_rank: 0), or there is no residual"
    return observed(pairs.assign(value=pairs["bulk_energy"] / pairs["bulk_energy_below"]), missing)


def asymmetry(tables: Tables) -> pd.DataFrame:
    """Mean difference of the log densities of both sides of the test residual, in decades."""
    table = _residual_tails(tables)
    missing = "the tails of both sides share no range in which eigenvalues lie densely: " + _reasons(table)
    return observed(_one_a_run(table.assign(value=table["asymmetry"])), missing)


def power_law_fit(tables: Tables) -> pd.DataFrame:
    """R2 of the power law, each side of the test residual."""
    return _of_sides(tables, lambda table: table["r_squared"])


def power_law_over_marchenko_pastur(tables: Tables) -> pd.DataFrame:
    """R2 of the power law less that of Marchenko-Pastur, each side of the test residual."""
    return _of_sides(tables, lambda table: table["r_squared"] - table["mp_r_squared"])


def distance_from_exponent(tables: Tables) -> pd.DataFrame:
    """|exponent - 2.6|, each side of the test residual."""
    return _of_sides(tables, lambda table: (table["exponent"] - 2.6).abs())


def _of_sides(tables: Tables, value: Callable[[pd.DataFrame], pd.Series]) -> pd.DataFrame:
    table = _residual_tails(tables)
    missing = "no tail is long enough to fit a law to: " + _reasons(table)
    return observed(table.assign(value=value(table)), missing, table["sign"].map({1: "right side", -1: "left side"}))


def _residual_tails(tables: Tables) -> pd.DataFrame:
    table = plain(rows(tables, "full_spectrum/tails"))
    own = table[(table["operator"] == "residual") & ~table["deflated"] & (table["split"] == "test")]
    return largest_sample(required(own, "no test residual was computed"))


def _reasons(table: pd.DataFrame) -> str:
    """Of the tails without a fit the first one's reason."""
    return next((reason for reason in table["reason"] if reason), "no reason recorded")
