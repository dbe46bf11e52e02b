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
from dataclasses import dataclass, field, fields, replace

import numpy as np
import torch
from torch import Tensor

from hessketch.errors import InputError
from hessketch.linalg.deflation import Eigenpairs
from hessketch.linalg.density import average_curves, kernel_width, smoothed
from hessketch.linalg.kpm import kpm_density_of_ritz
from hessketch.linalg.krylov import KrylovRun, RunStore, krylov_run, leading, same_eigenvalue
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
    rests: list[Ritz] = field(default_factory=list)  # of start vectors, weights of sum 1
    whole: list[Ritz] = field(default_factory=list)  # the measures of those that saw the whole space, with the pairs

    def add_measure(self, measure: Ritz) -> None:
        """Another start vector in the whole space, run without a basis."""
        self.whole.append(measure)
        self._add_rest(_without(measure, _copies(measure, self.pairs).any(axis=1)))

    def _add_rest(self, rest: Ritz | None) -> None:
        if rest is not None:
            self.rests.append(rest)  # else the vector saw nothing but the pairs

    def _take_out(self, values: np.ndarray, residuals: np.ndarray) -> None:
        """Eigenvalues that a later vector added: the vectors before may have seen them among the rest."""
        rests, self.rests = self.rests, []
        for rest in rests:
            self._add_rest(_without(rest, same_eigenvalue(rest, values, residuals).any(axis=1)))

    def add(self, run: KrylovRun, found: np.ndarray, dimension: int) -> None:
        """The pairs that a run found, and the measure of its start vector without them."""
        new, measure = ritz_pairs(run, found), run.measure()
        if len(self.pairs.values) == 0:
            self.whole.append(measure)
        nodes = np.arange(run.steps)[:, None] == found if run.basis is not None else _copies(measure, new)
        taken = dimension * (measure.weights @ nodes) <= _IMPLAUSIBLE_WEIGHT
        self._take_out(new.values[taken], new.residuals[taken])
        self._add_rest(_without(measure, nodes[:, taken].any(axis=1)))
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
    """The measure less some nodes (m,) bool, weights of sum 1; None when nothing is left."""
    weights = measure.weights[~nodes]
    total = weights.sum()
    if total <= np.finfo(np.float32).eps:
        return None
    return Ritz(measure.values[~nodes], weights / total, measure.residuals[~nodes])


def _copies(measure: Ritz, pairs: Eigenpairs) -> np.ndarray:
    """Nodes of a run without a basis that are one of the eigenvalues (m, k) bool: its copies, or else the nearest."""
    distance = np.abs(measure.values[:, None] - pairs.values)
    nearest = (distance == distance.min(axis=0)) & (distance <= measure.residuals[:, None] + pairs.residuals)
    return same_eigenvalue(measure, pairs.values, pairs.residuals) | nearest


def _joined(rest: Ritz | None, share: float, values: np.ndarray, residuals: np.ndarray) -> Ritz:
    """The rest with that share of all mass, and the given values with equal parts of the remainder; ascending."""
    if len(values) == 0:
        return rest
    rest = rest or Ritz(*np.empty((3, 0)))
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
    known = _Known(_NO_PAIRS, np.zeros(0, bool))
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
                meter.finished(run.steps)
                taken = np.isin(np.arange(p), found)
                return _exact(run.ritz(), taken, ritz_pairs(run, found), settings, meter, room)
        else:
            run, found = _further_run(operator, wanted, room, start, own, known.pairs, norm, store, meter.run)
        if number == 0:
            norm, unconverged = run.scale, min(settings.top, p) - len(found)
        if number == 0 or room.place is not None:
            known.add(run, found, p)
        else:
            known.add_measure(run.measure())
        meter.finished(run.steps)
        if len(known.pairs.values) == p:  # nothing is left for another vector
            return _exact(known.pairs, np.ones(p, bool), known.pairs, settings, meter, room)
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

    def end(self) -> None:
        """Reports the end, also when it came before the planned runs were done."""
        self._progress(self.products, self.products)


def _exact(
    all_pairs: Ritz | Eigenpairs,
    taken: np.ndarray,
    pairs: Eigenpairs,
    settings: FastSettings,
    meter: _Meter,
    room: Room,
) -> Spectrum:
    """All p eigenvalues are known, and each has the same weight; `taken` (p,) bool are the pairs."""
    meter.end()
    p, k = len(taken), len(pairs.values)
    every = _joined(None, 0.0, all_pairs.values, all_pairs.residuals)
    left = Ritz(all_pairs.values, np.full(p, 1 / p), all_pairs.residuals)
    deflated = _joined(_without(left, taken), 1 - k / p, np.zeros(k), np.zeros(k))
    parts = _parts([every], [deflated], settings, k, p)
    sums = spectral_sums([every], p, exact=True)
    missing = max(min(settings.top, p) - k, 0)
    return Spectrum(parts, _kpm(parts, settings), _given(pairs), meter.products, sums, room.describe(), missing)


def _assemble(known: _Known, p: int, settings: FastSettings, meter: _Meter, room: Room, unconverged: int) -> Spectrum:
    meter.end()
    if not known.rests:  # every vector saw the pairs alone: their weights tell how often each occurs
        known = replace(known, taken=np.zeros_like(known.taken), rests=known.whole)
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
