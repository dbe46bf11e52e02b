"""The whole protocol of Papyan 2018 for one operator."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from hessketch.linalg.deflation import deflate, low_rank_deflation
from hessketch.linalg.density import lanczos_density
from hessketch.linalg.kpm import kpm_density, kpm_products
from hessketch.linalg.lanczos import fast_lanczos, ritz, slow_lanczos
from hessketch.linalg.normalization import spectral_bounds
from hessketch.linalg.spectrum import Spectrum, SpectrumPart, require_sound_counts
from hessketch.linalg.sums import spectral_sums
from hessketch.linalg.vectors import Operator, ProgressCallback, dimension, no_progress


@dataclass(frozen=True)
class PaperSettings:
    """Step counts of the protocol; the defaults are the paper's."""

    normalization_steps: int = 64
    margin: float = 0.05
    lanczos_steps: int = 256
    grid_points: int = 1024
    start_vectors: int = 1
    deflation_rank: int = 0  # 0: no deflation; the paper takes the number of classes
    deflation_iterations: int = 256
    rayleigh_ritz: bool = False  # end the deflation with a Rayleigh-Ritz rotation, for few iterations
    kpm_moments: int = 0  # 0: no KPM
    reorthogonalize: bool = False  # SLOWLANCZOS instead of FASTLANCZOS for the densities

    def __post_init__(self) -> None:
        """Raises InputError for a count out of range."""
        require_sound_counts(self, lanczos_steps=2, deflation_rank=0, kpm_moments=0)


def products_needed(settings: PaperSettings) -> int:
    """Operator-vector products that `paper_spectrum` plans (Papyan 2018, sections 2.3 to 2.8)."""
    part = settings.normalization_steps + settings.start_vectors * settings.lanczos_steps
    deflation = settings.deflation_rank * settings.deflation_iterations
    kpm = settings.start_vectors * kpm_products(settings.kpm_moments)
    return part + kpm + (deflation + part if settings.deflation_rank else 0)


class _Meter:
    """Adds the progress of the stages up to the progress of the protocol, and counts products."""

    def __init__(self, planned: int, progress: ProgressCallback):
        self.products = 0
        self._planned, self._progress, self._before = planned, progress, 0

    def stage(self, size: int) -> Callable[[int, int], None]:
        """The callback of a stage planned to take `size` products; one that ends early counts as done."""
        start, taken = self._before, self.products
        self._before += size

        def report(done: int, total: int) -> None:
            self.products = taken + done
            self._progress(start + done, self._planned)

        return report

    def finish(self) -> None:
        """Reports the end, which a last stage that ended early did not reach."""
        self._progress(self._planned, self._planned)


def _part(
    operator: Operator, settings: PaperSettings, generator: torch.Generator, meter: _Meter, deflated: bool
) -> SpectrumPart:
    """NORMALIZATION, Lanczos from every start vector, LANCZOSAPPROXSPEC."""
    bounds = spectral_bounds(
        operator, generator, settings.normalization_steps, settings.margin, meter.stage(settings.normalization_steps)
    )
    lanczos = slow_lanczos if settings.reorthogonalize else fast_lanczos
    steps = settings.lanczos_steps
    found = tuple(
        ritz(lanczos(operator, steps, generator, progress=meter.stage(steps))) for _ in range(settings.start_vectors)
    )
    density = lanczos_density(found, bounds, settings.grid_points, steps)
    return SpectrumPart(deflated, bounds, found, density)


def paper_spectrum(
    operator: Operator,
    settings: PaperSettings,
    generator: torch.Generator,
    progress: ProgressCallback | None = None,
) -> Spectrum:
    """Bounds, density and dominant eigenpairs of an operator as in Papyan 2018, section 2.

    In this order: NORMALIZATION and LANCZOSAPPROXSPEC of the operator; with `deflation_rank`, LOWRANKDEFLATION
    and both again on the deflated operator; with `kpm_moments`, KPM (Jackson damping, as many random vectors as
    Lanczos has starts) of the operator as it is. Ritz values of the densities come from fresh Lanczos runs and
    stay on the operator's axis; those outside the bounds fall off the grid but are kept.

    `progress(done, planned)` runs over the whole protocol, planned = `products_needed(settings)`.
    Raises InputError for bad arguments, NotFiniteError naming algorithm and step.
    """
    meter = _Meter(products_needed(settings), progress or no_progress)
    parts = [_part(operator, settings, generator, meter, deflated=False)]
    pairs, kpm = None, None
    if settings.deflation_rank:
        rank, iterations = settings.deflation_rank, settings.deflation_iterations
        stage = meter.stage(rank * iterations)
        pairs = low_rank_deflation(operator, rank, iterations, generator, stage, settings.rayleigh_ritz)
        parts.append(_part(deflate(operator, pairs), settings, generator, meter, deflated=True))
    if settings.kpm_moments:
        vectors = settings.start_vectors
        kpm = kpm_density(
            operator,
            parts[0].bounds,
            generator,
            moments=settings.kpm_moments,
            vectors=vectors,
            points=settings.grid_points,
            progress=meter.stage(vectors * kpm_products(settings.kpm_moments)),
        )
    meter.finish()
    sums = spectral_sums(parts[0].ritz, dimension(operator))
    kept = "full" if settings.reorthogonalize else "none"
    return Spectrum(tuple(parts), kpm, pairs, meter.products, sums, kept)
