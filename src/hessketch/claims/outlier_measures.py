"""Measures of the claims on outliers: from the tables of the full-spectrum study to observations."""

import numpy as np
import pandas as pd

from hessketch.claims.claim import NotTested, Tables
from hessketch.claims.observations import large_networks, largest_sample, observed, plain, required, rows
from hessketch.runs import IDENTITY

OUTLIERS = "full_spectrum/outliers"
_FEW_CLASSES = 100
_LEAST_GROWTH = 5  # times as many examples, so that more outliers can be expected
_RUN = list(IDENTITY)
_MODEL = [name for name in _RUN if name not in ("examples_per_class", "learning_rate")]
NEAR = 0.003
"""Of the range of a spectrum: the width of the kernel of its density, within which two eigenvalues make one peak."""
_NOT_CONVERGED = (
    f"subspace iteration has not converged to {NEAR:g} of the range in any spectrum: spectrum.deflation_iterations is "
    "too small"
)
_UNCOUNTED = "Lanczos found too few eigenvalues to count C outliers among them: spectrum.lanczos_steps is too small"


def missing_outliers_of_train(tables: Tables) -> pd.DataFrame:
    """|outliers - C| / C of the train Hessian at the largest sample, for fewer than 100 classes."""
    return _missing_outliers(_counted(tables, "train"))


def missing_outliers_of_test(tables: Tables) -> pd.DataFrame:
    """|outliers - C| / C of the test Hessian at the largest sample, for fewer than 100 classes."""
    return _missing_outliers(_counted(tables, "test"))


def missing_outliers_at_scale(tables: Tables) -> pd.DataFrame:
    """|outliers - C| / C of the train Hessians of networks with many parameters."""
    return _missing_outliers(large_networks(_counted(tables, "train")))


def outliers_of_hundred_classes(tables: Tables) -> pd.DataFrame:
    """Outliers / C of the train Hessian at the largest sample, for 100 classes or more."""
    counted = _counted(tables, "train")
    many = required(
        counted[counted["classes"] >= _FEW_CLASSES],
        f"the data have {counted['classes'].max()} classes at most: CIFAR-100 is in the profile `paper`",
    )
    value = (many["outlier_count"] / many["classes"]).where(_countable(many))
    return observed(many.assign(value=value), _UNCOUNTED)


def _counted(tables: Tables, split: str) -> pd.DataFrame:
    """Outlier counts of the Hessian of one split, at the largest sample of each network."""
    table = plain(rows(tables, OUTLIERS))
    hessians = table[(table["operator"] == "hessian") & (table["split"] == split)]
    return largest_sample(required(hessians, f"no {split} Hessian was computed"))


def _missing_outliers(counted: pd.DataFrame) -> pd.DataFrame:
    few = required(counted[counted["classes"] < _FEW_CLASSES], "all data have 100 classes or more")
    value = ((few["outlier_count"] - few["classes"]).abs() / few["classes"]).where(_countable(few))
    return observed(few.assign(value=value), _UNCOUNTED)


def _countable(counted: pd.DataFrame) -> pd.Series:
    """Whether C outliers could be found: at most half of the values that the test of gaps looks at."""
    return counted["examined"] // 2 >= counted["classes"]


def ratio_of_splits(tables: Tables) -> pd.DataFrame:
    """Larger over smaller of the largest eigenvalues of train and test Hessian, at the largest sample."""
    train, test = _counted(tables, "train"), _counted(tables, "test")
    pairs = train.merge(test[[*_RUN, "top_eigenvalue"]], on=_RUN, suffixes=("", "_test"))
    ratio = pairs["top_eigenvalue"] / pairs["top_eigenvalue_test"]
    sound = (pairs["top_eigenvalue"] > 0) & (pairs["top_eigenvalue_test"] > 0)
    value = np.maximum(ratio, 1 / ratio).where(sound)
    return observed(pairs.assign(value=value), "no network has both a train and a test Hessian")


def distance_to_ggn(tables: Tables) -> pd.DataFrame:
    """Median relative difference of the C largest eigenvalues of test Hessian and GGN, by rank."""
    table = plain(rows(tables, "full_spectrum/outlier_positions"))
    test = largest_sample(required(table[table["split"] == "test"], "no test Hessian was computed"))
    leading = test[test["rank"] <= test["classes"]]
    runs = leading.groupby(_RUN, dropna=False)
    whole = leading[runs["rank"].transform("size") == leading["classes"]]
    missing = "fewer than C eigenvalues of Hessian and GGN were computed: spectrum.deflation_rank is below C"
    value = whole["relative_difference"].abs().groupby([whole[name] for name in _RUN], dropna=False).transform("median")
    return observed(whole.assign(value=value)[whole["rank"] == 1], missing)


def residual_over_outliers(tables: Tables) -> pd.DataFrame:
    """Largest |eigenvalue| of the residual over the C-th largest eigenvalue of the test Hessian, the least outlier.

    It is known where C outliers or more were counted by their gaps: with fewer the C-th is one of the bulk.
    """
    counted = _counted(tables, "test")
    eigenvalues = rows(tables, "full_spectrum/eigenvalues")
    own = eigenvalues[(eigenvalues["operator"] == "hessian") & (eigenvalues["split"] == "test")]
    place = own.groupby(_RUN, dropna=False)["eigenvalue"].rank(ascending=False, method="first")
    least = own[place == own["classes"]]
    pairs = counted.merge(least[[*_RUN, "eigenvalue"]], on=_RUN)
    value = (pairs["residual_edge"] / pairs["eigenvalue"]).where(pairs["eigenvalue"] > 0, np.inf)
    pairs = pairs.assign(value=value.where(pairs["residual_edge"].notna()))
    required(pairs[pairs["value"].notna()], "no residual, or fewer than C eigenvalues of the test Hessian")
    enough = pairs["outlier_count"] >= pairs["classes"]
    missing = f"needs C counted outliers; at most {pairs['outlier_count'].max()} were counted in a test Hessian"
    return observed(pairs.assign(value=pairs["value"].where(enough)), missing)


def growth_of_outliers(tables: Tables) -> pd.DataFrame:
    """Outliers of the GGN at the largest training set less those at the smallest, each split."""
    table = plain(rows(tables, OUTLIERS))
    ggn = table[table["operator"] == "ggn"]
    ggn = ggn.assign(outliers=ggn["outlier_count"].where(_countable(ggn)))
    train = ggn.loc[ggn["split"] == "train", [*_RUN, "n"]].rename(columns={"n": "trained_on"})
    found = []
    for (*_, split), group in ggn.merge(train, on=_RUN).groupby([*_MODEL, "split"], dropna=False):
        ordered = group.sort_values("trained_on")
        least, most = ordered.iloc[0], ordered.iloc[-1]
        if most["trained_on"] >= _LEAST_GROWTH * least["trained_on"]:
            value = float(most["outliers"] - least["outliers"])
            case = f"{split}, {least['trained_on']} to {most['trained_on']} examples"
            found.append({**most, "value": value, "of_case": case})
    if not found:
        raise NotTested(
            f"no network has a training set {_LEAST_GROWTH} times its smallest: give datasets.examples_per_class a "
            "wider range"
        )
    table = pd.DataFrame(found).drop(columns="examples_per_class")
    return observed(table, _UNCOUNTED, table["of_case"])


def distance_to_ritz_values(tables: Tables) -> pd.DataFrame:
    """Largest distance of the C leading eigenvalues from the nearest Ritz value, over the range of the spectrum.

    It is known where subspace iteration has converged: no residual norm of the C, which bounds an eigenvalue's error,
    is above NEAR of the range. Left out are spectra whose eigenvalues are Ritz values to the last digit: the fast
    method has both from one Lanczos run, where they cannot differ.
    """
    pairs, ritz = (plain(rows(tables, f"full_spectrum/{name}")) for name in ("eigenvalues", "ritz"))
    raw = ritz[~ritz["deflated"] & (ritz["start_vector"] == ritz["start_vector"].min())]
    missing = (
        "no network has C eigenvalues by subspace iteration beside a Lanczos spectrum of its train Hessian: "
        "spectrum.method: paper makes them"
    )
    spectra, leading = (_train_hessians(table, missing) for table in (raw, pairs))
    values = {key: group["ritz_value"].to_numpy() for key, group in spectra.groupby(_RUN, dropna=False)}
    found = []
    for key, group in leading[leading["rank"] <= leading["classes"]].groupby(_RUN, dropna=False):
        if len(group) == group["classes"].iloc[0] and key in values:
            distances = np.abs(group["eigenvalue"].to_numpy()[:, None] - values[key]).min(axis=1)
            if distances.any():
                extent = np.ptp(values[key])
                converged = group["residual_norm"].max() <= NEAR * extent
                found.append({**group.iloc[0], "value": distances.max() / extent if converged else np.nan})
    if not found:
        raise NotTested(missing)
    return observed(pd.DataFrame(found), _NOT_CONVERGED)


def _train_hessians(table: pd.DataFrame, missing: str) -> pd.DataFrame:
    own = table[(table["operator"] == "hessian") & (table["split"] == "train")]
    return largest_sample(required(own, missing))
