"""Where the outliers of the GGN come from: its parts by class and cross-class means (Papyan 2019).

After *Measurements of Three-Level Hierarchical Structure in the Outliers in the Spectrum of Deepnet Hessians*, ICML
2019. The GGN is exactly G = G0 + G1 + G2 + G3 (`curvature.class_means` has the formulas): G1 of the class means, of
rank C at most; G2 of the cross-class means around them; G3 of the examples around these; G0 of the terms of the true
classes. `G1+2` is the sum of two.
"""

import numpy as np
import pandas as pd

from hessketch.runs import IDENTITY
from hessketch.studies.spectra import SPECTRUM_KEYS, largest_size, select, with_network_labels

COLUMNS = {
    "parts": ("part", "rank", "eigenvalue", "residual"),
    "means": ("true_class", "other_class", "pca_1", "tsne_1"),
    "alignment": ("k", "overlap", "chance"),
}
"""What the jobs measure, and what tells each table from the others."""
PARTS = ("G", "G1", "G2", "G1+2", "G0", "G3")
EXPLAINING = ("G1", "G1+2")
"""The parts whose eigenvalues are held against the outliers of G."""

_KEYS = [key for key in SPECTRUM_KEYS if key != "operator"]


def attribution(parts: pd.DataFrame) -> pd.DataFrame:
    """G's largest eigenvalues beside those of its parts, by rank.

    Returns
    -------
    One row a spectrum and rank up to 2 C: a column of eigenvalues for each of PARTS (NaN where a part has none of that
    rank), and of EXPLAINING `difference_G1` and `difference_G1+2` = (part - G) / |G|.
    """
    leading = parts[parts["rank"] <= 2 * parts["classes"]]
    keys = [*_KEYS, "rank"]
    table = leading[leading["part"] == "G"].rename(columns={"eigenvalue": "G"})[[*keys, "G"]]
    for part in PARTS[1:]:
        own = leading[leading["part"] == part].rename(columns={"eigenvalue": part})
        table = table.merge(own[[*keys, part]], on=keys, how="left", validate="one_to_one")
    differences = {f"difference_{part}": (table[part] - table["G"]) / table["G"].abs() for part in EXPLAINING}
    return table.assign(**differences)


def matches(attributed: pd.DataFrame, alignment: pd.DataFrame) -> pd.DataFrame:
    """How well a part explains the C - 1 and the C largest eigenvalues of G, and the class means their eigenspace.

    Parameters
    ----------
    attributed : as `attribution` returns it
    alignment : as the jobs measure it

    Returns
    -------
    One row a spectrum, `part` of EXPLAINING and `k` (C - 1 and C): `median_difference` and `largest_difference`, of the
    relative differences' magnitudes over the k largest (NaN where the part has fewer); `overlap` of the k largest
    eigenvectors' space with the span of the class means, `chance`, and `times_chance`.
    """
    rows = []
    for key, group in attributed.groupby(_KEYS, dropna=False, sort=False):
        classes = int(group["classes"].iloc[0])
        for part in EXPLAINING:
            for k in (classes - 1, classes):
                sizes = group.loc[group["rank"] <= k, f"difference_{part}"].abs()
                whole = len(sizes) == k and sizes.notna().all()
                found = (sizes.median(), sizes.max()) if whole and k else (np.nan, np.nan)
                rows.append((*key, part, k, *found))
    table = pd.DataFrame(rows, columns=[*_KEYS, "part", "k", "median_difference", "largest_difference"])
    table = table.merge(alignment[[*_KEYS, "k", "overlap", "chance"]], on=[*_KEYS, "k"], how="left")
    return table.assign(times_chance=table["overlap"] / table["chance"])


def densities_of(density: pd.DataFrame, parts: pd.DataFrame) -> pd.DataFrame:
    """Rows of the full-spectrum densities that belong to the GGN that `parts` decomposes: same run and split."""
    own = parts[[*IDENTITY, "split"]].drop_duplicates()
    ggn = density[(density["operator"] == "ggn") & (density["estimator"] == "lanczos") & ~density["deflated"]]
    return ggn.merge(own, on=[*IDENTITY, "split"])


def trained_runs(runs: pd.DataFrame) -> pd.DataFrame:
    """Of the full-spectrum runs those that the hierarchy may be of: selected rate, cross-entropy, true labels."""
    return runs[runs["selected"] & (runs["loss"] == "cross_entropy") & (runs["label_noise"] == 0)]


def of_network(frame: pd.DataFrame, dataset: str, network: str, examples_per_class: int | None = None) -> pd.DataFrame:
    """Rows of one data set, network label and training-set size, the largest without one; every seed.

    The label stands in the column `network` afterwards. Raises InputError where there are none.
    """
    rows = select(with_network_labels(frame), dataset=dataset, network=network)
    if examples_per_class is not None:
        return select(rows, examples_per_class=examples_per_class)
    return largest_size(rows) if rows["examples_per_class"].notna().all() else rows[rows["examples_per_class"].isna()]
