"""Products and CPU seconds until so many pairs are right: which method wins for how many.

A pair is right within t where |H u - lambda u| <= t |lambda|: by the bounds of Lanczos and block Krylov, which are of
the size of what they bound, and of sketches by products that are not counted.
"""

import time
from collections.abc import Callable, Iterable
from functools import partial

import numpy as np
import torch

from benchmarks.eigenspaces_accuracy import seconds_of
from benchmarks.eigenspaces_methods import BEST_PEER, Method, available, basis_for
from hessketch.linalg.block_krylov import block_run
from hessketch.linalg.krylov import krylov_run
from hessketch.linalg.lanczos import Ritz
from hessketch.linalg.many_eigenpairs import BLOCK
from hessketch.linalg.vectors import Operator, random_unit_vector
from hessketch.progress import Progress

PART = "pairs until right"
PAIRS = (5, 10, 20, 50, 100, 200, 355, 500)
WITHIN = (1e-2, 1e-3)
_GROWTH = 1.1  # from one look to the next
_SKETCHES = ("sketched, 2 passes", "sketched, 8 passes", BEST_PEER)

Look = tuple[int, float, np.ndarray]
"""Products so far, CPU seconds so far with those of the eigenpairs, and relative residuals by descending magnitude."""


def measure(operator: Operator, problem: str, most: int, progress: Progress) -> list[dict]:
    """Rows of the long table: of each method the products and CPU seconds for each number of pairs and tolerance.

    Nobody takes more than `most` products; what is not reached by then has no row.
    """
    sketches = [m for m in available() if m.name in _SKETCHES]
    looks: dict[str, Callable[[], Iterable[Look]]] = {
        "lanczos": partial(_lanczos, operator, most),
        "block_krylov": partial(_block_krylov, operator, most),
        **{m.name: partial(_sketched, operator, m, most) for m in sketches},
    }
    report, rows = progress.stage("until right"), []
    for done, (name, look) in enumerate(looks.items(), start=1):
        rows += _reached(name, problem, list(look()))
        report(done, len(looks))
    return rows


def _reached(name: str, problem: str, looks: list[Look]) -> list[dict]:
    rows = []
    for within in WITHIN:
        for pairs in PAIRS:
            right = [look for look in looks if len(look[2]) >= pairs and look[2][:pairs].max() <= within]
            shared = {"part": PART, "problem": problem, "method": name, "pairs": pairs}
            for products, seconds, _ in right[:1]:
                rows.append({**shared, "quantity": f"products to {within:g}", "value": products})
                rows.append({**shared, "quantity": f"seconds to {within:g}", "value": seconds})
    return rows


class _Looking:
    """A `stop` that looks at the residuals from time to time, and whose own time counts only once."""

    def __init__(self, most: int):
        self.most, self.next, self.looks, self.looking = most, PAIRS[0], [], 0.0
        self._start = time.process_time()

    def at(self, products: int, eigenpairs: Callable[[], tuple[Ritz, np.ndarray]]) -> bool:
        if products >= self.next:
            before = time.process_time()
            pairs, _ = eigenpairs()
            order = np.argsort(-np.abs(pairs.values), kind="stable")
            now = time.process_time()
            residuals = pairs.residuals[order] / np.abs(pairs.values[order])
            self.looks.append((products, now - self._start - self.looking, residuals))
            self.looking += time.process_time() - before
            self.next = max(products + 1, int(products * _GROWTH))
        return products >= self.most


def _lanczos(operator: Operator, most: int) -> list[Look]:
    generator = torch.Generator().manual_seed(0)
    start, looking = random_unit_vector(operator, generator), _Looking(most)
    krylov_run(
        operator, start, most, stop=lambda run: looking.at(run.steps, run.eigenpairs), generator=generator,
        basis=basis_for(operator),
    )  # fmt: skip
    return looking.looks


def _block_krylov(operator: Operator, most: int) -> list[Look]:
    looking = _Looking(most)
    block_run(
        operator, BLOCK, most, stop=lambda run: looking.at(run.products, run.eigenpairs),
        generator=torch.Generator().manual_seed(0), basis=basis_for(operator),
    )  # fmt: skip
    return looking.looks


def _sketched(operator: Operator, method: Method, most: int) -> Iterable[Look]:
    products = 2 * PAIRS[0] + 10
    while products <= most:
        pairs = min(products // 2, PAIRS[-1])
        found, seconds = seconds_of(partial(method.solve, operator, pairs, products, 0))
        values = torch.from_numpy(found.values).to(found.vectors)
        apart = operator @ found.vectors - found.vectors * values
        yield products, seconds, apart.norm(dim=0).double().numpy() / np.abs(found.values)
        products = int(products * _GROWTH**2)
