"""What the measures of the claims share: rows of a table, and observations made of them."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from hessketch.claims.claim import OBSERVED, NotTested, Tables
from hessketch.runs import number_text

MANY_PARAMETERS = 10_000_000
"""From how many parameters a claim about networks of millions counts as tested."""

NOT_KNOWN = "what was measured is not known (NaN) in any run"

SETTING = ("dataset", "label_noise", "network", "norm", "width", "loss", "trainer")
"""What differs between networks, besides the sample size, the learning rate and the seed."""


def rows(tables: Tables, name: str) -> pd.DataFrame:
    """A table that has rows, with integer indices from 0. Raises NotTested without rows."""
    table = tables[name]
    if table.empty:
        raise NotTested(f"the table {name} has no rows: nothing that it is about was trained or finished")
    return table.reset_index(drop=True)


def plain(table: pd.DataFrame) -> pd.DataFrame:
    """Rows of networks trained as the papers' spectra are: with cross-entropy, on true labels."""
    chosen = table[(table["loss"] == "cross_entropy") & (table["label_noise"] == 0)]
    return required(chosen, "no network was trained with cross-entropy on true labels")


def largest_sample(table: pd.DataFrame) -> pd.DataFrame:
    """Rows of the largest training set of each setting; a missing examples_per_class stands for every example."""
    sizes = table["examples_per_class"].astype(float).fillna(np.inf)
    largest = sizes.groupby([table[column] for column in SETTING]).transform("max")
    return table[sizes == largest]


def large_networks(table: pd.DataFrame) -> pd.DataFrame:
    """Rows of networks of at least MANY_PARAMETERS. Raises NotTested, naming the largest p, without one."""
    return required(
        table[table["p"] >= MANY_PARAMETERS],
        f"the largest network has {table['p'].max():,} parameters, {MANY_PARAMETERS:,} or more are needed: "
        "the profile `paper` has them",
    )


def required(chosen: pd.DataFrame, missing: str) -> pd.DataFrame:
    """The rows. Raises NotTested with `missing` where there are none."""
    if chosen.empty:
        raise NotTested(missing)
    return chosen


def observed(chosen: pd.DataFrame, missing: str, case: pd.Series | str = "") -> pd.DataFrame:
    """Observations of rows that have dataset, network, norm, width, p, n, seed and `value`.

    `case` is told apart further by the setting's loss, label noise and sample size where they vary. Rows without a
    value (NaN) stay, so that a verdict can count the cases that have none. Raises NotTested with `missing` where no row
    has a value.
    """
    chosen = chosen.assign(case=case)
    required(chosen[chosen["value"].notna()], missing)
    words = _told_apart(chosen)
    chosen = chosen.assign(
        case=[", ".join(filter(None, (own, *more))) for own, more in zip(chosen["case"], words, strict=True)],
        network=[name if norm == "none" else f"{name}-{norm}" for name, norm in chosen[["network", "norm"]].values],
    )
    kinds = {"width": float, "p": float, "n": float, "seed": int, "value": float}
    return chosen[list(OBSERVED)].astype(kinds).reset_index(drop=True)


def _told_apart(chosen: pd.DataFrame) -> list[list[str]]:
    """Words of each row for what varies and has no column of its own among CASE."""
    words: list[list[str]] = [[] for _ in range(len(chosen))]
    if "loss" in chosen and chosen[["loss", "label_noise"]].drop_duplicates().shape[0] > 1:
        for own, (loss, noise) in zip(words, chosen[["loss", "label_noise"]].values, strict=True):
            own.append(f"{loss}, noise {number_text(noise)}" if noise else loss)
    if "examples_per_class" in chosen:
        sizes = chosen["examples_per_class"].astype(float)
        if sizes.groupby(chosen["dataset"]).nunique(dropna=False).max() > 1:
            for own, size in zip(words, sizes, strict=True):
                own.append("every example" if np.isnan(size) else f"{size:.0f} per class")
    return words


def case_name(case: Mapping[str, Any]) -> str:
    """`fashion_mnist, vgg11-batch x 0.125, test` of a row with the columns CASE."""
    network = case["network"] if np.isnan(case["width"]) else f"{case['network']} x {number_text(case['width'])}"
    return ", ".join(filter(None, (case["dataset"], network, case["case"])))


def scale(observations: pd.DataFrame) -> str:
    """At what scale was observed: data sets; networks with widths; p; n; seeds."""
    networks = observations[["network", "width"]].drop_duplicates().sort_values(["network", "width"])
    bare = networks.assign(dataset="", case="").to_dict("records")
    parts = [
        ", ".join(sorted(set(filter(None, observations["dataset"])))),
        ", ".join(filter(None, map(case_name, bare))),
        _range("p", observations["p"]),
        _range("n", observations["n"]),
        f"{observations['seed'].nunique()} seed" + "s" * (observations["seed"].nunique() > 1),
    ]
    return "; ".join(filter(None, parts))


def _range(name: str, values: pd.Series) -> str:
    values = values.dropna()
    if values.empty:
        return ""
    ends = [f"{value:,.0f}" for value in sorted({values.min(), values.max()})]
    return f"{name} {' to '.join(ends)}"
