"""What a spectrum of an operator consists of, whichever method found it."""

from dataclasses import dataclass, fields
from typing import Any

from hessketch.errors import InputError
from hessketch.linalg.deflation import Eigenpairs
from hessketch.linalg.density import Density
from hessketch.linalg.lanczos import Ritz
from hessketch.linalg.normalization import Bounds
from hessketch.linalg.sums import SpectralSums
from hessketch.linalg.vectors import require_at_least


def require_sound_counts(settings: Any, **least: int) -> None:
    """Raises InputError for whole numbers of a settings dataclass below `least` (1 where it names none), a grid that
    does not resolve the Lanczos steps, or a single Chebyshev moment."""
    for f in fields(settings):
        if f.type is int:
            require_at_least(least.get(f.name, 1), **{f.name: getattr(settings, f.name)})
    if settings.grid_points < settings.lanczos_steps:
        raise InputError(
            f"grid_points {settings.grid_points} does not resolve lanczos_steps {settings.lanczos_steps}; "
            "give at least as many points as steps"
        )
    if settings.kpm_moments == 1:
        raise InputError("kpm_moments is 1; allowed: 0 for no KPM, or integers from 2")


@dataclass(frozen=True)
class SpectrumPart:
    """The density of an operator, as it is or deflated, with what it was made from."""

    deflated: bool  # True: the leading eigenvalues in `Spectrum.pairs` have become zero
    bounds: Bounds
    ritz: tuple[Ritz, ...]  # one a start vector, on the operator's axis
    density: Density


@dataclass(frozen=True)
class Spectrum:
    """Result of `paper_spectrum` and of `fast_spectrum`."""

    parts: tuple[SpectrumPart, ...]  # the raw operator; then the deflated one, if eigenpairs were asked for
    kpm: Density | None  # of the raw operator
    pairs: Eigenpairs | None  # leading eigenpairs, by magnitude
    products: int  # operator-vector products taken
    sums: SpectralSums
    reorthogonalization: str  # 'full', 'none', or with where and how the basis was kept
    unconverged: int = 0  # leading eigenpairs asked for and not found within the steps allowed
