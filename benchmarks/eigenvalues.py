"""How many products a method needs until the leading eigenvalues are right, where the right ones are known."""

import warnings
from collections.abc import Callable, Sequence

import numpy as np

from benchmarks.eigensolvers import SOLVERS, Answer, Solver
from benchmarks.trained import Exact
from hessketch.progress import Progress

WITHIN = 1e-3
"""Relative error that every one of the leading eigenvalues must keep."""

LEAST, OWN = "least that is right", "its own"
"""How the setting of a row was chosen; with OWN follows which."""


def measure(problem: Exact, seeds: Sequence[int], progress: Progress) -> list[dict]:
    """Rows of the long table: each method at the least setting that is right, and at its own, from every seed."""
    rows = []
    solvers = [solver for solver in SOLVERS if not solver.missing]
    report = progress.stage(f"eigenvalues, {problem.name}")
    for done, solver in enumerate(solvers, start=1):
        for seed in seeds:
            rows += _rows(problem, solver, seed)
        report(done, len(solvers))
    return rows


def _rows(problem: Exact, solver: Solver, seed: int) -> list[dict]:
    answers: dict[float, Answer] = {}

    def solve(setting: float) -> Answer:
        if setting not in answers:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # LOBPCG: not converged to its own tolerance
                answers[setting] = solver.solve(problem, seed, setting)
        return answers[setting]

    least = least_setting(solver.ladder, lambda setting: error(problem, solve(setting)) <= WITHIN)
    rows = [] if least is None else _of_answer(problem, solver, seed, LEAST, least, solve(least))
    for setting in solver.own:
        rows += _of_answer(problem, solver, seed, f"{OWN} {solver.unit} {setting:g}", setting, solve(setting))
    return rows


def _of_answer(problem: Exact, solver: Solver, seed: int, choice: str, setting: float, answer: Answer) -> list[dict]:
    quantities = {
        "products": answer.products,
        "CPU seconds": answer.cpu_seconds,
        "largest relative error": error(problem, answer),
        "setting": setting,
    }
    shared = {"part": "eigenvalues", "problem": problem.name, "operator": "hessian", "method": solver.name}
    chosen = {"choice": choice, "seed": seed}
    return [{**shared, **chosen, "quantity": quantity, "value": value} for quantity, value in quantities.items()]


def error(problem: Exact, answer: Answer) -> float:
    """Largest relative error of the leading eigenvalues, matched in order; of magnitudes where signs are lost."""
    exact = problem.top if answer.signed else np.sort(np.abs(problem.top))
    if len(answer.values) < len(exact):
        return float("inf")
    leading = np.asarray(answer.values, dtype=float)
    leading = np.sort(leading[np.argsort(-np.abs(leading))[: len(exact)]])
    return float(np.max(np.abs(leading - exact) / np.abs(exact)))


def least_setting(ladder: Sequence[float], is_right: Callable[[float], bool]) -> float | None:
    """The first setting of the ladder from which on answers are right, by doubling and bisection; None if none is.

    Takes the answers to stay right once they are: true of a method that converges, up to luck near the threshold.
    """
    wrong, right = -1, 0
    while not is_right(ladder[right]):
        if right == len(ladder) - 1:
            return None
        wrong, right = right, min(2 * right + 1, len(ladder) - 1)
    while right - wrong > 1:
        middle = (wrong + right) // 2
        if is_right(ladder[middle]):
            right = middle
        else:
            wrong = middle
    return ladder[right]
