"""Many eigenpairs of largest magnitude, by the method that suits their number and the memory.

Measured on the Hessian of a trained network of 7,030 parameters (`python -m benchmarks.eigenspaces`): for residuals of
0.1% Lanczos takes 1.5 to 3 products a pair and some, block Krylov 1.8 to 3 and some 60 more, sketches of eight passes 2
to 6, of two passes 40 and more. Up to 100 pairs Lanczos takes least time; beyond, its basis costs more than its
products, and block Krylov, which multiplies matrices there, takes 0.5 to 0.8 of its time (0.5 for 200 pairs of 500,000
parameters). Both keep a vector a product in memory, while a sketch streams its measurements to disk.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from scipy.linalg import eigh_tridiagonal
from torch import Tensor

from hessketch.errors import InputError, nearest
from hessketch.linalg.a_posteriori import ErrorEstimate
from hessketch.linalg.arrays import Floats
from hessketch.linalg.basis import Basis
from hessketch.linalg.block_krylov import BlockRun, block_run
from hessketch.linalg.krylov import RunStore, krylov_run
from hessketch.linalg.krylov_space import KrylovRun, leading
from hessketch.linalg.lanczos import Ritz
from hessketch.linalg.leading_eigenpairs import BASIS_SHARE, Room, Wanted, require_tolerance
from hessketch.linalg.memory import free_memory
from hessketch.linalg.sketch_settings import SketchSettings
from hessketch.linalg.sketched_eigh import SketchedEigenpairs, sketched_eigh
from hessketch.linalg.vectors import (
    Operator,
    ProgressCallback,
    column_dots,
    dimension,
    no_progress,
    random_unit_vector,
    require_at_least,
)

METHODS = ("auto", "lanczos", "block_krylov", "sketched")
# Up to so many pairs Lanczos takes least time, beyond block Krylov (see the table of the benchmark).
MOST_BY_LANCZOS = 100
BLOCK = 16  # 4 takes a tenth fewer products and half as much time again for the basis
# Vectors that a run is expected to keep: so many a pair, and some. Measured: 1.5 to 2.4 a pair, for five 19 and 80.
_VECTORS_A_PAIR, _VECTORS_MORE = 2.5, 130


@dataclass(frozen=True)
class ManyEigenpairs:
    """The eigenpairs of largest magnitude, descending."""

    values: Floats  # (k,) float64, with their sign
    residuals: Floats  # (k,) |H u - lambda u|: bounds by Lanczos and block Krylov; NaN where they are not known
    vectors: Tensor  # (p, k) orthonormal columns in the operator's dtype
    products: int
    method: str  # that was taken
    reason: str  # why
    converged: int  # leading pairs with residuals within the tolerance; 0 where residuals are not known
    errors: ErrorEstimate | None  # of a sketch


def many_eigenpairs(
    operator: Operator,
    count: int,
    seed: int,
    *,
    method: str = "auto",
    tolerance: float = 1e-3,
    sketch: SketchSettings | None = None,
    residuals: bool = False,
    memory: int | None = None,
    stores: Callable[[str], Any] | None = None,
    progress: ProgressCallback | None = None,
) -> ManyEigenpairs:
    """The `count` eigenpairs of largest magnitude of a symmetric operator (p, p).

    `lanczos` and `block_krylov` run until each residual is within tolerance * |value|, and keep their vectors within
    `memory` bytes (default half of what is free); `sketched` takes the measurements that `sketch` asks for (default
    twice the pairs and 10). Its values are those of an approximation, where much is left out (`errors`) larger than any
    eigenvalue there; with `residuals`, one product a pair more, they are the Rayleigh quotients of its vectors. `auto`
    takes lanczos for few pairs, block_krylov for many, and sketched where memory does not hold their vectors; what was
    asked of a sketch is then not used, and `reason` says so. By lanczos a multiple eigenvalue is found once, by
    block_krylov up to 16 times. `stores(method)` makes a run resumable: a RunStore or, for a sketch, a
    MeasurementStore. Raises InputError, before any product, for more pairs than parameters, an
    unknown method, or memory that does not suffice, with what would fit; else as `krylov_run` and `sketched_eigh`.
    """
    require_at_least(1, count=count)
    require_tolerance(tolerance)
    p = dimension(operator)
    if count > p:
        raise InputError(f"{count} eigenpairs asked of an operator of {p} parameters; allowed: 1 to {p}")
    if method not in METHODS:
        raise InputError(f"method {method!r} is unknown; allowed: {', '.join(METHODS)}{nearest(method, METHODS)}")
    wanted = KrylovWanted(count, tolerance, 1, p)
    room = Room(operator, wanted, memory)
    taken, reason = _choice(room, wanted) if method == "auto" else (method, "asked for")
    if taken != "sketched" and (sketch is not None or residuals):
        reason += "; its residuals are bounds that cost no product, and what was asked of a sketch is not used"
    basis = room.basis()
    if taken != "sketched" and basis is None:
        raise InputError(_too_large(operator, room, wanted, memory, taken))
    store = stores(taken) if stores else None
    if basis is None or taken == "sketched":
        settings = SketchSettings(pairs=count) if sketch is None else replace(sketch, pairs=count)
        found = sketched_eigh(operator, settings, seed, store=store, memory=memory, progress=progress)
        return _of_sketch(operator, found, wanted, settings.block, residuals, reason)
    generator, steps = torch.Generator().manual_seed(seed), room.steps(wanted)
    report, expected = progress or no_progress, min(wanted.expected_steps, p)
    run_by = _lanczos if taken == "lanczos" else _block_krylov
    run = run_by(operator, wanted, steps, generator, basis, store, lambda done, _: report(done, max(done, expected)))
    return _result(operator, run, basis, wanted, taken, reason)


@dataclass(frozen=True)
class KrylovWanted(Wanted):
    """Wanted pairs that are many: what a run of theirs is expected to keep."""

    @property
    def expected_steps(self) -> int:
        return math.ceil(_VECTORS_A_PAIR * self.count) + _VECTORS_MORE


def _lanczos(
    operator: Operator,
    wanted: KrylovWanted,
    steps: int,
    generator: torch.Generator,
    basis: Basis,
    store: RunStore | None,
    progress: ProgressCallback,
) -> KrylovRun:
    return krylov_run(
        operator,
        random_unit_vector(operator, generator),
        steps,
        stop=lambda run: _done_by_lanczos(run, wanted),
        generator=generator,
        basis=basis,
        store=store,
        progress=progress,
    )


def _done_by_lanczos(run: KrylovRun, wanted: KrylovWanted) -> bool:
    """Whether all have converged: asked of the last one alone first, as the vectors of all cost steps^3."""
    if run.steps < wanted.count:
        return False
    diagonal, off = np.array(run.alphas), np.array(run.betas[:-1])
    values = eigh_tridiagonal(diagonal, off, eigvals_only=True)
    last = int(np.argsort(-np.abs(values), kind="stable")[wanted.count - 1])
    _, y = eigh_tridiagonal(diagonal, off, select="i", select_range=(last, last))
    if run.betas[-1] * abs(y[-1, 0]) > max(wanted.tolerance * abs(values[last]), 2 * run.rounding):
        return False
    return _converged(run.eigenpairs()[0], run.rounding, wanted) == wanted.count


def _block_krylov(
    operator: Operator,
    wanted: KrylovWanted,
    steps: int,
    generator: torch.Generator,
    basis: Basis,
    store: RunStore | None,
    progress: ProgressCallback,
) -> BlockRun:
    return block_run(
        operator,
        min(BLOCK, dimension(operator)),
        steps,
        stop=lambda run: _done_by_blocks(run, wanted),
        generator=generator,
        basis=basis,
        store=store,
        progress=progress,
    )


def _done_by_blocks(run: BlockRun, wanted: KrylovWanted) -> bool:
    """Whether all have converged: asked every tenth of the pairs, as it costs products^3."""
    every = max(1, wanted.count // 10)
    if run.products < wanted.count or run.products // every == (run.products - run.width) // every:
        return False
    return _converged(run.eigenpairs()[0], run.rounding, wanted) == wanted.count


def _converged(pairs: Ritz, rounding: float, wanted: KrylovWanted) -> int:
    return len(leading(pairs, wanted.count, wanted.tolerance, rounding))


def _result(
    operator: Operator, run: KrylovRun | BlockRun, basis: Basis, wanted: KrylovWanted, method: str, reason: str
) -> ManyEigenpairs:
    """The largest Ritz pairs of a run, converged or not."""
    pairs, y = run.eigenpairs()
    chosen = np.argsort(-np.abs(pairs.values), kind="stable")[: wanted.count]
    vectors = basis.combine(y[:, chosen]).to(dtype=operator.dtype, device=operator.device)
    converged = _converged(pairs, run.rounding, wanted)
    return ManyEigenpairs(
        pairs.values[chosen], pairs.residuals[chosen], vectors, len(basis), method, reason, converged, None
    )


def _choice(room: Room, wanted: KrylovWanted) -> tuple[str, str]:
    """The method that takes least time of those that memory has room for, and why."""
    need = f"a vector a product, {_gib(wanted, room):.3g} GiB in all,"
    if room.place is None:
        return "sketched", f"{need} would not fit into memory; a sketch streams its measurements"
    if wanted.count <= MOST_BY_LANCZOS:
        return "lanczos", f"{need} fits into memory, and for up to {MOST_BY_LANCZOS} pairs it takes least products"
    return "block_krylov", f"{need} fits into memory, and for more than {MOST_BY_LANCZOS} pairs it takes least time"


def _gib(wanted: KrylovWanted, room: Room) -> float:
    return min(wanted.expected_steps, room.size) * room.size * room.dtype.itemsize / 2**30


def _too_large(operator: Operator, room: Room, wanted: KrylovWanted, memory: int | None, method: str) -> str:
    places = dict.fromkeys([torch.device(operator.device), torch.device("cpu")])
    most = max(int(free_memory(place) * BASIS_SHARE) for place in places) if memory is None else memory
    vectors = most // (room.size * room.dtype.itemsize)
    fitting = max(0, int((vectors - _VECTORS_MORE) / _VECTORS_A_PAIR))
    return (
        f"{wanted.count} eigenpairs of {room.size} parameters by {method} keep some "
        f"{min(wanted.expected_steps, room.size)} vectors, {_gib(wanted, room):.3g} GiB; {most / 2**30:.3g} GiB may be "
        f"taken, enough for {fitting} pairs; ask for fewer, give more memory, or take method sketched"
    )


def _of_sketch(
    operator: Operator, found: SketchedEigenpairs, wanted: KrylovWanted, block: int, residuals: bool, reason: str
) -> ManyEigenpairs:
    values, vectors, known, products = found.values, found.vectors, np.full(len(found.values), np.nan), found.products
    if residuals:
        quotients, norms = _rayleigh(operator, vectors, block)
        order = np.argsort(-np.abs(quotients), kind="stable")
        values, known, products = quotients[order], norms[order], products + len(order)
        if (np.diff(order) != 1).any():
            vectors = vectors[:, torch.from_numpy(order).to(vectors.device)]
    good = known <= wanted.tolerance * np.abs(values)
    converged = len(good) if good.all() else int(np.argmin(good))
    return ManyEigenpairs(values, known, vectors, products, "sketched", reason, converged, found.errors)


def _rayleigh(operator: Operator, vectors: Tensor, block: int) -> tuple[Floats, Floats]:
    """Quotients (k,) q = u^T H u, which no eigenvalue is beyond, and norms (k,) of H u - q u, by one product a pair."""
    quotients, norms = [], []
    for first in range(0, vectors.shape[1], block):
        columns = vectors[:, first : first + block].to(operator.device, operator.dtype)
        products = operator @ columns
        quotients.append(column_dots(columns, products))
        rest = products - columns * quotients[-1].to(columns)
        norms.append(torch.linalg.vector_norm(rest, dim=0, dtype=torch.float64))
    return torch.cat(quotients).cpu().numpy(), torch.cat(norms).cpu().numpy()
