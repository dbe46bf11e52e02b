r"""Ends, outliers and density of a spectrum from one Lanczos run, and more start vectors for what is left.

The paper normalises, deflates and estimates the density in runs of their own. One reorthogonalised run from a random
vector v gives it all: its ends, its converged leading eigenpairs with residual bounds, and the spectral measure of v.
In the complement of the leading eigenvectors, v is again a random vector, and its measure there is what remains when
their nodes are left out. So the density of the whole is

    phi(t) = (1/p) sum_i delta(t - lambda_i) + (1 - k/p) mean over start vectors of the measure of what is left

with the k leading eigenvalues exact. Further start vectors run in the complement, which shows copies of multiple
eigenvalues that a single vector cannot see.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from torch import Tensor

from hessketch.errors import InputError
from hessketch.linalg.deflation import Eigenpairs
from hessketch.linalg.density import average_curves, kernel_width, smoothed
from hessketch.linalg.kpm import kpm_density_of_ritz
from hessketch.linalg.krylov import KrylovRun, RunStore, krylov_run, leading
from hessketch.linalg.lanczos import Ritz
from hessketch.linalg.leading_eigenpairs import Room, Wanted, leading_run, ritz_pairs
from hessketch.linalg.normalization import Bounds, bounds_of_ritz
from hessketch.linalg.spectrum import Spectrum, SpectrumPart
from hessketch.linalg.sums import spectral_sums
from hessketch.linalg.vectors import (
    Operator,
    ProgressCallback,
    dimension,
    no_progress,
    random_unit_vector,
    require_at_least,
)

# p times the weight of a simple eigenvalue is a squared normal number: beyond 30 once in 20 million.
_IMPLAUSIBLE_WEIGHT = 30.0
# Grid beyond the outermost Ritz values, in standard deviations of the kernel, whose mass beyond is below 1e-9.
_KERNEL_REACH = 6.2
_BROADENINGS = ("paper", "spacing")


@dataclass(frozen=True)
class FastSettings:
    """What is asked of `fast_spectrum`."""

    top: int = 10  # leading eigenpairs (by magnitude) that must converge
    tolerance: float = 1e-3  # of their residual bounds, relative to the eigenvalue
    lanczos_steps: int = 48  # least steps of every run: the density's resolution
    max_steps: int = 1000  # of the first run, should the leading pairs not converge before
    start_vectors: int = 2
    grid_points: int = 1024
    kpm_moments: int = 0  # 0: no KPM; its moments come from the same run, at most two a step
    broadening: str = "paper"  # its sigma for the steps taken, or 'spacing': the mean spacing of the Ritz values
    basis_precision: str = "same"  # of the kept Lanczos vectors: 'same' as the operator's, 'float32' or 'float64'

    def __post_init__(self):
        """Raises InputError for a number out of range or an unknown word."""
        least = {"top": 0, "lanczos_steps": 2, "kpm_moments": 0, "grid_points": 16}
        for f in fields(self):
            if f.type is int:
                require_at_least(least.get(f.name, 1), **{f.name: getattr(self, f.name)})
        if not 0 < self.tolerance < 1:
            raise InputError(f"tolerance is {self.tolerance!r}; allowed: numbers between 0 and 1 (0.001 is usual)")
        if self.broadening not in _BROADENINGS:
            raise InputError(f"broadening {self.broadening!r} is unknown; allowed: {', '.join(_BROADENINGS)}")
        if self.basis_precision not in ("same", "float32", "float64"):
            raise InputError(f"basis_precision {self.basis_precision!r} is unknown; allowed: same, float32, float64")
        if self.grid_points < self.lanczos_steps:
            raise InputError(
                f"grid_points {self.grid_points} does not resolve lanczos_steps {self.lanczos_steps}; "
                "give at least as many points as steps"
            )
        if self.max_steps < self.lanczos_steps:
            raise InputError(f"max_steps {self.max_steps} is less than lanczos_steps {self.lanczos_steps}")
        if self.kpm_moments == 1:
            raise InputError("kpm_moments is 1; allowed: 0 for no KPM, or integers from 2")


@dataclass
class _Known:
    """Leading eigenpairs while start vectors are added, and the measures of what is left without them."""

    pairs: Eigenpairs
    taken: np.ndarray  # (k,) bool: out of the measures; False for one that stands for many copies
    rests: list[Ritz]  # of start vectors, weights of sum 1
    last: Ritz | None = None  # the whole measure of the last start vector

    def add(self, run: KrylovRun, found: np.ndarray, dimension: int) -> None:
        """The pairs that a run found, and the measure of its start vector without them."""
        new, measure = ritz_pairs(run, found), run.ritz()
        taken = dimension * measure.weights[found] <= _IMPLAUSIBLE_WEIGHT
        rest = _without(measure, found[taken])
        if rest is not None:
            self.rests.append(rest)  # else the vector saw nothing but these pairs
        self.last = measure
        old = self.pairs
        order = np.argsort(-np.abs(np.concatenate([old.values, new.values])), kind="stable")
        both = (np.concatenate(columns)[order] for columns in (
            (old.values, new.values), (old.residuals, new.residuals), (old.paper_values, new.paper_values)
        ))  # fmt: skip
        values, residuals, norms = both
        vectors = None
        if new.vectors is not None:
            vectors = new.vectors if old.vectors is None else torch.cat([old.vectors, new.vectors], dim=1)[:, order]
        self.pairs = Eigenpairs(values, vectors, residuals, norms)
        self.taken = np.concatenate([self.taken, taken])[order]


def _without(measure: Ritz, nodes: np.ndarray) -> Ritz | None:
    """The measure less some nodes, weights of sum 1; None when nothing is left."""
    left = np.setdiff1d(np.arange(len(measure.values)), nodes)
    weights = measure.weights[left]
    total = weights.sum()
    if len(left) == 0 or total <= np.finfo(np.float32).eps:
        return None
    return Ritz(measure.values[left], weights / total, measure.residuals[left])


def _joined(rest: Ritz, share: float, values: np.ndarray, residuals: np.ndarray) -> Ritz:
    """The rest with that share of all mass, and the given values with equal parts of the remainder; ascending."""
    if len(values) == 0:
        return rest
    weights = np.concatenate([rest.weights * share, np.full(len(values), (1 - share) / len(values))])
    all_values = np.concatenate([rest.values, values])
    order = np.argsort(all_values, kind="stable")
    return Ritz(all_values[order], weights[order], np.concatenate([rest.residuals, residuals])[order])


def fast_spectrum(
    operator: Operator,
    settings: FastSettings,
    generator: torch.Generator,
    progress: ProgressCallback | None = None,
    *,
    memory: int | None = None,
    stores: Callable[[str], RunStore] | None = None,
) -> Spectrum:
    """Bounds, density, sums and leading eigenpairs of an operator; see the module for the method.

    The first run ends when `settings.top` pairs have converged and it is `lanczos_steps` long, further start vectors
    after `lanczos_steps` in the complement of the pairs; a pair found there that belongs to the leading ones is a copy
    of a multiple eigenvalue and is added. With as many steps as the operator has dimensions everything is exact and
    one run is enough. The parts' Ritz values are those of what is left, with the leading eigenvalues in the raw part
    (weight 1/p each) and as many zeros in the deflated one; weights sum to 1 for each start vector.

    `memory` bounds the kept Lanczos vectors in bytes (default half of what is free on the device, then on the host).
    Without room for them copies of converged eigenvalues are merged, there are no eigenvectors, and every start vector
    takes a full run; `Spectrum.reorthogonalization` says so. `stores` gives each start vector's run a place to leave
    its state, by name. Raises as `krylov_run`.
    """
    p = dimension(operator)
    meter = _Meter(settings.lanczos_steps, settings.start_vectors, progress or no_progress)
    seeds = torch.randint(2**62, (settings.start_vectors,), generator=generator).tolist()
    known = _Known(_NO_PAIRS, np.zeros(0, bool), [])
    wanted = Wanted(settings.top, settings.tolerance, settings.lanczos_steps, settings.max_steps)
    precision = None if settings.basis_precision == "same" else getattr(torch, settings.basis_precision)
    room, unconverged, norm = Room(operator, wanted, memory, precision), 0, 0.0
    for number, seed in enumerate(seeds):
        own = torch.Generator().manual_seed(seed)
        start = random_unit_vector(operator, own)
        store = stores(f"start{number}") if stores else None
        if number == 0 or room.place is None:
            run, found = leading_run(operator, wanted, room, start, own, store, meter.run)
            if run.steps == p and run.basis is not None:
                return _exact(run, found, settings, meter, room)
        else:
            run, found = _further_run(operator, wanted, room, start, own, known.pairs, norm, store, meter.run)
        if number == 0:
            norm, unconverged = run.scale, min(settings.top, p) - len(found)
        if number == 0 or room.place is not None:
            known.add(run, found, p)
        else:
            known.rests.append(_away_from(run.ritz(), known.pairs) or run.ritz())
        meter.finished(run.steps)
    return _assemble(known, p, settings, meter, room, unconverged)


_NO_PAIRS = Eigenpairs(np.empty(0), None, np.empty(0), np.empty(0))


def _further_run(
    operator: Operator,
    wanted: Wanted,
    room: Room,
    start: Tensor,
    generator: torch.Generator,
    pairs: Eigenpairs,
    norm: float,
    store: RunStore | None,
    progress: ProgressCallback,
) -> tuple[KrylovRun, np.ndarray]:
    """A run in the complement of the pairs, and the indices of further copies of them that it found."""
    some = len(pairs.values) > 0
    least = np.abs(pairs.values[-1]) * (1 - wanted.tolerance) if some else np.inf

    def copies(run: KrylovRun) -> tuple[int, np.ndarray]:
        measure = run.ritz()
        count = int((np.abs(measure.values) >= max(least, run.rounding)).sum())
        return count, leading(measure, count, wanted.tolerance, run.rounding)

    def stop(run: KrylovRun) -> bool:
        if run.steps < wanted.least_steps:
            return False
        count, found = copies(run)
        return len(found) == count

    run = krylov_run(
        operator,
        start,
        room.steps(wanted),
        stop=stop,
        generator=generator,
        basis=room.basis(),
        locked=pairs.vectors.to(dtype=operator.dtype, device=operator.device) if some else None,
        norm_known=norm,
        store=store,
        progress=progress,
    )
    return run, copies(run)[1]


def _away_from(measure: Ritz, pairs: Eigenpairs) -> Ritz | None:
    """A full run's measure without the nodes that are one of the known eigenvalues, by value."""
    distance = np.abs(measure.values[:, None] - pairs.values)
    same = distance <= measure.residuals[:, None] + pairs.residuals
    return _without(measure, np.flatnonzero(same.any(axis=1)))


class _Meter:
    """Products over all runs, against a plan that grows when a run is longer than the least."""

    def __init__(self, steps: int, runs: int, progress: ProgressCallback):
        self.products = 0
        self._steps, self._runs, self._progress = steps, runs, progress

    def run(self, done: int, limit: int) -> None:
        left = max(self._steps, done) + self._steps * (self._runs - 1)
        self._progress(self.products + done, self.products + left)

    def finished(self, steps: int) -> None:
        self.products += steps
        self._runs -= 1
        if self._runs == 0:
            self._progress(self.products, self.products)


def _exact(run: KrylovRun, found: np.ndarray, settings: FastSettings, meter: _Meter, room: Room) -> Spectrum:
    """As many steps as dimensions: every eigenvalue is known, and each has the same weight."""
    meter.finished(run.steps)
    every = run.ritz()
    p = len(every.values)
    every = Ritz(every.values, np.full(p, 1 / p), every.residuals)
    pairs = ritz_pairs(run, found)
    rest = _without(every, found)
    deflated = _joined(rest or every, 1 - len(found) / p, np.zeros(len(found)), np.zeros(len(found)))
    parts = _parts([every], [deflated], settings, len(found), p)
    sums = spectral_sums([every], p, exact=True)
    return Spectrum(parts, _kpm(parts, settings), _given(pairs), meter.products, sums, room.describe())


def _assemble(known: _Known, p: int, settings: FastSettings, meter: _Meter, room: Room, unconverged: int) -> Spectrum:
    if not known.rests:  # every vector saw the pairs alone: its weights tell how often each occurs
        known = replace(known, taken=np.zeros_like(known.taken), rests=[known.last])
    values, residuals = known.pairs.values[known.taken], known.pairs.residuals[known.taken]
    share = 1 - len(values) / p
    zeros = np.zeros(len(values))
    raw = [_joined(rest, share, values, residuals) for rest in known.rests]
    deflated = [_joined(rest, share, zeros, zeros) for rest in known.rests]
    parts = _parts(raw, deflated, settings, len(values), p)
    sums = spectral_sums(known.rests, p, values)
    pairs = _given(known.pairs)
    return Spectrum(parts, _kpm(parts, settings), pairs, meter.products, sums, room.describe(), unconverged)


def _given(pairs: Eigenpairs) -> Eigenpairs | None:
    return pairs if len(pairs.values) else None


def _kpm(parts: Sequence[SpectrumPart], settings: FastSettings):
    if not settings.kpm_moments:
        return None
    return kpm_density_of_ritz(parts[0].ritz, parts[0].bounds, settings.kpm_moments, settings.grid_points)


def _parts(
    raw: list[Ritz], deflated: list[Ritz], settings: FastSettings, taken: int, p: int
) -> tuple[SpectrumPart, ...]:
    parts = [_part(raw, settings, deflated=False, known=taken, p=p)]
    if settings.top:
        parts.append(_part(deflated, settings, deflated=True, known=taken, p=p))
    return tuple(parts)


def _part(measures: list[Ritz], settings: FastSettings, deflated: bool, known: int, p: int) -> SpectrumPart:
    """The density on a grid that holds all its mass, with a band."""
    outer = [bounds_of_ritz(measure, margin=0.0) for measure in measures]
    tight = Bounds(min(b.lower for b in outer), max(b.upper for b in outer))
    nodes = min(int(np.median([len(m.values) for m in measures])), settings.grid_points)
    width = kernel_width(max(nodes, 2)) if settings.broadening == "paper" else 2 / max(nodes - 1, 1)
    sigma = width * tight.half_width
    bounds = Bounds(tight.lower - _KERNEL_REACH * sigma, tight.upper + _KERNEL_REACH * sigma)
    unit = sigma / bounds.half_width
    curves = [smoothed(measure, bounds, settings.grid_points, unit) for measure in measures]
    density = average_curves(curves, bounds, unit)
    return SpectrumPart(deflated, bounds, tuple(measures), density)
