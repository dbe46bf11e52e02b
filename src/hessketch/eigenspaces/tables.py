"""The columns of the tables of eigenspaces and masks, and frames that have just these."""

from collections.abc import Iterable

import pandas

from hessketch.runs import IDENTITY

_SIZES = {"n": "int64", "p": "int64", "classes": "int64"}
_POINT = {
    "batch_size": "int64", "kind": "str", "time": "int64",
    **dict.fromkeys(("train_loss", "train_accuracy", "test_loss", "test_accuracy"), "float64"),
    **_SIZES, "split": "str", "method": "str",
}  # fmt: skip
_CHANCES = ("chance", "chance_sd", "chance_by_layer", "chance_by_layer_sd", "chance_live", "chance_live_sd")
_ERRORS = ("eigenvalue_error", "subspace_overlap_half", "subspace_overlap")
_NORMS = ("frobenius_squared", "residual_squared", "residual_lower", "residual_upper")
POINT_TABLES = {
    "overlaps": {
        "mask": "str", "k": "int64", "overlap": "float64", **dict.fromkeys(_CHANCES, "float64"), "live": "int64"
    },
    "layers": {"k": "int64", "layer": "str", "parameters": "int64", "in_mask": "int64", "energy": "float64"},
    "eigenvalues": {"rank": "int64", "eigenvalue": "float64", "residual": "float64"},
    "quality": {
        "pairs": "int64", "products": "int64",
        **dict.fromkeys(("seconds", "negative_share", *_NORMS, *_ERRORS), "float64"),
    },
    "metrics": {"mask": "str", "k": "int64", "metric": "str", "similarity": "float64"},
}  # fmt: skip
"""Table to column to dtype of what is measured at a point, behind the columns of the point."""
STABILITY = {
    "split": "str", "of": "str", "ratio": "float64", "k": "int64", "first": "int64", "second": "int64",
    "similarity": "float64", "chance": "float64", "chance_sd": "float64",
}  # fmt: skip
TABLES = {
    **{name: {**_POINT, **own} for name, own in POINT_TABLES.items()},
    "stability": {**_SIZES, **STABILITY},
}
"""Table to column to dtype, behind the columns of IDENTITY."""


def joined(name: str, frames: Iterable[pandas.DataFrame]) -> pandas.DataFrame:
    """Frames of one of TABLES below each other, in its columns and dtypes; none make an empty one."""
    full = [frame for frame in frames if len(frame)]
    table = pandas.concat(full, ignore_index=True) if full else pandas.DataFrame(columns=[*IDENTITY, *TABLES[name]])
    return table[[*IDENTITY, *TABLES[name]]].astype(TABLES[name])
