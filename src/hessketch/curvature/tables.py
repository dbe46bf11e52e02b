"""A spectrum as long-format tables: density, Ritz values, leading eigenvalues, bounds, sums."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import pandas

from hessketch.linalg.density import Density
from hessketch.linalg.spectrum import Spectrum

DENSITY = {
    "estimator": "str",
    "deflated": "bool",
    "eigenvalue": "float64",
    "density": "float64",
    "density_standard_error": "float64",
    "broadening": "float64",
}
RITZ = {
    "deflated": "bool",
    "start_vector": "int64",
    "ritz_value": "float64",
    "weight": "float64",
    "residual_bound": "float64",
}
EIGENVALUES = {"rank": "int64", "eigenvalue": "float64", "residual_norm": "float64", "column_norm": "float64"}
SUMS = {"quantity": "str", "value": "float64", "standard_error": "float64"}
BOUNDS = {"deflated": "bool", "lower": "float64", "upper": "float64", "products": "int64", "seconds": "float64"}


def _frame(rows: list[dict[str, Any]], columns: dict[str, str]) -> pandas.DataFrame:
    return pandas.DataFrame(rows, columns=list(columns)).astype(columns)


def _density_frame(density: Density, estimator: str, deflated: bool) -> pandas.DataFrame:
    frame = pandas.DataFrame(
        {
            "estimator": estimator,
            "deflated": deflated,
            "eigenvalue": density.eigenvalues,
            "density": density.density,
            "density_standard_error": density.standard_error,
            "broadening": density.broadening,
        }
    )
    return frame.astype(DENSITY)


def density_table(spectrum: Spectrum) -> pandas.DataFrame:
    """Density on the original axis (1 / unit of the eigenvalue), one row a grid point and estimator."""
    frames = [_density_frame(part.density, "lanczos", part.deflated) for part in spectrum.parts]
    if spectrum.kpm is not None:
        frames.append(_density_frame(spectrum.kpm, "kpm", False))
    return pandas.concat(frames, ignore_index=True)


def ritz_table(spectrum: Spectrum) -> pandas.DataFrame:
    """Ritz values with weights (sum 1 over a start vector) and residual bounds."""
    frames = [
        pandas.DataFrame(
            {
                "deflated": part.deflated,
                "start_vector": number,
                "ritz_value": ritz.values,
                "weight": ritz.weights,
                "residual_bound": ritz.residuals,
            }
        ).astype(RITZ)
        for part in spectrum.parts
        for number, ritz in enumerate(part.ritz)
    ]
    return pandas.concat(frames, ignore_index=True)


def eigenvalues_table(spectrum: Spectrum) -> pandas.DataFrame:
    """Leading eigenvalues, signed, largest magnitude first, with bounds; empty where none were asked for."""
    pairs = spectrum.pairs
    if pairs is None:
        return _frame([], EIGENVALUES)
    rows = zip(pairs.values, pairs.residuals, pairs.paper_values, strict=True)
    return _frame([dict(zip(EIGENVALUES, (i + 1, *map(float, row)), strict=True)) for i, row in enumerate(rows)],
                  EIGENVALUES)  # fmt: skip


def bounds_table(spectrum: Spectrum, seconds: float = math.nan) -> pandas.DataFrame:
    """Bounds of the grid; products and seconds are those of the whole spectrum."""
    rows = [
        {
            "deflated": part.deflated,
            "lower": part.bounds.lower,
            "upper": part.bounds.upper,
            "products": spectrum.products,
            "seconds": seconds,
        }
        for part in spectrum.parts
    ]
    return _frame(rows, BOUNDS)


def sums_table(spectrum: Spectrum) -> pandas.DataFrame:
    """Trace, squared Frobenius norm and sum of magnitudes of the eigenvalues (quantities trace, ...)."""
    rows = [{"quantity": name, **asdict(getattr(spectrum.sums, name))} for name in asdict(spectrum.sums)]
    return _frame(rows, SUMS)


def spectrum_tables(spectrum: Spectrum, seconds: float = math.nan) -> dict[str, pandas.DataFrame]:
    """All five tables of one operator's spectrum, by name."""
    return {
        "density": density_table(spectrum),
        "ritz": ritz_table(spectrum),
        "eigenvalues": eigenvalues_table(spectrum),
        "bounds": bounds_table(spectrum, seconds),
        "sums": sums_table(spectrum),
    }


def joined(
    frames: Sequence[pandas.DataFrame], columns: Mapping[str, Any], kinds: Mapping[str, str]
) -> pandas.DataFrame:
    """The frames that have rows as one table of `columns`, whose values are examples, and of those of `kinds`.

    None make an empty one with the same columns.
    """
    names = [*columns, *kinds]
    full = [frame for frame in frames if len(frame)]
    if full:
        return pandas.concat(full, ignore_index=True)[names].astype(dict(kinds))
    given = pandas.DataFrame({name: [value] for name, value in columns.items()}).iloc[:0]
    return given.reindex(columns=names).astype(dict(kinds))
