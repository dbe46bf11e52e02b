"""Ways to many eigenpairs behind one signature: a symmetric operator, pairs, products and a seed."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from benchmarks.peers import version
from hessketch.linalg.basis import Basis
from hessketch.linalg.block_krylov import BlockRun, block_run
from hessketch.linalg.krylov import krylov_run
from hessketch.linalg.krylov_space import KrylovRun
from hessketch.linalg.many_eigenpairs import BLOCK
from hessketch.linalg.measurement_store import MeasurementStore
from hessketch.linalg.sketch_settings import SketchSettings
from hessketch.linalg.sketched_eigh import sketched_eigh
from hessketch.linalg.vectors import Operator, random_unit_vector

SKERCH = "skerch"
BEST_PEER = "skerch hmt (its default)"
TOGETHER = 16  # columns multiplied at a time, by whoever lets that be chosen


@dataclass(frozen=True)
class Found:
    """Eigenpairs by descending magnitude."""

    values: np.ndarray  # (k,) float64
    vectors: Tensor  # (p, k)


@dataclass(frozen=True)
class Method:
    """`solve(operator, pairs, products, seed)`; takes at most so many products."""

    name: str
    solve: Callable[[Operator, int, int, int], Found]
    distribution: str | None = None

    @property
    def missing(self) -> bool:
        return self.distribution is not None and version(self.distribution) is None


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def basis_for(operator: Operator) -> Basis:
    return Basis(operator.shape[0], operator.dtype, operator.device)


def _of_run(run: KrylovRun | BlockRun, pairs: int) -> Found:
    """The largest Ritz pairs, converged or not."""
    ritz, y = run.eigenpairs()
    chosen = np.argsort(-np.abs(ritz.values), kind="stable")[:pairs]
    return Found(ritz.values[chosen], run.basis.combine(y[:, chosen]))


def lanczos(operator: Operator, pairs: int, products: int, seed: int) -> Found:
    generator = _generator(seed)
    start = random_unit_vector(operator, generator)
    run = krylov_run(operator, start, products, stop=lambda run: False, generator=generator, basis=basis_for(operator))
    return _of_run(run, pairs)


def block_krylov(operator: Operator, pairs: int, products: int, seed: int) -> Found:
    basis = basis_for(operator)
    run = block_run(operator, BLOCK, products, stop=lambda run: False, generator=_generator(seed), basis=basis)
    return _of_run(run, pairs)


def sketched(
    operator: Operator,
    pairs: int,
    products: int,
    seed: int,
    *,
    method: str = "fast",
    passes: int = 1,
    store: MeasurementStore | None = None,
    memory: int | None = None,
) -> Found:
    """Ours, without probes; the paper's recovery gives at most half as many pairs as products."""
    pairs = min(pairs, products // 2 if method == "paper" else products)
    settings = SketchSettings(pairs, products, method=method, passes=passes, probes=0, block=TOGETHER)
    found = sketched_eigh(operator, settings, seed, store=store, memory=memory)
    return Found(found.values, found.vectors)


def _skerch(
    operator: Operator, pairs: int, products: int, seed: int, *, recovery: str, noise: str = "rademacher"
) -> Found:
    """skerch's seigh. hmt multiplies twice as many as its sketch is wide, oversampled its inner sketch besides."""
    from skerch.algorithms import seigh

    outer = {"hmt": products // 2, "oversampled": min(pairs, products // 2 - 1)}.get(recovery, products)
    kind = f"oversampled_{products - outer}" if recovery == "oversampled" else recovery
    values, vectors = seigh(
        operator, operator.device, operator.dtype, outer, seed=seed, noise_type=noise, recovery_type=kind,
        meas_blocksize=TOGETHER,
    )  # fmt: skip
    return Found(values[:pairs].double().cpu().numpy(), vectors[:, :pairs])


PASSES = (1, 2, 4, 8)
OURS = (
    Method("lanczos", lanczos),
    Method("block_krylov", block_krylov),
    *(Method(f"sketched, {n} pass{'es' * (n > 1)}", partial(sketched, passes=n)) for n in PASSES),
    Method("sketched, paper", partial(sketched, method="paper")),
)
PEERS = (
    Method(BEST_PEER, partial(_skerch, recovery="hmt"), SKERCH),
    Method("skerch hmt, ssrft", partial(_skerch, recovery="hmt", noise="ssrft"), SKERCH),
    Method("skerch singlepass", partial(_skerch, recovery="singlepass"), SKERCH),
    Method("skerch nystrom", partial(_skerch, recovery="nystrom"), SKERCH),
    Method("skerch oversampled", partial(_skerch, recovery="oversampled"), SKERCH),
)


def available() -> list[Method]:
    """Ours, and the library's where it is installed."""
    return [method for method in (*OURS, *PEERS) if not method.missing]
