"""Readable tables from the long table of measurements, in Markdown."""

import math
from collections.abc import Iterable

import pandas as pd

from benchmarks.eigenvalues import LEAST, OWN
from benchmarks.peers import OPERATORS, OURS
from benchmarks.products import AGREEMENT, RELATIVE_TARGETS, TARGETS


def markdown(columns: list[str], rows: Iterable[list[str]]) -> str:
    """A Markdown table of texts, columns aligned for who reads the source."""
    cells = [columns, *rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(columns))]
    lines = ["| " + " | ".join(t.ljust(w) for t, w in zip(row, widths, strict=True)) + " |" for row in cells]
    lines.insert(1, "| " + " | ".join("-" * w for w in widths) + " |")
    return "\n".join(lines)


def report(table: pd.DataFrame) -> str:
    """Every part of the long table that was measured, under a heading of its own."""
    parts = {
        "products": (_PRODUCTS, products_table),
        "eigenvalues": (_EIGENVALUES, eigenvalues_table),
        "ghosts": (_GHOSTS, ghosts_table),
        "density": (_DENSITY, density_table),
    }
    measured = set(table["part"])
    texts = [f"{heading}\n\n{make(table)}" for part, (heading, make) in parts.items() if part in measured]
    return "\n\n".join(texts) + "\n"


_PRODUCTS = """## Cost of a product

In gradients of the same examples, median over rounds, by CPU time with one CPU thread, else by wall time; in brackets,
where measured, MiB of memory."""

_EIGENVALUES = """## Products until the ten leading eigenvalues are within 1e-3

Products and CPU seconds, median over seeds, at the cheapest setting that is right (in brackets that setting); then at
the method's own setting (in brackets the largest relative error that it leaves)."""

_GHOSTS = """## False copies of the ten leading eigenvalues

Values within 1e-3 of one of them beyond its multiplicity, mean over problems and seeds; after + those missing."""

_DENSITY = """## Distance of the density from the exact spectrum

Wasserstein-1 over the width of the bulk, median over problems and seeds: of Ritz values, and of the curve."""


def product_rows(table: pd.DataFrame) -> pd.DataFrame:
    """One row a network, operator and candidate: every quantity measured, and whether it may be the best peer."""
    chosen = table[table["part"] == "products"]
    keys = ["problem", "operator", "method"]
    wide = chosen.pivot_table(index=keys, columns="quantity", values="value", sort=False).reset_index()
    wide["agrees"] = wide["relative difference"] <= AGREEMENT
    return wide


def target_of(problem: str, operator: str) -> float:
    """Gradients that our product may cost there; NaN without a target."""
    return TARGETS.get((problem.partition("-")[0], operator), math.nan)


def products_table(table: pd.DataFrame) -> str:
    wide = product_rows(table)
    methods = list(dict.fromkeys(wide["method"]))
    rows = []
    for (problem, operator), group in wide.groupby(["problem", "operator"], sort=False):
        by_method = group.set_index("method")
        cells = [_cost(by_method.loc[m]) if m in by_method.index else "" for m in methods]
        rows.append([problem, OPERATORS[operator], *cells, *_comparison(by_method, problem, operator)])
    columns = ["network", "operator", *methods, "best peer", "ours / best peer", "targets"]
    return markdown(columns, rows)


def _cost(row: pd.Series) -> str:
    memory = row.get("memory in MiB", math.nan)
    text = f"{row['gradients']:.2f}" + ("" if math.isnan(memory) else f" ({memory:.0f})")
    return text if row["agrees"] else f"{text}, differs by {row['relative difference']:.0e}"


def _comparison(by_method: pd.DataFrame, problem: str, operator: str) -> list[str]:
    """The best peer, our share of its time, and each target with a verdict."""
    gradients = by_method["gradients"]
    ours = gradients[OURS]
    peers = gradients[by_method["agrees"] & (by_method.index != OURS)]
    best = [] if peers.empty else [peers.idxmin(), f"{ours / peers.min():.2f}"]
    verdicts = []
    target = target_of(problem, operator)
    if not math.isnan(target):
        verdicts.append(f"{target:g} gradients {_verdict(ours, target)}")
    other, share = RELATIVE_TARGETS.get(operator, (None, math.nan))
    if other in gradients:
        verdicts.append(f"{share:.2f} of {other} {_verdict(ours / gradients[other], share)}")
    return [*(best or ["", ""]), "; ".join(verdicts)]


def _verdict(value: float, target: float) -> str:
    return f"{'met' if value <= target else 'MISSED'} ({value:.2f})"


def eigenvalues_table(table: pd.DataFrame) -> str:
    chosen = table[table["part"] == "eigenvalues"]
    keys = ["problem", "method", "choice", "seed"]
    wide = chosen.pivot_table(index=keys, columns="quantity", values="value", sort=False).reset_index()
    problems = list(dict.fromkeys(wide["problem"]))
    rows = []
    for method, of_method in wide.groupby("method", sort=False):
        cells = [_eigenvalue_cell(of_method[of_method["problem"] == problem]) for problem in problems]
        rows.append([method, *cells])
    return markdown(["method", *problems], rows)


def _eigenvalue_cell(rows: pd.DataFrame) -> str:
    least = rows[rows["choice"] == LEAST]
    texts = ["not reached" if least.empty else f"{_effort(least)} ({least['setting'].median():.3g})"]
    for choice, own in rows[rows["choice"].str.startswith(OWN)].groupby("choice", sort=False):
        worst = own["largest relative error"].max()
        texts.append(f"{choice.removeprefix(OWN).strip()}: {_effort(own)} (error {worst:.0e})")
    return "; ".join(texts)


def _effort(rows: pd.DataFrame) -> str:
    return f"{rows['products'].median():.0f}, {rows['CPU seconds'].median():.2g} s"


def ghosts_table(table: pd.DataFrame) -> str:
    chosen = table[table["part"] == "ghosts"]
    means = chosen.groupby(["method", "choice", "quantity"], sort=False)["value"].mean()
    choices, methods = list(dict.fromkeys(chosen["choice"])), list(dict.fromkeys(chosen["method"]))
    rows = [[m, *(f"{means[m, c, 'ghosts']:.1f} + {means[m, c, 'missing']:.1f}" for c in choices)] for m in methods]
    return markdown(["method", *choices], rows)


def density_table(table: pd.DataFrame) -> str:
    chosen = table[table["part"] == "density"]
    keys = ["method", "choice"]
    wide = chosen.pivot_table(index=keys, columns="quantity", values="value", aggfunc="median", sort=False)
    rows = []
    for (method, choice), row in wide.iterrows():
        distances = [row.get(f"distance of {what}", math.nan) for what in ("Ritz values", "curve")]
        rows.append(
            [method, choice, f"{row['products']:.0f}", *("" if math.isnan(d) else f"{d:.2g}" for d in distances)]
        )
    return markdown(["method", "steps", "products", "Ritz values", "curve"], rows)
