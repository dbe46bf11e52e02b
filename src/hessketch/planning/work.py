"""The work of a job: how often networks are passed through, what dense linear algebra there is, and the memory.

A pass goes through a network with some examples at once, for one parameter vector or for several side by side. Kinds:

    forward     outputs and loss of examples in eval mode
    gradient    gradient of a mean loss in eval mode
    train       a step of SGD
    clients     a step of several clients side by side
    graph       recording the graph of an operator's products that is kept between them
    hessian, ggn, residual     a product of that operator with a vector, on graphs that are kept
    points      losses at several parameter vectors side by side, float64
    rows        rows of a Hessian side by side, float64
    jacobians   gradients of each output of each example, float64; examples and vectors count outputs
"""

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import TypeVar

from hessketch.planning.sizes import FAMILIES, NetworkSize

# Operations of a pass over those of a pass forwards: one backwards takes two; tangents run forwards (and, but for the
# GGN, with the slopes backwards) through the products with weights and with inputs, twice the operations each.
OPERATIONS = {
    **{"forward": 1, "points": 1, "gradient": 3, "train": 3, "clients": 3, "jacobians": 3},
    **{"ggn": 4, "hessian": 6, "residual": 6, "rows": 6, "graph": 9},
}
# Writing a table and reading it; masks of all sizes against one eigenspace; angles of two small random spaces.
CALLS = ("file", "masks", "angles")
PRODUCTS = ("hessian", "ggn", "residual")
STEPS = ("train", "clients")
# Operations of dense linear algebra: over p^3 of all eigenvectors and few of them, over p r^2 of the singular vectors
# of r < p rows, over p^2 r of a product.
DENSE_OPERATIONS = {"eigh": 9, "tridiagonal": 1.4, "svd": 20, "product": 2}
_BASIS_OPERATIONS = 8  # of each number kept, when a vector is made orthogonal to it twice
# Convolutions gain nothing side by side: they are taken one after the other.
_ONE_BY_ONE = {"clients": "train", "points": "forward"}


@dataclass(frozen=True)
class Pass:
    """One pass of a kind."""

    kind: str
    network: NetworkSize
    examples: float  # all vectors together
    vectors: float = 1

    @property
    def operations(self) -> float:
        return OPERATIONS[self.kind] * self.network.flops * self.examples


@dataclass(frozen=True)
class Dense:
    """One call of dense linear algebra, of (p, p) or (r, p) matrices, or a vector's projection out of r kept ones."""

    kind: str
    size: float
    rank: float

    @property
    def operations(self) -> float:
        if self.kind == "basis":
            return _BASIS_OPERATIONS * self.size * self.rank
        if self.kind == "svd":
            return DENSE_OPERATIONS[self.kind] * self.size * self.rank**2
        return DENSE_OPERATIONS[self.kind] * self.size**2 * self.rank


@dataclass(frozen=True, eq=False)
class Work:
    """Passes and calls with their numbers, and bytes beside those of an idle job; added to with +."""

    passes: Counter[Pass] = field(default_factory=Counter)
    dense: Counter[Dense] = field(default_factory=Counter)
    calls: Counter[str] = field(default_factory=Counter)  # of what takes as long whatever its size: see CALLS
    steps: float = 0.0  # of SGD, each client's counted
    products: float = 0.0  # of an operator with a vector over all examples, rows of matrices among them
    memory: float = 0.0

    def __add__(self, other: "Work") -> "Work":
        """One after the other in the same job: what is kept of one is given back before the other."""
        return Work(
            self.passes + other.passes,
            self.dense + other.dense,
            self.calls + other.calls,
            self.steps + other.steps,
            self.products + other.products,
            max(self.memory, other.memory),
        )

    def __mul__(self, times: float) -> "Work":
        return Work(
            _times(self.passes, times),
            _times(self.dense, times),
            _times(self.calls, times),
            self.steps * times,
            self.products * times,
            self.memory,
        )

    def holding(self, memory: float) -> "Work":
        """The same with so many bytes more in memory all the time."""
        return replace(self, memory=self.memory + memory)

    @property
    def operations(self) -> float:
        """Floating-point operations."""
        return sum(key.operations * n for counts in (self.passes, self.dense) for key, n in counts.items())

    @property
    def gradients(self) -> float:
        """Gradients of single examples."""
        kinds = (*STEPS, "gradient", "jacobians")
        return sum(n * one.examples for one, n in self.passes.items() if one.kind in kinds)


NOTHING = Work()


def together(works: Iterable[Work]) -> Work:
    """Works one after the other."""
    return sum(works, NOTHING)


Counted = TypeVar("Counted")


def _times(counts: Counter[Counted], times: float) -> Counter[Counted]:
    return Counter({key: number * times for key, number in counts.items()})


def passes(kind: str, network: NetworkSize, examples: float, times: float = 1, *, batch: float = math.inf) -> Work:
    """`times` passes over `examples`, at most `batch` of them at once."""
    if not examples or not times:
        return NOTHING
    parts = max(1, math.ceil(examples / batch))
    return Work(
        Counter({Pass(kind, network, examples / parts): times * parts}),
        steps=times * parts if kind in STEPS else 0.0,
        products=times if kind in PRODUCTS else 0.0,
    )


def side_by_side(kind: str, network: NetworkSize, examples: float, vectors: float, at_once: float) -> Work:
    """Passes over `examples` for each of so many vectors, `at_once` of them together."""
    if not examples or not vectors:
        return NOTHING
    if network.family == FAMILIES[0] and kind in _ONE_BY_ONE:
        return passes(_ONE_BY_ONE[kind], network, examples, vectors, batch=1000)
    calls = math.ceil(vectors / max(1.0, at_once))
    each = vectors / calls
    return Work(
        Counter({Pass(kind, network, examples * each, each): calls}),
        steps=vectors if kind in STEPS else 0.0,
        products=vectors if kind == "rows" else 0.0,
    )


def dense(kind: str, size: float, rank: float | None = None, times: float = 1) -> Work:
    """`times` calls of dense linear algebra; `rank` is that of rows (r, p), by default p."""
    return Work(dense=Counter({Dense(kind, size, size if rank is None else rank): times}))


def calls(kind: str, times: float = 1) -> Work:
    """So many of CALLS."""
    return Work(calls=Counter({kind: times}))


def krylov(kind: str, network: NetworkSize, examples: float, steps: float, *, batch: float = math.inf) -> Work:
    """A reorthogonalised Lanczos run: a product a step, each new vector made orthogonal to those before."""
    work = passes(kind, network, examples, steps, batch=batch)
    work += dense("basis", network.parameters, steps / 2, steps)
    return work.holding(4.0 * network.parameters * steps)
