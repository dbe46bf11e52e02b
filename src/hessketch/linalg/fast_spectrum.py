r"""Ends, outliers and density of a spectrum from one Lanczos run, and more start vectors for what is left.

The paper normalises, deflates and estimates the density in runs of their own. One reorthogonalised run from a random
vector v gives it all: its ends, its converged leading eigenpairs with residual bounds, and the spectral measure of v.
In the complement of the leading eigenvectors, v is again a random vector, and its measure there is what remains when
their nodes are left out. So the density of the whole is

    phi(t) = (1/p) sum_i delta(t - lambda_i) + (1 - k/p) mean over start vectors of the measure of what is left

with the k leading eigenvalues exact. Further start vectors run in the complement, which shows copies of multiple
eigenvalues that a single vector cannot see. Where even the last one sees copies, its measure alone counts, whole: a
random vector's in the complement of all pairs before, it is right whatever the multiplicities.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields

import numpy as np
import torch
from torch import Tensor

from hessketch.errors import InputError
from hessketch.linalg.arrays import Flags, Indices
from hessketch.linalg.complement import (
    NO_PAIRS,
    Content,
    Seen,
    by_complements,
    by_weights,
    joined,
    merged,
    seen_in,
    without,
)
from hessketch.linalg.deflation import Eigenpairs
from hessketch.linalg.density import KERNEL_REACH, Density, average_curves, kernel_width, smoothed
from hessketch.linalg.kpm import kpm_density_of_ritz
from hessketch.linalg.krylov import RunStore, krylov_run
from hessketch.linalg.krylov_space import KrylovRun, leading
from hessketch.linalg.lanczos import Ritz
from hessketch.linalg.leading_eigenpairs import PLACES, Room, Wanted, leading_run, require_tolerance, ritz_pairs
from hessketch.linalg.normalization import Bounds, bounds_of_ritz
from hessketch.linalg.spectrum import Spectrum, SpectrumPart, require_sound_counts
from hessketch.linalg.sums import SpectralSums, spectral_sums
from hessketch.linalg.vectors import (
    Operator,
    ProgressCallback,
    dimension,
    no_progress,
    random_unit_vector,
)

_BROADENINGS = ("paper", "spacing")
_PRECISIONS = ("same", "float32", "float64")


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
    # paper: its sigma for the steps taken; spacing: the mean spacing of the Ritz values
    broadening: str = field(default="paper", metadata={"choices": _BROADENINGS})
    # of the kept Lanczos vectors; same: as the operator's
    basis_precision: str = field(default="same", metadata={"choices": _PRECISIONS})
    # auto: on the device if the Lanczos vectors fit there, else on the host
    basis_place: str = field(default="auto", metadata={"choices": PLACES})

    def __post_init__(self) -> None:
        """Raises InputError for a number out of range or an unknown word."""
        require_sound_counts(self, top=0, lanczos_steps=2, kpm_moments=0, grid_points=16)
        require_tolerance(self.tolerance)
        for f in fields(self):
            allowed = f.metadata.get("choices")
            if allowed and getattr(self, f.name) not in allowed:
                raise InputError(f"{f.name} {getattr(self, f.name)!r} is unknown; allowed: {', '.join(allowed)}")
        if self.max_steps < self.lanczos_steps:
            raise InputError(f"max_steps {self.max_steps} is less than lanczos_steps {self.lanczos_steps}")

    @property
    def wanted(self) -> Wanted:
        """When the first run may stop."""
        return Wanted(self.top, self.tolerance, self.lanczos_steps, self.max_steps)


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
    after `lanczos_steps` in the complement of the pairs; a pair found there that belongs to the leading ones (a copy of
    a multiple eigenvalue, or one within the tolerance of the least) is added. With as many steps as the operator has
    dimensions everything is exact and one run is enough. Ritz values of the parts: see `_parts`. A single start vector
    tells a multiple leading eigenvalue by its weight only: a simple one for it where that is at most some 30 / p.

    `memory` bounds the kept Lanczos vectors in bytes (default half of what is free on the device, then on the host).
    Without room for them copies of converged eigenvalues are merged, there are no eigenvectors, every start vector
    takes a full run, and weights alone tell multiple eigenvalues; `Spectrum.reorthogonalization` says so. `stores`
    gives each start vector's run a place to leave its state, by name. Raises as `krylov_run`.
    """
    p = dimension(operator)
    meter = _Meter(settings.lanczos_steps, settings.start_vectors, progress or no_progress)
    seeds = torch.randint(2**62, (settings.start_vectors,), generator=generator).tolist()
    wanted, room = settings.wanted, _room(operator, settings, memory)
    seen, pairs, norm, unconverged = list[Seen](), NO_PAIRS, 0.0, 0
    for number, seed in enumerate(seeds):
        own = torch.Generator().manual_seed(seed)
        start = random_unit_vector(operator, own)
        store = stores(f"start{number}-{'plain' if room.place is None else 'basis'}") if stores else None
        if number == 0 or room.place is None:
            run, found, complete = *leading_run(operator, wanted, room, start, own, store, meter.run), True
        else:
            run, found, complete = _further_run(operator, wanted, room, start, own, pairs, norm, store, meter.run)
        meter.finished(run.steps)
        if number == 0:
            norm, unconverged = run.scale, min(settings.top, p) - len(found)
            if run.steps == p and run.basis is not None:
                taken = np.isin(np.arange(p), found)
                return _exact(run.ritz(), taken, ritz_pairs(run, found), settings, meter, room, unconverged)
        new = NO_PAIRS if number and run.basis is None else ritz_pairs(run, found)
        seen.append(seen_in(run, found, new, pairs, complete))
        pairs = merged([pairs, new])
        if len(pairs.values) == p:  # nothing is left for another vector
            return _exact(pairs, np.ones(p, bool), pairs, settings, meter, room, unconverged)
    whole = room.place is None or len(seen) == 1
    raw, deflated = by_weights(seen, p) if whole else by_complements(seen)
    sums = spectral_sums(raw.rests, p, raw.values)
    return _spectrum(raw, deflated, pairs, sums, settings, meter, room, unconverged, p)


def _room(operator: Operator, settings: FastSettings, memory: int | None) -> Room:
    precision = None if settings.basis_precision == "same" else getattr(torch, settings.basis_precision)
    return Room(operator, settings.wanted, memory, precision, settings.basis_place)


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
) -> tuple[KrylovRun, Indices, bool]:
    """A run in the complement of the pairs, the indices of further ones as large as the least, and whether of all."""
    least = np.abs(pairs.values[-1]) * (1 - wanted.tolerance) if len(pairs.values) else np.inf

    def further(run: KrylovRun) -> tuple[int, Indices]:
        measure = run.ritz()
        count = int((np.abs(measure.values) >= max(least, run.rounding)).sum())
        return count, leading(measure, count, wanted.tolerance, run.rounding)

    def stop(run: KrylovRun) -> bool:
        if run.steps < wanted.least_steps:
            return False
        count, found = further(run)
        return len(found) == count

    run = krylov_run(
        operator,
        start,
        room.steps(wanted),
        stop=stop,
        generator=generator,
        basis=room.basis(),
        locked=None if pairs.vectors is None else pairs.vectors.to(dtype=operator.dtype, device=operator.device),
        norm_known=norm,
        store=store,
        progress=progress,
    )
    count, found = further(run)
    return run, found, len(found) == count


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
    taken: Flags,
    pairs: Eigenpairs,
    settings: FastSettings,
    meter: _Meter,
    room: Room,
    unconverged: int,
) -> Spectrum:
    """All p eigenvalues are known, and each has the same weight; `taken` (p,) are the pairs."""
    p = len(taken)
    every = Ritz(all_pairs.values, np.full(p, 1 / p), all_pairs.residuals)
    raw = Content(all_pairs.values, all_pairs.residuals, [])
    rest = without(every, taken)
    deflated = Content(pairs.values, pairs.residuals, [] if rest is None else [rest])
    sums = spectral_sums([every], p, exact=True)
    return _spectrum(raw, deflated, pairs, sums, settings, meter, room, unconverged, p)


def _spectrum(
    raw: Content,
    deflated: Content,
    pairs: Eigenpairs,
    sums: SpectralSums,
    settings: FastSettings,
    meter: _Meter,
    room: Room,
    unconverged: int,
    dimension: int,
) -> Spectrum:
    meter.end()
    parts = _parts(raw, deflated, settings, dimension)
    given = pairs if len(pairs.values) else None
    return Spectrum(parts, _kpm(parts, settings), given, meter.products, sums, room.describe(), unconverged)


def _kpm(parts: Sequence[SpectrumPart], settings: FastSettings) -> Density | None:
    if not settings.kpm_moments:
        return None
    return kpm_density_of_ritz(parts[0].ritz, parts[0].bounds, settings.kpm_moments, settings.grid_points)


def _parts(raw: Content, deflated: Content, settings: FastSettings, dimension: int) -> tuple[SpectrumPart, ...]:
    """Ritz values of what is left, with the leading eigenvalues in the raw part (weight 1/p each) and as many zeros in
    the deflated one; weights sum to 1 for each start vector that counts."""
    parts = [_part(_measures(raw, dimension, deflated=False), settings, deflated=False)]
    if settings.top:
        parts.append(_part(_measures(deflated, dimension, deflated=True), settings, deflated=True))
    return tuple(parts)


def _measures(content: Content, dimension: int, deflated: bool) -> list[Ritz]:
    """The rests with the known eigenvalues, or with as many zeros, in their share."""
    zeros = np.zeros(len(content.values))
    values, residuals = (zeros, zeros) if deflated else (content.values, content.residuals)
    share = 1 - len(zeros) / dimension
    rests: Sequence[Ritz | None] = content.rests or [None]
    return [joined(rest, share, values, residuals) for rest in rests]


def _part(measures: list[Ritz], settings: FastSettings, deflated: bool) -> SpectrumPart:
    """The density on a grid that holds all its mass and resolves its kernel, with a band."""
    outer = [bounds_of_ritz(measure, margin=0.0) for measure in measures]
    tight = Bounds(min(b.lower for b in outer), max(b.upper for b in outer))
    nodes = max(int(np.median([len(m.values) for m in measures])), 2)
    width = kernel_width(nodes) if settings.broadening == "paper" else 2 / (nodes - 1)
    sigma = max(width, 2 / (settings.grid_points - 1 - 2 * KERNEL_REACH)) * tight.half_width
    bounds = Bounds(tight.lower - KERNEL_REACH * sigma, tight.upper + KERNEL_REACH * sigma)
    unit = sigma / bounds.half_width
    curves = [smoothed(measure, bounds, settings.grid_points, unit) for measure in measures]
    density = average_curves(curves, bounds, unit)
    return SpectrumPart(deflated, bounds, tuple(measures), density)
