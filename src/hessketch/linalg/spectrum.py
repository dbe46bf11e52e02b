"""What a spectrum of an operator consists of, whichever method found it."""

from dataclasses import dataclass

from hessketch.linalg.deflation import Eigenpairs
from hessketch.linalg.density import Density
from hessketch.linalg.lanczos import Ritz
from hessketch.linalg.normalization import Bounds
from hessketch.linalg.sums import SpectralSums


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
