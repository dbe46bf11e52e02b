"""What random start vectors show of a spectrum whose leading pairs are taken out one by one.

A random vector has a random component in each eigenspace. Leading pairs that its run found are eigenvalues on their
own; what it saw beside them is the measure of a random vector in the space of all others. Where even the last of
several vectors, run in the complement of the pairs before, sees copies of them, its measure alone counts, whole: it is
right whatever the multiplicities.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from hessketch.linalg.arrays import Flags, Floats, Indices
from hessketch.linalg.deflation import Eigenpairs
from hessketch.linalg.krylov_space import KrylovRun, same_eigenvalue
from hessketch.linalg.lanczos import Ritz

NO_PAIRS = Eigenpairs(np.empty(0), None, np.empty(0), np.empty(0))


@dataclass(frozen=True)
class Seen:
    """What one start vector showed."""

    measure: Ritz  # in the complement of the pairs known before; in the whole space without a basis
    nodes: Flags  # (m, k): those that are one of its pairs
    pairs: Eigenpairs  # that it added, without the vectors
    multiple: bool = False  # whether it saw copies of pairs known before, as far as it is clear

    def rest(self, later: Eigenpairs) -> Ritz | None:
        """The measure less the pairs, its own and those that later vectors added; None when nothing is left."""
        later_nodes = same_eigenvalue(self.measure, later.values, later.residuals)
        return without(self.measure, _of_any(self.nodes) | _of_any(later_nodes))


@dataclass(frozen=True)
class Content:
    """Eigenvalues that are known, and the measures of random vectors in the space of all others."""

    values: Floats  # (k,)
    residuals: Floats  # (k,)
    rests: list[Ritz]  # weights of sum 1


def merged(parts: Sequence[Eigenpairs]) -> Eigenpairs:
    """All the pairs, by descending magnitude."""
    values, residuals, norms = (
        np.concatenate([getattr(pairs, name) for pairs in parts]) for name in ("values", "residuals", "paper_values")
    )
    order = np.argsort(-np.abs(values), kind="stable")
    vectors = [pairs.vectors for pairs in parts if pairs.vectors is not None and len(pairs.values)]
    if len(vectors) > 1:
        vectors = [torch.cat(vectors, dim=1)[:, order]]
    return Eigenpairs(values[order], vectors[0] if vectors else None, residuals[order], norms[order])


def by_complements(seen: Sequence[Seen]) -> tuple[Content, Content]:
    """What the operator holds, raw and deflated, where every vector but the first ran in the complement of the pairs.

    The last vector's measure is that of a random vector in the complement of the pairs before, whatever their
    multiplicities. When it saw none of these pairs' eigenvalues again, all their copies are known, and what earlier
    vectors saw beside them counts as well. The deflated operator has lost all pairs, the last vector's too.
    """
    *before, last = seen
    locked, pairs = (merged([s.pairs for s in group]) for group in (before, seen))
    raw = [last.measure] if last.multiple else [*_rests(before), last.measure]
    left = _rests(seen) or raw
    return Content(locked.values, locked.residuals, raw), Content(pairs.values, pairs.residuals, left)


def _rests(seen: Sequence[Seen]) -> list[Ritz]:
    """The measures less all the pairs, where something is left."""
    rests = (s.rest(merged([NO_PAIRS, *(t.pairs for t in seen[i + 1 :])])) for i, s in enumerate(seen))
    return [rest for rest in rests if rest is not None]


def by_weights(seen: Sequence[Seen], dimension: int) -> tuple[Content, Content]:
    """As `by_complements`, where all vectors ran in the whole space: weights tell how often an eigenvalue occurs.

    Pairs that weigh more than single eigenvalues can, alone or together, stay in the raw operator's measures.
    """
    pairs = seen[0].pairs
    weights = dimension * sum((s.measure.weights @ s.nodes for s in seen), np.zeros(len(pairs.values)))
    same = np.abs(pairs.values[:, None] - pairs.values) <= pairs.residuals[:, None] + pairs.residuals
    alone = same @ weights <= _largest_weight(same.sum(axis=1) * len(seen))
    taken = alone & (weights[alone].sum() <= _largest_weight(alone.sum() * len(seen)))
    raw, left = (
        [rest for s in seen if (rest := without(s.measure, _of_any(s.nodes[:, out])))] for out in (taken, alone)
    )
    if not raw:  # every vector saw the pairs alone
        raw, taken = [s.measure for s in seen], np.zeros_like(taken)
    known = Content(pairs.values[taken], pairs.residuals[taken], raw)
    return known, Content(pairs.values, pairs.residuals, left or raw)


def _largest_weight(count: Indices) -> Floats:
    """A sum of so many squared normal numbers is larger than this once in some 10 million."""
    largest: Floats = count + 6 * np.sqrt(2 * count) + 20
    return largest


def without(measure: Ritz, nodes: Flags) -> Ritz | None:
    """The measure less some nodes (m,), weights of sum 1; None when nothing is left."""
    weights = measure.weights[~nodes]
    total = weights.sum()
    if total <= np.finfo(np.float32).eps:
        return None
    return Ritz(measure.values[~nodes], weights / total, measure.residuals[~nodes])


def _of_any(nodes: Flags) -> Flags:
    """Rows (m,) that have one in any column."""
    rows: Flags = np.logical_or.reduce(nodes, axis=1)
    return rows


def _copies(measure: Ritz, pairs: Eigenpairs) -> Flags:
    """Nodes of a run without a basis that are one of the eigenvalues (m, k): its copies, or else the nearest."""
    distance = np.abs(measure.values[:, None] - pairs.values)
    nearest: Flags = (distance == distance.min(axis=0)) & (distance <= measure.residuals[:, None] + pairs.residuals)
    return same_eigenvalue(measure, pairs.values, pairs.residuals) | nearest


def joined(rest: Ritz | None, share: float, values: Floats, residuals: Floats) -> Ritz:
    """The rest with that share of all mass, and the given values with equal parts of the remainder; ascending."""
    rest = rest or Ritz(*np.empty((3, 0)))
    if len(values) == 0:
        return rest
    weights = np.concatenate([rest.weights * share, np.full(len(values), (1 - share) / len(values))])
    all_values = np.concatenate([rest.values, values])
    order = np.argsort(all_values, kind="stable")
    return Ritz(all_values[order], weights[order], np.concatenate([rest.residuals, residuals])[order])


def seen_in(run: KrylovRun, found: Indices, new: Eigenpairs, known: Eigenpairs, complete: bool) -> Seen:
    """What a run showed: these new pairs, found at these indices, beside those that were known."""
    measure, values = run.measure(), replace(new, vectors=None)
    if run.basis is None:
        return Seen(measure, _copies(measure, merged([known, new])), values)
    distance = np.abs(new.values[:, None] - known.values)
    multiple = bool((distance <= new.residuals[:, None] + known.residuals).any())
    return Seen(measure, np.arange(run.steps)[:, None] == found, values, multiple or not complete)
