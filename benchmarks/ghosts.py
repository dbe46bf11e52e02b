"""False copies of eigenvalues: how many each Lanczos reports, where the true multiplicities are known."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from benchmarks.eigenvalues import WITHIN
from benchmarks.peers import version
from benchmarks.trained import Batch, Exact
from hessketch.curvature.losses import cross_entropy
from hessketch.curvature.operators import CurvatureOperator
from hessketch.linalg.basis import Basis
from hessketch.linalg.krylov import krylov_run
from hessketch.linalg.lanczos import fast_lanczos, ritz, slow_lanczos
from hessketch.linalg.vectors import random_unit_vector
from hessketch.progress import Progress

STEPS = (64, 128, 256)
PRECISIONS = ("float32", "float64")

Values = Callable[[nn.Module, Sequence[Batch], int, int], np.ndarray]


@dataclass(frozen=True)
class Reader:
    """A method that reports eigenvalues after so many steps; `values` takes network, batches, steps and seed."""

    name: str
    values: Values
    distribution: str | None = None


def measure(problem: Exact, seeds: Sequence[int], progress: Progress) -> list[dict]:
    """Rows of the long table: ghosts and missing eigenvalues of each method, precision and number of steps."""
    rows = []
    readers = [r for r in READERS if r.distribution is None or version(r.distribution) is not None]
    networks = {"float32": (problem.model, problem.batches), "float64": problem.in_float64()}
    report = progress.stage(f"ghosts, {problem.name}")
    for done, reader in enumerate(readers, start=1):
        for precision in PRECISIONS:
            for steps in STEPS:
                for seed in seeds:
                    found = reader.values(*networks[precision], steps, seed)
                    shared = {"part": "ghosts", "problem": problem.name, "operator": "hessian", "method": reader.name}
                    chosen = {"choice": f"{precision}, {steps} steps", "seed": seed}
                    rows += [{**shared, **chosen, "quantity": q, "value": v} for q, v in counts(problem, found).items()]
        report(done, len(readers))
    return rows


def counts(problem: Exact, found: np.ndarray) -> dict[str, int]:
    """Values near the leading eigenvalues that are too many, and that are too few.

    Near is within WITHIN of one of them; neighbourhoods that overlap are one. Each holds a known number of exact
    eigenvalues: what is found beyond that is a ghost, what is not found is missing.
    """
    ghosts = missing = 0
    for low, high in _neighbourhoods(problem.top):
        exact = int(np.sum((problem.spectrum >= low) & (problem.spectrum <= high)))
        excess = int(np.sum((found >= low) & (found <= high))) - exact
        ghosts += max(excess, 0)
        missing += max(-excess, 0)
    return {"ghosts": ghosts, "missing": missing}


def _neighbourhoods(values: np.ndarray) -> list[tuple[float, float]]:
    joined: list[tuple[float, float]] = []
    for value in np.sort(values):
        low, high = value - WITHIN * abs(value), value + WITHIN * abs(value)
        if joined and low <= joined[-1][1]:
            low, high = joined[-1][0], max(high, joined.pop()[1])
        joined.append((low, high))
    return joined


def _operator(model: nn.Module, batches: Sequence[Batch]) -> CurvatureOperator:
    return CurvatureOperator("hessian", model, cross_entropy, batches)


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _krylov(keep: bool) -> Values:
    """Our run, with the vectors kept and every new one orthogonal to them, or with none kept and copies merged."""

    def values(model: nn.Module, batches: Sequence[Batch], steps: int, seed: int) -> np.ndarray:
        operator, generator = _operator(model, batches), _generator(seed)
        start = random_unit_vector(operator, generator)
        basis = Basis(len(start), operator.dtype, operator.device) if keep else None
        return (
            krylov_run(operator, start, steps, stop=lambda run: False, generator=generator, basis=basis).ritz().values
        )

    return values


def _fast(model: nn.Module, batches: Sequence[Batch], steps: int, seed: int) -> np.ndarray:
    return ritz(fast_lanczos(_operator(model, batches), steps, _generator(seed))).values


def _slow(model: nn.Module, batches: Sequence[Batch], steps: int, seed: int) -> np.ndarray:
    return ritz(slow_lanczos(_operator(model, batches), steps, _generator(seed))).values


def _curvlinops(model: nn.Module, batches: Sequence[Batch], steps: int, seed: int) -> np.ndarray:
    from curvlinops import HessianLinearOperator
    from curvlinops.papyan2020traces.spectrum import fast_lanczos as lanczos

    loss, parameters = nn.CrossEntropyLoss(), list(model.parameters())
    operator = HessianLinearOperator(model, loss, parameters, list(batches), check_deterministic=False)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return lanczos(operator, steps)[0].double().numpy()


def _eigenthings(model: nn.Module, batches: Sequence[Batch], steps: int, seed: int) -> np.ndarray:
    """All Ritz values of its Lanczos, which by default does not reorthogonalise beyond 50 steps."""
    from hessian_eigenthings import HessianOperator, lanczos, supervised_loss

    operator = HessianOperator(model, batches, supervised_loss(nn.functional.cross_entropy))
    return lanczos(operator, k=steps, max_iter=steps, seed=seed).eigenvalues.double().numpy()


READERS = (
    Reader("hessketch krylov_run", _krylov(keep=True)),
    Reader("hessketch krylov_run, no basis kept", _krylov(keep=False)),
    Reader("SLOWLANCZOS (Papyan 2018)", _slow),
    Reader("FASTLANCZOS (Papyan 2018)", _fast),
    Reader("curvlinops fast_lanczos", _curvlinops, "curvlinops-for-pytorch"),
    Reader("hessian-eigenthings lanczos", _eigenthings, "hessian-eigenthings"),
)
"""PyHessian's density has a Lanczos too; it calls torch.eig, which torch no longer has."""
