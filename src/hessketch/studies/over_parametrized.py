"""Derived tables of *Empirical Analysis of the Hessian of Over-Parametrized Neural Networks* (Sagun et al. 2017).

arXiv 1706.04454. The jobs decompose each matrix whole; here a spectrum becomes a row of counts. What they do over
widths and data is in `over_parametrized_sweeps`.
"""

import numpy as np
import pandas as pd

from hessketch.errors import InputError
from hessketch.linalg.dense_eigenpairs import rounding_of
from hessketch.linalg.outliers import count_outliers
from hessketch.runs import IDENTITY
from hessketch.studies.sgd_dynamics import base_point
from hessketch.studies.spectra import select, with_network_labels

COLUMNS = {
    "spectra": ("operator", "rank", "eigenvalue"),
    "alignments": ("operator", "k", "overlap", "chance"),
}
"""What the jobs measure, and what tells each table from the others."""
OPERATORS = ("hessian", "ggn", "output_gradients")

NEAR_ZERO = 1e-3
"""An eigenvalue whose magnitude is below this share of the largest magnitude is near zero; one below minus this share
is negative beyond doubt."""
CANDIDATES = 3
"""Outliers are looked for among the so many times C largest eigenvalues (C classes)."""
BULK_QUANTILES = {"bulk_median": 0.5, "bulk_90": 0.9, "bulk_99": 0.99}
QUANTITIES = (
    "near_zero", "near_zero_share", "negative", "negative_beyond", "negative_ratio", "outliers", "outliers_by_test",
    "gap", "top_eigenvalue", "bulk_edge", *BULK_QUANTILES, "trace",
)  # fmt: skip

_RUN = [*IDENTITY, "batch_size"]
_POINT = [*_RUN, "kind", "time"]


def spectral_counts(eigenvalues: np.ndarray, classes: int) -> dict[str, float]:
    """All eigenvalues of one matrix, float64 (p,) in any order, as counts and sizes.

    Returns
    -------
    `near_zero` and `near_zero_share`; `negative` (beyond `rounding_of` all), `negative_beyond` (beyond NEAR_ZERO) and
    `negative_ratio` = -min / max; `zero`, magnitudes within rounding; `outliers`, the r that maximises the ratio of
    eigenvalue r to eigenvalue r + 1 among the CANDIDATES C + 1 largest, what is near zero or negative counting as
    NEAR_ZERO times the largest magnitude, so that no outlier is near zero; `gap`, that ratio: the rule always finds
    some r, and a gap of about 1 says that nothing stands apart; `outliers_by_test`, the number that
    `linalg.outliers.count_outliers` finds in the leading 4 C + 10 positive ones, which may be none; `top_eigenvalue`;
    `bulk_edge`, the largest eigenvalue that is no outlier; BULK_QUANTILES of the magnitudes of those that are none
    (NaN without any); `trace`.

    Raises InputError for values that are not finite or none at all.
    """
    values = np.sort(np.asarray(eigenvalues, dtype=float))[::-1]
    if not len(values) or not np.isfinite(values).all():
        raise InputError(f"{len(values)} eigenvalues, some not finite, or none; give all of a matrix, each a number")
    sizes = np.abs(values)
    largest = sizes.max()
    rounding, near = rounding_of(values), NEAR_ZERO * largest
    outliers, gap = _largest_gap(values[: CANDIDATES * classes + 1], near)
    bulk = values[outliers:]
    quantiles = {
        name: float(np.quantile(np.abs(bulk), q)) if len(bulk) else np.nan for name, q in BULK_QUANTILES.items()
    }
    return {
        "near_zero": int((sizes < near).sum()) if largest else len(values),
        "near_zero_share": float((sizes < near).mean()) if largest else 1.0,
        "negative": int((values < -rounding).sum()),
        "negative_beyond": int((values < -near).sum()),
        "negative_ratio": float(-values[-1] / values[0]) if values[0] > 0 else np.nan,
        "zero": int((sizes <= rounding).sum()),
        "outliers": outliers,
        "gap": gap,
        "outliers_by_test": count_outliers(values[: 4 * classes + 10][values[: 4 * classes + 10] > rounding]),
        "top_eigenvalue": float(values[0]),
        "bulk_edge": float(bulk[0]) if len(bulk) else np.nan,
        **quantiles,
        "trace": float(values.sum()),
    }  # fmt: skip


def _largest_gap(leading: np.ndarray, floor: float) -> tuple[int, float]:
    """Place and size of the largest ratio of neighbours; no outlier where none exceeds the floor, or of one value."""
    positive = np.maximum(leading, floor)
    if len(leading) < 2 or leading[0] <= floor:
        return 0, np.nan
    ratios = positive[:-1] / positive[1:]
    place = int(np.argmax(ratios))
    return place + 1, float(ratios[place])


def counts(spectra: pd.DataFrame) -> pd.DataFrame:
    """`spectral_counts` of every checkpoint and operator of the raw table `spectra`, a row each.

    Added: `least_zeros`, how many eigenvalues must be zero because the matrix has too little rank: p - n C of
    output_gradients and of ggn, where cross-entropy makes it p - n (C - 1), at least 0; NaN of the Hessian, whose
    second term has no such bound. And `stage`, see `with_stages`.

    Raises InputError where a spectrum is not whole.
    """
    described = [name for name in spectra if name not in ("rank", "eigenvalue")]
    rows = []
    for _, spectrum in spectra.groupby([*_POINT, "operator"], dropna=False, sort=False):
        row = spectrum.iloc[0][described].to_dict()
        if len(spectrum) != row["p"] or spectrum["rank"].nunique() != row["p"]:
            raise InputError(
                f"{row['operator']} of {row['dataset']} at {row['kind']} {row['time']}: {len(spectrum)} eigenvalues of "
                f"{row['p']}; the counts need each of them once; measure the checkpoint again"
            )
        found = spectral_counts(spectrum["eigenvalue"].to_numpy(), int(row["classes"]))
        rows.append({**row, **found, "least_zeros": _least_zeros(row)})
    names = [*described, *QUANTITIES, "zero", "least_zeros"]
    return with_stages(pd.DataFrame(rows, columns=names) if not rows else pd.DataFrame(rows))


def _least_zeros(row: dict) -> float:
    if row["operator"] == "hessian":
        return np.nan
    softmax = row["operator"] == "ggn" and row["loss"] == "cross_entropy"
    return float(max(0, row["p"] - row["n"] * (row["classes"] - softmax)))


def with_stages(frame: pd.DataFrame) -> pd.DataFrame:
    """Added `stage`: 'initial' at a run's first checkpoint, 'trained' at its last (or only) one, else 'between'."""
    times = frame.groupby(_RUN, dropna=False)["time"]
    last, first = frame["time"] == times.transform("max"), frame["time"] == times.transform("min")
    return frame.assign(stage=np.where(last, "trained", np.where(first, "initial", "between")))


def ends(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows of the first and the last checkpoint of each run, with their `stage`."""
    staged = with_stages(frame)
    return staged[staged["stage"] != "between"]


def outlier_match(spectra: pd.DataFrame, alignments: pd.DataFrame) -> pd.DataFrame:
    """The Hessian's largest eigenvalues beside those of the GGN and of the output gradients, by rank.

    Returns
    -------
    One row a checkpoint and rank up to 2 C: the eigenvalues `hessian`, `ggn`, `output_gradients`;
    `relative_difference` = (hessian - ggn) / |ggn|; `overlap_ggn` and `overlap_output_gradients` of the eigenspaces of
    the `rank` largest eigenvalues with the Hessian's, and their `chance`; `stage`. NaN where one was not measured.
    """
    described = [name for name in spectra if name not in ("operator", "rank", "eigenvalue")]
    leading = spectra[spectra["rank"] <= 2 * spectra["classes"]]
    keys = [*_POINT, "rank"]
    table = leading[[*described, "rank"]].drop_duplicates(keys)
    for operator in OPERATORS:
        own = leading[leading["operator"] == operator].rename(columns={"eigenvalue": operator})
        table = table.merge(own[[*keys, operator]], on=keys, how="left", validate="one_to_one")
    chance = alignments.rename(columns={"k": "rank"}).drop_duplicates(keys)
    for operator in OPERATORS[1:]:
        own = alignments[alignments["operator"] == operator]
        own = own.rename(columns={"k": "rank", "overlap": f"overlap_{operator}"})
        table = table.merge(own[[*keys, f"overlap_{operator}"]], on=keys, how="left", validate="one_to_one")
    table = table.merge(chance[[*keys, "chance"]], on=keys, how="left", validate="one_to_one")
    difference = (table["hessian"] - table["ggn"]) / table["ggn"].abs()
    return with_stages(table.assign(relative_difference=difference))


def of_data(frame: pd.DataFrame, dataset: str, network: str | None = None) -> pd.DataFrame:
    """Rows of one data set, and of one network label where given, at the base label noise, size, loss and trainer.

    The label stands in the column `network` afterwards. Raises InputError where there is no such row.
    """
    rows = select(with_network_labels(frame), dataset=dataset)
    base = base_point(rows)
    comparable = rows.assign(examples_per_class=pd.to_numeric(rows["examples_per_class"]).fillna(np.inf))
    held = [comparable[name] == base[name] for name in ("label_noise", "examples_per_class", "loss", "trainer")]
    rows = rows[np.logical_and.reduce(held)]
    return rows if network is None else select(rows, network=network)
