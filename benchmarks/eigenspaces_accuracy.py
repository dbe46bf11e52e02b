"""Accuracy and time of many eigenpairs at equal products, where the exact ones are known."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from benchmarks.eigenspaces_methods import BEST_PEER, OURS, TOGETHER, Found, Method, available
from benchmarks.eigenspaces_problems import Solved
from benchmarks.eigenvalues import least_setting
from benchmarks.timing import Times, best_clock, in_turns, ratio
from benchmarks.trained import Counting
from hessketch.linalg.sketch_sizes import default_measurements
from hessketch.progress import Progress

PRODUCTS_ALONE = "products alone"
_LEAST = ", as accurate as the peer"
_RUNGS = 24  # numbers of products that are tried, from those of the pairs to the budget


def products_for(pairs: int) -> int:
    """Products that everyone may take: the sketch's default, even."""
    return default_measurements(pairs)


def accuracy(problem: Solved, found: Found, pairs: int) -> dict[str, float]:
    """Of the first `pairs`: relative errors of magnitudes in their order, and overlap with the exact eigenspace."""
    exact, k = np.abs(problem.values[:pairs]), min(pairs, len(found.values))
    errors = np.full(pairs, np.inf)
    errors[:k] = np.abs(np.abs(found.values[:k]) - exact[:k]) / exact[:k]
    squares = (problem.vectors[:, :pairs].T @ found.vectors[:, :k].double()).square().sum()
    return {
        "largest relative error": float(errors.max()),
        "median relative error": float(np.median(errors)),
        "overlap": float(squares) / pairs,
    }


def measure(part: str, problem: Solved, rounds: int, seeds: Sequence[int], progress: Progress) -> list[dict]:
    """Rows of the long table: each method's products, accuracy of half and all of the pairs, and CPU seconds.

    Accuracy is the median over seeds; time of `rounds` rounds in turns with the products alone.
    """
    methods, budget = available(), products_for(problem.pairs)
    report = progress.stage(f"accuracy, {problem.name}")
    rows = []
    for done, method in enumerate(methods, start=1):
        rows += _accuracy_rows(part, problem, method, budget, seeds)
        report(done, len(methods))
    if rounds:
        calls = {m.name: partial(m.solve, problem.operator, problem.pairs, budget, seeds[0]) for m in methods}
        calls |= _as_accurate(problem, methods, budget, seeds[0])
        calls[PRODUCTS_ALONE] = partial(_products_alone, problem, budget)
        rows += _time_rows(part, problem, calls, rounds, progress)
    return rows


@dataclass(frozen=True)
class _AsAccurate:
    """A call of a method with the least products that make it as accurate as the peer."""

    method: Method
    problem: Solved
    products: int
    seed: int

    def __call__(self) -> Found:
        return self.method.solve(self.problem.operator, self.problem.pairs, self.products, self.seed)


def _as_accurate(problem: Solved, methods: Sequence[Method], budget: int, seed: int) -> dict[str, _AsAccurate]:
    """By name; methods that are not as accurate with the peer's products are left out, and the library's own."""
    peer = next((m for m in methods if m.name == BEST_PEER), None)
    if peer is None:
        return {}
    halves = (problem.pairs // 2, problem.pairs)
    wanted = [accuracy(problem, peer.solve(problem.operator, problem.pairs, budget, seed), k) for k in halves]
    ladder = np.unique(np.linspace(problem.pairs + 1, budget, _RUNGS).astype(int) // 2 * 2).tolist()

    def as_good(method: Method, products: int) -> bool:
        found = method.solve(problem.operator, problem.pairs, products, seed)
        ours = [accuracy(problem, found, k) for k in halves]
        return all(
            o["overlap"] >= w["overlap"] and o["median relative error"] <= w["median relative error"]
            for o, w in zip(ours, wanted, strict=True)
        )

    calls = {}
    for method in (m for m in methods if m in OURS):
        least = least_setting(ladder, partial(as_good, method))
        if least is not None:
            calls[f"{method.name}{_LEAST}"] = _AsAccurate(method, problem, int(least), seed)
    return calls


def _row(part: str, problem: Solved, method: str, pairs: int, quantity: str, value: float) -> dict:
    shared = {"part": part, "problem": problem.name, "method": method}
    return {**shared, "pairs": pairs, "quantity": quantity, "value": value}


def _accuracy_rows(part: str, problem: Solved, method: Method, budget: int, seeds: Sequence[int]) -> list[dict]:
    counted, rows = Counting(problem.operator), []
    founds = [method.solve(counted, problem.pairs, budget, seed) for seed in seeds]
    rows.append(_row(part, problem, method.name, problem.pairs, "products", counted.products / len(seeds)))
    for pairs in (problem.pairs // 2, problem.pairs):
        of_seeds = [accuracy(problem, found, pairs) for found in founds]
        for quantity in of_seeds[0]:
            value = statistics.median(one[quantity] for one in of_seeds)
            rows.append(_row(part, problem, method.name, pairs, quantity, value))
    return rows


def _products_alone(problem: Solved, budget: int) -> None:
    block = torch.ones(problem.operator.shape[0], TOGETHER, dtype=problem.operator.dtype)
    for first in range(0, budget, TOGETHER):
        problem.operator @ block[:, : budget - first]


def _time_rows(
    part: str, problem: Solved, calls: dict[str, Callable[[], object]], rounds: int, progress: Progress
) -> list[dict]:
    times = in_turns(calls, rounds, torch.device("cpu"), progress.stage(f"time, {problem.name}"))
    clock = best_clock(torch.device("cpu"), torch.get_num_threads())
    rows, peer = [], times.get(BEST_PEER)
    for name, taken in times.items():
        method, quantities = name.removesuffix(_LEAST), {}
        if method == name:
            quantities["seconds"] = float(np.median(taken.clock(clock)))
            quantities["seconds over products alone"] = _excess(taken, times[PRODUCTS_ALONE], clock)
        else:
            quantities["products as accurate as the peer"] = calls[name].products
        if peer is not None:
            what = "than the peer" if method == name else "as accurate as the peer"
            quantities[f"times faster {what}"] = ratio(peer, taken, clock).median
        rows += [_row(part, problem, method, problem.pairs, q, value) for q, value in quantities.items()]
    return rows


def _excess(taken: Times, alone: Times, clock: str) -> float:
    return float(np.median(taken.clock(clock) - alone.clock(clock)))


def seconds_of(call) -> tuple[object, float]:
    """What a call gives and the CPU seconds that it took."""
    start = time.process_time()
    result = call()
    return result, time.process_time() - start
