"""How spectra change with the number of parameters and with the data (Sagun et al. 2017, arXiv 1706.04454).

Its conjectures: with the data fixed, more parameters scale the bulk and leave the outliers; with the network fixed, the
data move the outliers. Rows are those of `over_parametrized.counts` at the first and the last checkpoint.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.stats import linregress

from hessketch.data.catalog import describe, parse_clusters
from hessketch.errors import InputError
from hessketch.records import joined
from hessketch.runs import number_text
from hessketch.studies.over_parametrized import QUANTITIES
from hessketch.studies.sgd_dynamics import rank_correlation
from hessketch.studies.spectra import select, with_network_labels

_NETWORK = ["network", "norm", "width"]
_WIDTH_HELD = ["dataset", "label_noise", "examples_per_class", "loss", "trainer"]
_DATA_HELD = [*_NETWORK, "label_noise", "loss", "trainer", "axis", "fixed"]
_VIEW = ["stage", "operator"]
_SLOPE_KEYS = ["axis", "fixed", *_NETWORK, "label_noise", "examples_per_class", "loss", "trainer", *_VIEW]
SLOPES = (
    "near_zero", "negative", "outliers", "top_eigenvalue", "bulk_edge", "bulk_median", "bulk_90", "bulk_99", "trace",
)  # fmt: skip
"""Quantities whose log-log slopes are taken."""


def axes_of(dataset: str) -> dict[str, tuple[str, float]]:
    """The axes of data along which a data set has neighbours: axis to what is held along it, and the own place on it.

    Of Gaussian clusters 'classes' (their number, at one dimension and separation) and 'separation' (in standard
    deviations); of images 'classes' (how many of one base data set, at one size of image); of names of one's own none.
    """
    if dataset.startswith("clusters-"):
        count, dimension, separation = parse_clusters(dataset)
        return {
            "classes": (f"clusters-d{dimension}-s{number_text(separation)}", float(count)),
            "separation": (f"clusters-k{count}-d{dimension}", separation),
        }
    try:
        described = describe(dataset)
    except InputError:
        return {}
    side = (
        f"-{'grey' * described.grey}{described.reduced_side}x{described.reduced_side}" if described.reduced_side else ""
    )
    return {"classes": (f"{described.base}{side}", float(described.classes))}


def width_sweep(counts: pd.DataFrame) -> pd.DataFrame:
    """QUANTITIES of every data set with networks of several sizes: means over seeds and their standard errors.

    Returns
    -------
    One row a network, `stage`, `operator` and `quantity`: what is held (data set, noise, size, loss, trainer), the
    network, `n`, `p`, `classes`, `mean`, `standard_error` (NaN with one seed) and `seeds`.
    """
    return _summary(_along(counts, _WIDTH_HELD, "p"), [*_WIDTH_HELD, *_NETWORK, "n", "p", "classes", *_VIEW])


def data_sweep(counts: pd.DataFrame) -> pd.DataFrame:
    """QUANTITIES of every network with several data sets along one axis: means over seeds and their standard errors.

    Returns
    -------
    As `width_sweep`, with `axis` ('classes' or 'separation'), `fixed` (what is held of the data, see `axes_of`) and
    `value`, the place on the axis. A data set on two axes is in both. The number of parameters changes with the number
    of classes by the last layer alone; it is in `p`.
    """
    names = [*_DATA_HELD, "dataset", "examples_per_class", "value", "n", "p", "classes", *_VIEW]
    return _summary(_on_axes(counts), names)


def _along(counts: pd.DataFrame, held: list[str], x: str) -> pd.DataFrame:
    """Rows of first and last checkpoints where `x` has several values with all of `held` the same."""
    rows = counts[counts["stage"] != "between"]
    return rows[rows.groupby(held, dropna=False)[x].transform("nunique") > 1] if len(rows) else rows


def _on_axes(counts: pd.DataFrame) -> pd.DataFrame:
    """Rows along each axis of data, with `axis`, `fixed` and `value`; a data set on two axes is in both."""
    places = {name: axes_of(name) for name in counts["dataset"].unique()}
    frames = [counts.iloc[:0].assign(axis="", fixed="", value=0.0)]
    for name, axes in places.items():
        own = counts[counts["dataset"] == name]
        frames += [own.assign(axis=axis, fixed=fixed, value=value) for axis, (fixed, value) in axes.items()]
    return _along(joined(frames), _DATA_HELD, "value")


def _summary(rows: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    long = rows.melt([*keys, "seed"], list(QUANTITIES), "quantity", "value_of_run")
    groups = long.dropna(subset=["value_of_run"]).groupby([*keys, "quantity"], dropna=False, sort=False)
    table = groups["value_of_run"].agg(mean="mean", standard_error="sem", seeds="count")
    return table.reset_index()


def slopes(counts: pd.DataFrame, quantities: Sequence[str] = SLOPES) -> pd.DataFrame:
    """Exponents of power laws of quantities along each sweep, with Spearman's rank correlation.

    Returns
    -------
    One row a sweep (`axis`: 'parameters', 'classes' or 'separation'; `fixed`: the data set, or what is held of the
    data; the network, empty along 'parameters'), `stage`, `operator` and `quantity`: `exponent`, the slope of ln
    quantity against ln x by least squares over runs, and its `standard_error` (NaN with two runs; seeds of one place
    count as independent runs); `spearman`; `runs`, those with a positive value. NaN exponents where these do not span
    two places.
    """
    of_width = _along(counts, _WIDTH_HELD, "p").assign(axis="parameters", network="", norm="", width=np.nan)
    of_width = of_width.assign(fixed=of_width["dataset"], value=of_width["p"])
    of_data = _on_axes(counts).assign(examples_per_class=np.nan)  # it may differ along an axis
    rows = []
    for frame in (of_width, of_data):
        for key, runs in frame.groupby(_SLOPE_KEYS, dropna=False, sort=False):
            named = dict(zip(_SLOPE_KEYS, key, strict=True))
            rows += [{**named, "quantity": name, **_power_law(runs["value"], runs[name])} for name in quantities]
    return pd.DataFrame(rows, columns=[*_SLOPE_KEYS, "quantity", "exponent", "standard_error", "spearman", "runs"])


def _power_law(x: pd.Series, y: pd.Series) -> dict[str, float]:
    known = y.notna() & (y > 0)
    spearman, _ = rank_correlation(x, y)
    x, y = x[known], y[known]
    if x.nunique() < 2:
        return {"exponent": np.nan, "standard_error": np.nan, "spearman": spearman, "runs": len(x)}
    fit = linregress(np.log(x.astype(float)), np.log(y.astype(float)))
    constant = 0.0 if y.nunique() == 1 else float(fit.stderr)  # of which linregress would say NaN
    error = constant if len(x) > 2 else np.nan
    return {"exponent": float(fit.slope), "standard_error": error, "spearman": spearman, "runs": len(x)}


def through(sweep: pd.DataFrame, dataset: str, network: str) -> pd.DataFrame:
    """Rows of `data_sweep` on the axes through one data set, of one network label (in the column `network` then).

    Of a table of runs, which has no axes, the rows of the data set itself. Raises InputError where there are none.
    """
    rows = sweep
    if "axis" in sweep:
        held = {axis: fixed for axis, (fixed, _) in axes_of(dataset).items()}
        rows = sweep[sweep["axis"].map(held) == sweep["fixed"]]
        if rows.empty:
            raise InputError(f"{dataset} has no neighbour along an axis of data; give networks on several data sets")
    else:
        rows = select(rows, dataset=dataset)
    return select(with_network_labels(rows), network=network)
