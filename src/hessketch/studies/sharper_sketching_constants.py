"""Table 1 of Shrivastava et al. (NeurIPS 2024), with the constants of its analyses that can be measured.

The table sets two analyses of sketched distributed training side by side. That of Song et al. assumes that the loss is
strongly convex and beta-smooth, and its iteration count grows with the number of parameters p. The paper assumes the
Polyak-Lojasiewicz (PL) condition and approximate restricted strong smoothness (RSS), and its count does not. The rates
themselves are not reproduced; here stand the assumptions and what was measured of their constants.

The difference can be measured in the second-order noise of one unbiased sketched step. For a Count-Sketch R into one
row of b numbers the error e = R^T R g - g has mean zero, and what it adds to g^T H g is

    E[e^T H e] = E[(R^T R g)^T H (R^T R g)] - g^T H g = (1/b) (tr(H) |g|^2 + g^T H g - 2 sum_i H_ii g_i^2).

With beta the largest |eigenvalue| of H and kappa beta = sum |eigenvalues|, both of these bound its magnitude:

- smoothness alone: beta E|e|^2 = (p - 1) / b * beta |g|^2, as E|R^T R g|^2 = (1 + (p - 1) / b) |g|^2 is the same
  formula with H = I; it is met by H = beta I;
- the spectrum: (kappa + 3) / b * beta |g|^2, term by term, as |tr H| <= kappa beta, |g^T H g| <= beta |g|^2 and
  |H_ii| <= beta.

The first has p in it, the second has not; they differ by the factor (p - 1) / (kappa + 3).
"""

import numpy as np
import pandas as pd

from hessketch.runs import Run
from hessketch.studies.sharper_sketching import CELL

SONG, PAPER = "Song et al. 2023", "Shrivastava et al. 2024"

_RATES = "not reproduced here: the sources at hand do not state the rates; see the papers' Table 1"
_THEORY = (  # row, Song et al., the paper
    ("convexity", "strong convexity", "PL condition"),
    ("smoothness", "beta-smoothness", "approximate restricted strong smoothness (RSS)"),
    (
        "spectrum of the Hessian",
        "",
        "sum of |eigenvalues| of the predictor Hessian at most kappa times the largest, kappa far below p",
    ),
    ("ambient dimension p in the iteration count", "yes", "no"),
    ("iteration complexity", _RATES, _RATES),
)
_MEASURED = {  # constant: row, its role with Song et al., with the paper
    "p": ("parameters p", "in the iteration count", "not in the iteration count"),
    "b": ("numbers b in a sketch", "", ""),
    "p_over_b": ("reduction p / b", "", ""),
    "checkpoints": ("checkpoints measured", "", ""),
    "beta": ("beta: largest |eigenvalue| of the train Hessian", "smoothness", ""),
    "place": ("where beta was found", "", ""),
    "trace": ("trace of the train Hessian, there", "", ""),
    "absolute_sum": ("sum of |eigenvalues|, there", "", "at most kappa times the largest"),
    "kappa": ("kappa = sum of |eigenvalues| / largest, there", "", "assumed far below p"),
    "kappa_over_p": ("kappa / p", "", "assumed far below 1"),
    "kappas": ("least and largest kappa of the checkpoints", "", ""),
    "mu": ("mu: least |gradient|^2 / (2 loss), as if the least loss were 0", "its convexity implies PL", "PL constant"),
    "condition_number": ("condition number beta / mu", "", ""),
    "bound_by_dimension": (
        "second-order noise of an unbiased step beyond g'Hg, over |g|^2: at most (p - 1) beta / b",
        "by smoothness alone",
        "",
    ),
    "bound_by_spectrum": ("the same noise: at most (kappa + 3) beta / b", "", "by the spectrum"),
    "ratio": ("ratio of the two bounds: (p - 1) / (kappa + 3)", "", ""),
}  # fmt: skip


def measured_constants(curvature: pd.DataFrame) -> pd.DataFrame:
    """What the two analyses call constants, over all measured checkpoints of a cell (all trainers, seeds, rounds).

    Parameters
    ----------
    curvature : rows of the train Hessian are used; others are ignored

    Returns
    -------
    One row a cell: `p`; `checkpoints` (count); `beta`, the largest |eigenvalue| of all checkpoints; of the very
    checkpoint where it was found `trainer`, `seed`, `round`, and `trace`, `absolute_sum`, `kappa` (= absolute_sum /
    beta), each with its `_standard_error`, and `kappa_over_p`; `least_kappa` and `largest_kappa` of all checkpoints;
    `mu`, the least of |grad L|^2 / (2 L), and `condition_number` = beta / mu.

    With a least loss L* >= 0, |grad L|^2 / (2 L) is at most |grad L|^2 / (2 (L - L*)), so that `mu` does not exceed
    what the true L* would give at these checkpoints. Between checkpoints the constants may be worse: beta may be
    larger and the PL constant smaller.
    """
    hessians = curvature[(curvature["operator"] == "hessian") & (curvature["split"] == "train")]
    rows = []
    for key, cell in hessians.reset_index(drop=True).groupby(list(CELL), dropna=False, sort=False):
        sharpest = cell.loc[cell["largest_magnitude"].idxmax()]
        beta = float(sharpest["largest_magnitude"])
        with_loss = cell[cell["train_loss"] > 0]  # a loss of zero says nothing of the slope towards it
        mu = float((with_loss["gradient_norm_squared"] / (2 * with_loss["train_loss"])).min())
        sums = ("trace", "absolute_sum", "kappa")
        rows.append(
            {
                **dict(zip(CELL, key, strict=True)),
                "p": int(sharpest["p"]),
                "checkpoints": len(cell),
                "beta": beta,
                **sharpest[["trainer", "seed", "round"]].to_dict(),
                **{f"{name}{end}": float(sharpest[name + end]) for name in sums for end in ("", "_standard_error")},
                "kappa_over_p": float(sharpest["kappa"] / sharpest["p"]),
                "least_kappa": float(cell["kappa"].min()),
                "largest_kappa": float(cell["kappa"].max()),
                "mu": mu,
                "condition_number": beta / mu if mu > 0 else np.inf if mu == 0 else np.nan,
            }
        )
    return pd.DataFrame(rows)


def sketch_noise(runs: pd.DataFrame, curvature: pd.DataFrame) -> pd.DataFrame:
    """Bounds of the noise of an unbiased Count-Sketch step g beyond g^T H g, over |g|^2, by the module's derivation.

    H is the train Hessian at the sharpest checkpoint of each cell, beta and kappa are its constants as measured.

    Returns
    -------
    One row for each cell and Count-Sketch size of `runs`: `b`, `p_over_b`, `bound_by_dimension` = (p - 1) beta / b,
    `bound_by_spectrum` = (sum of |eigenvalues| + 3 beta) / b = (kappa + 3) beta / b, and `ratio` of the first to the
    second = (p - 1) / (kappa + 3). The last three are NaN where no curvature was measured.
    """
    sketched = runs[runs["method"] == "count_sketch"]
    sizes = sketched[[*CELL, "p", "upload_numbers"]].drop_duplicates().rename(columns={"upload_numbers": "b"})
    names = ["beta", "absolute_sum", "kappa"]
    constants = measured_constants(curvature) if len(curvature) else pd.DataFrame()
    constants = constants if len(constants) else pd.DataFrame(columns=[*CELL, *names], dtype=float)
    table = _same_keys(sizes).merge(_same_keys(constants[[*CELL, *names]]), on=list(CELL), how="left")
    table = table.assign(
        p_over_b=table["p"] / table["b"],
        bound_by_dimension=(table["p"] - 1) / table["b"] * table["beta"],
        bound_by_spectrum=(table["absolute_sum"] + 3 * table["beta"]) / table["b"],
        ratio=_bounds_ratio(table["p"], table["kappa"]),
    )
    return table.drop(columns=names).sort_values([*CELL, "p_over_b"], ignore_index=True)


def _bounds_ratio(p: pd.Series | float, kappa: pd.Series | float) -> pd.Series | float:
    return (p - 1) / (kappa + 3)


def _same_keys(frame: pd.DataFrame) -> pd.DataFrame:
    """Keys of one kind in every frame, so that a merge finds missing sample sizes equal."""
    return frame.astype({column: object for column in CELL})


def table1(runs: pd.DataFrame, curvature: pd.DataFrame) -> pd.DataFrame:
    """Shrivastava et al. 2024, Table 1: assumptions of the two analyses in words, and their constants as measured.

    Parameters
    ----------
    runs : all runs; p and the sketch sizes are taken from them
    curvature : may be empty: then `not measured` stands where a constant would

    Returns
    -------
    Columns `row`, `column`, `text`: the first two columns are the analyses, the others one cell each. Several sizes
    of the sketch stand in one text, in the same order in each row. Uncertainties are standard errors.
    """
    texts = [
        {"row": row, "column": column, "text": text}
        for row, *roles in (*_THEORY, *_MEASURED.values())
        for column, text in zip((SONG, PAPER), roles, strict=True)
    ]
    noise = sketch_noise(runs, curvature)
    constants = measured_constants(curvature) if len(curvature) else pd.DataFrame(columns=list(CELL))
    for key, cell in runs.groupby(list(CELL), dropna=False):
        column = _column_name(dict(zip(CELL, key, strict=True)), runs)
        found = {"p": _number(cell["p"].iloc[0]), **_size_texts(_rows_of(noise, key))}
        for measured in _rows_of(constants, key).to_dict("records"):
            found |= _constant_texts(measured)
        for name, (row, *_) in _MEASURED.items():
            texts.append({"row": row, "column": column, "text": found.get(name, "not measured")})
    return pd.DataFrame(texts)


def wide_table1(table: pd.DataFrame) -> pd.DataFrame:
    """`table1` for reading: its rows and columns in their order, nothing where a text is absent."""
    wide = table.pivot(index="row", columns="column", values="text").fillna("")
    wide = wide.loc[table["row"].unique(), table["column"].unique()]
    return wide.rename_axis(columns=None).rename_axis("quantity").reset_index()


def _rows_of(frame: pd.DataFrame, key: tuple) -> pd.DataFrame:
    for column, value in zip(CELL, key, strict=True):
        frame = frame[frame[column].isna() if pd.isna(value) else frame[column] == value]
    return frame


def _column_name(cell: dict, runs: pd.DataFrame) -> str:
    """`measured: digits, mlp-none-w1`, with sample size and variant where the table has several."""
    size = None if pd.isna(cell["examples_per_class"]) else int(cell["examples_per_class"])
    run = Run(**{**cell, "examples_per_class": size}, trainer="", learning_rate=None, seed=0)
    words = [run.dataset, run.network_label]
    if runs["examples_per_class"].nunique(dropna=False) > 1:
        words.append("all examples" if size is None else f"{size} per class")
    if len(runs[["loss", "label_noise"]].drop_duplicates()) > 1:
        words.append(run.variant)
    return f"measured: {', '.join(words)}"


def _size_texts(noise: pd.DataFrame) -> dict[str, str]:
    """Texts of what depends on the size of the sketch; nothing for what was not measured."""
    columns = ("b", "p_over_b", "bound_by_dimension", "bound_by_spectrum")
    if noise.empty:
        return dict.fromkeys(columns, "no Count-Sketch run")
    return {name: "; ".join(map(_number, noise[name])) for name in columns if noise[name].notna().all()}


def _constant_texts(constants: dict[str, float]) -> dict[str, str]:
    plain = ("checkpoints", "beta", "kappa_over_p", "mu", "condition_number")
    texts = {name: _number(constants[name]) for name in plain}
    for name in ("trace", "absolute_sum", "kappa"):
        error = constants[f"{name}_standard_error"]
        texts[name] = _number(constants[name]) + (f" ± {_number(error)}" if error > 0 else "")
    texts["place"] = f"{constants['trainer']}, seed {constants['seed']}, round {constants['round']}"
    texts["kappas"] = f"{_number(constants['least_kappa'])} to {_number(constants['largest_kappa'])}"
    there, least = (_number(_bounds_ratio(constants["p"], constants[name])) for name in ("kappa", "largest_kappa"))
    texts["ratio"] = f"{there}; least of the checkpoints: {least}"
    return texts


def _number(value: float) -> str:
    """Counts and what is large without decimals, the rest to three digits; exponents only for what is very small."""
    if np.isnan(value):
        return "not measured"
    if float(value).is_integer() or 1000 <= abs(value) < 1e15:
        return f"{value:,.0f}"
    return f"{value:.3g}"
