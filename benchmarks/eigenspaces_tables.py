"""Readable tables of the benchmark of many eigenpairs, in Markdown."""

import math

import pandas as pd

from benchmarks import eigenspaces_ladder, eigenspaces_large
from benchmarks.eigenspaces_accuracy import PRODUCTS_ALONE
from benchmarks.eigenspaces_methods import BEST_PEER
from benchmarks.tables import markdown

FASTER, LESS_MEMORY = 1.5, 0.5  # targets: times the peer's speed, or share of its memory
MATRICES, NETWORK = "matrices", "network"

_TEXTS = {
    MATRICES: """## Dense matrices of known spectra: accuracy at equal products

Half and all of the pairs: median relative error of the eigenvalues' magnitudes / share of the exact eigenspace that is
missed (1 - overlap); medians over seeds. Everyone takes the same number of products, twice the pairs and 10.""",
    NETWORK: """## Hessian of a trained network: accuracy and time at equal products

As above, with the largest relative error; CPU seconds with one thread, median over rounds in turns, what of it is not
products, and how many times faster than the library's default; then the least products with which ours is as
accurate as that, and how many times faster it is with these (target: 1.5).""",
    eigenspaces_large.PART: """## Half a million parameters: time and memory

CPU seconds, a process each; MiB of anonymous memory at the peak above that of the products (in brackets with the pages
of memory-mapped files); relative errors of the eigenvalues against Lanczos'. Target: no less accurate than the library
and 1.5 times faster or half the memory.""",
    eigenspaces_ladder.PART: """## Products and CPU seconds until so many pairs are right

Right: the residual is within 1% or 0.1% of the eigenvalue. Of Lanczos and block Krylov without the last combination of
vectors. In bold the fastest.""",
}


def report(table: pd.DataFrame) -> str:
    """Every part of the long table that was measured, under a heading of its own."""
    make = {
        MATRICES: _matrices,
        NETWORK: _network,
        eigenspaces_large.PART: _large,
        eigenspaces_ladder.PART: _ladder,
    }
    measured = set(table["part"])
    texts = [f"{text}\n\n{make[part](_wide(table, part))}" for part, text in _TEXTS.items() if part in measured]
    return "\n\n".join(texts) + "\n"


def _wide(table: pd.DataFrame, part: str) -> pd.DataFrame:
    """One row a problem, method and number of pairs, one column a quantity."""
    chosen = table[table["part"] == part]
    keys = ["problem", "method", "pairs"]
    return chosen.pivot_table(index=keys, columns="quantity", values="value", sort=False).reset_index()


def _matrices(wide: pd.DataFrame) -> str:
    problems = list(dict.fromkeys(wide["problem"]))
    rows = []
    for method, of_method in wide.groupby("method", sort=False):
        cells = []
        for problem in problems:
            of_problem = of_method[of_method["problem"] == problem].sort_values("pairs")
            cells.append("; ".join(_accuracy(row) for _, row in of_problem.iterrows()))
        rows.append([method, *cells])
    return markdown(["method", *problems], rows)


def _accuracy(row: pd.Series) -> str:
    return f"{row['median relative error']:.0e} / {max(0.0, 1 - row['overlap']):.0e}"


def _network(wide: pd.DataFrame) -> str:
    rows = []
    for method, of_method in wide.groupby("method", sort=False):
        of_method = of_method.sort_values("pairs")
        full = of_method.iloc[-1]
        alone = method == PRODUCTS_ALONE
        accuracy = ["", "", ""] if alone else [
            f"{full['products']:.0f}",
            *(f"{_accuracy(row)}, {row['largest relative error']:.0e}" for _, row in of_method.iterrows()),
        ]  # fmt: skip
        rows.append([method, *accuracy, *_times(full), _as_accurate(full)])
    columns = ["method", "products", "half of the pairs", "all pairs", "seconds", "over products", "faster"]
    return markdown([*columns, "as accurate as the library"], rows)


def _as_accurate(row: pd.Series) -> str:
    faster = row.get("times faster as accurate as the peer", math.nan)
    if math.isnan(faster):
        return ""
    products = row["products as accurate as the peer"]
    return f"{products:.0f} products, {faster:.2f} times faster {'met' if faster >= FASTER else 'MISSED'}"


def _times(row: pd.Series) -> list[str]:
    faster = row.get("times faster than the peer", math.nan)
    return [
        f"{row['seconds']:.2f}",
        f"{row['seconds over products alone']:.2f}",
        "" if math.isnan(faster) else f"{faster:.2f}",
    ]


def _large(wide: pd.DataFrame) -> str:
    rows = []
    peers = wide[wide["method"] == BEST_PEER].sort_values("pairs")
    for method, of_method in wide.groupby("method", sort=False):
        of_method = of_method.sort_values("pairs")
        full = of_method.iloc[-1]
        errors = [
            f"{r['median relative error']:.0e}, {r['largest relative error']:.0e}" for _, r in of_method.iterrows()
        ]
        memory = f"{full['anonymous MiB']:.0f} ({full['resident MiB']:.0f})"
        rows.append([method, *_times(full), memory, *errors, _target(method, of_method, peers)])
    columns = [
        "method",
        "seconds",
        "over products",
        "faster",
        "MiB",
        "errors of half, median, largest",
        "of all",
        "target",
    ]
    return markdown(columns, rows)


def _target(method: str, of_method: pd.DataFrame, peers: pd.DataFrame) -> str:
    """Whether ours is no less accurate, and faster or smaller by as much as it should."""
    if peers.empty or method == BEST_PEER:
        return ""
    errors = [frame["median relative error"].to_numpy() for frame in (of_method, peers)]
    accurate = bool((errors[0] <= errors[1]).all())
    last = of_method.iloc[-1]
    faster, memory = last["times faster than the peer"], last["share of the peer's memory"]
    met = accurate and (faster >= FASTER or memory <= LESS_MEMORY)
    return f"{'met' if met else 'MISSED'} ({faster:.2f} times faster, {memory:.2f} of the memory)"


def _ladder(wide: pd.DataFrame) -> str:
    methods = list(dict.fromkeys(wide["method"]))
    rows = []
    for within in eigenspaces_ladder.WITHIN:
        for pairs in eigenspaces_ladder.PAIRS:
            chosen = wide[wide["pairs"] == pairs].set_index("method")
            column = chosen.get(f"seconds to {within:g}", pd.Series(dtype=float)).dropna()
            fastest = column.idxmin() if len(column) else None
            cells = [_effort(chosen, method, within, method == fastest) for method in methods]
            rows.append([f"{within:g}", str(pairs), *cells])
    return markdown(["within", "pairs", *methods], rows)


def _effort(chosen: pd.DataFrame, method: str, within: float, fastest: bool) -> str:
    products = chosen[f"products to {within:g}"].get(method, math.nan) if len(chosen) else math.nan
    if math.isnan(products):
        return "not reached"
    text = f"{products:.0f}, {chosen[f'seconds to {within:g}'][method]:.2g} s"
    return f"**{text}**" if fastest else text
