r"""Sketched eigendecomposition: many eigenpairs of largest magnitude from products with random vectors.

`paper` is SEIGH (Fernandez et al. 2025, after Tropp et al. 2017): m products w_i = H Upsilon_R e_i, the first m/2 of
them recycled for a basis Q, and the core from Upsilon_L W by two least squares problems. With the R of W = Q R from row
chunks, Upsilon^T Q = (Upsilon^T W) R^{-1}, and the eigenvectors are combinations of kept columns: Q is never formed.

`fast` takes one map alone, in four passes unless told otherwise. One pass: W = H Omega, and a truncated generalised
Nystrom approximation (see `sketch_recovery`). More passes share the same m products: X_1 = Omega has m / passes
columns, X_(j+1) is the range of H X_j less its part in the directions before, a randomised block Krylov space (Musco
and Musco 2015) of few large blocks; the Nystrom approximation then takes all products at once, half a power of H more
than a Rayleigh-Ritz step. Two passes keep half as many columns more, p (3/2) m numbers, four p (7/4) m, passes without
end 2 p m (in bytes: `sketch_room`). Four are the default, as they were the most accurate below throughout.

Measured at equal products, p = 2,000, m = 200 (float64, the 50 leading pairs): 1 - overlap with the exact eigenspace,
and |H - H_50|_F over that of the best approximation.

    eigenvalues                      paper         fast, 1 pass  2 passes       4 passes
    exp(-i / 20)                     6e-3   1.06   2e-6   1.00   1e-7   1.00    7e-12  1.00
    exp(-i / 60)                     0.16   1.24   0.031  1.03   0.010  1.01    8e-4   1.00
    +-exp(-i / 20)                   4e-3   1.07   2e-6   1.00   6e-8   1.00    7e-13  1.00
    1 / i                            0.20   1.53   0.11   1.29   0.031  1.01    1e-3   1.00
    +-1 / i                          0.24   1.62   0.12   1.25   0.028  1.02    5e-4   1.00
    +-1 / i^2                        0.044  1.40   0.006  1.07   2e-4   1.00    6e-7   1.00
    +-1 / sqrt(i)                    0.62   1.46   0.50   1.19   0.16   1.03    0.028  1.00
    50 of 1 to 2, noise of 1e-3      2e-5   1.93   7e-6   1.34   2e-11  1.00    1e-15  1.00
    50 of 1 to 2, noise of 3e-2      0.020  1.91   0.006  1.34   2e-5   1.00    8e-10  1.00
    10 of 1 to 50 and +-0.3 / i^0.8  0.26   1.63   0.16   1.30   0.031  1.02    2e-3   1.00

At all m/2 = 100 pairs, what the paper takes from so many products, the last has 0.40 2.13, 0.32 1.64, 0.17 1.13 and
0.09 1.03. Eigenvalues follow, but for a flat indefinite spectrum (+-1 / sqrt(i)), where no method has the last digits
of 100 pairs (median errors 0.22, 0.03, 0.23, 0.03). Two Rayleigh-Ritz passes of m/2 products each were no better
than one pass of `fast` at m/2 pairs.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial

import torch
from torch import Tensor

from hessketch.errors import InputError, NotFiniteError
from hessketch.linalg.a_posteriori import ErrorEstimate, error_estimate, joined
from hessketch.linalg.arrays import Floats
from hessketch.linalg.measurement_store import MatrixStore, MeasurementStore, MemoryStore, StoredMatrix
from hessketch.linalg.measurements import Measurements, measurements
from hessketch.linalg.sketch_recovery import Recovered, nystrom, two_sided
from hessketch.linalg.sketch_room import Budget, Room, fitting, require_places, require_possible, room_needed
from hessketch.linalg.sketch_settings import SketchSettings
from hessketch.linalg.sketch_sizes import METHODS
from hessketch.linalg.sketch_sweeps import combinations, measured, new_directions, small_matrices, triangle
from hessketch.linalg.vectors import Operator, ProgressCallback, dimension, no_progress, random_vectors
from hessketch.seeds import derive_seed

__all__ = [
    "METHODS",
    "Budget",
    "Room",
    "SketchSettings",
    "SketchedEigenpairs",
    "fitting",
    "room_needed",
    "sketched_eigh",
]


@dataclass(frozen=True)
class SketchedEigenpairs:
    """Eigenpairs of an approximation of the operator."""

    values: Floats  # (k,) float64, by descending magnitude, signed
    vectors: Tensor  # (p, k) orthonormal columns in the operator's dtype, on its device; for want of room on the host,
    # or mapped from the store's file
    products: int  # with all vectors, the probes included
    errors: ErrorEstimate | None  # None without probes


def sketched_eigh(
    operator: Operator,
    settings: SketchSettings,
    seed: int,
    *,
    store: MeasurementStore | None = None,
    memory: int | None = None,
    progress: ProgressCallback | None = None,
) -> SketchedEigenpairs:
    """Approximate eigenpairs of largest magnitude of a symmetric operator; the seed fixes all random vectors.

    Fewer pairs than asked for are returned where the operator's rank, to the rounding of its products, is less. The
    columns are kept in `store` if one is given, and a killed run then goes on from its last whole block, to the same
    numbers bit for bit on a CPU; otherwise on the operator's device or the host, whichever has room. `memory` bounds
    the bytes taken on the device (default half of what is free), beside what the operator takes; half of what is free
    bounds those on the host of a GPU. Eigenvectors that neither holds are kept in `store`, and read while it is there.

    Raises InputError for more pairs or measurements than p, for an operator that is not symmetric, and before the first
    product where memory or disk do not suffice, saying what would fit; NotFiniteError naming the vector.
    """
    p = dimension(operator)
    require_possible(p, settings)
    device = torch.device(operator.device)
    found = require_places(p, settings, operator.dtype, Budget.of(device, memory, store))
    stores: dict[str, MatrixStore] = {"device": MemoryStore(device), "host": MemoryStore("cpu")}
    stores |= {} if store is None else {"store": store}
    run = _Run(operator, settings, seed, stores[found.columns], progress or no_progress)
    products, columns, recovered = (_paper if settings.method == "paper" else _fast)(run)
    probed = run.probe_products()
    kept = stores[found.vectors]
    vectors = combinations(columns, recovered, operator, lambda count: run.matrix("vectors", count, kept))
    values = recovered.values.cpu().numpy()
    errors = None if probed is None else run.errors(probed, values, vectors)
    return SketchedEigenpairs(values, vectors, products + settings.probes, errors)


class _Run:
    """Products in blocks, kept in a store."""

    def __init__(
        self,
        operator: Operator,
        settings: SketchSettings,
        seed: int,
        store: MatrixStore,
        progress: ProgressCallback,
    ):
        self.operator, self.settings, self.seed, self.store, self.progress = operator, settings, seed, store, progress
        self._done = 0

    def map(self, count: int, purpose: str) -> Measurements:
        seed = derive_seed(self.seed, purpose, "sketched eigendecomposition")
        o = self.operator
        return measurements(self.settings.kind, o.shape[0], count, seed, dtype=o.dtype, device=o.device)

    def matrix(self, name: str, columns: int, store: MatrixStore | None = None) -> StoredMatrix:
        identity = f"{asdict(self.settings)} seed {self.seed}"
        return (store or self.store).matrix(name, self.operator.shape[0], columns, self.operator.dtype, identity)

    def products(self, name: str, count: int, columns: Callable[[int, int], Tensor]) -> StoredMatrix:
        """H times columns 0 ... count - 1, those that the store does not hold yet."""
        matrix, total = self.matrix(name, count), self.settings.count + self.settings.probes
        for first in range(matrix.finished, count, self.settings.block):
            last = min(first + self.settings.block, count)
            block = self.operator @ columns(first, last).to(self.operator.device)
            largest = torch.linalg.vector_norm(block, torch.inf, dim=0)  # NaN where a column holds one
            bad = (~largest.isfinite()).nonzero()[:, 0].tolist()
            if bad:
                raise NotFiniteError(
                    f"{name}, vector {first + bad[0] + 1} of {count}: its product holds NaN or infinity"
                )
            matrix.append(block)
            self.progress(self._done + last, total)
        self._done += count
        return matrix

    def _probes(self, first: int, last: int) -> Tensor:
        seed = derive_seed(self.seed, str(first), "probes of a sketched eigendecomposition")
        return random_vectors(self.operator, last - first, torch.Generator().manual_seed(seed))

    def probe_products(self) -> StoredMatrix | None:
        count = self.settings.probes
        return self.products("probes", count, self._probes) if count else None

    def errors(self, products: StoredMatrix, values: Floats, vectors: Tensor) -> ErrorEstimate:
        parts, block = [], self.settings.block
        for first in range(0, self.settings.probes, block):
            last = min(first + block, self.settings.probes)
            parts.append(error_estimate(self._probes(first, last), products.columns(first, last), values, vectors))
        return joined(parts)


def _fast(run: _Run) -> tuple[int, list[StoredMatrix], Recovered]:
    sizes = run.settings.pass_sizes()
    omega = run.map(sizes[0], "right")
    products, directions = [run.products("products1", sizes[0], omega.columns)], list[StoredMatrix]()
    for number, size in enumerate(sizes[1:], start=2):
        make = partial(run.matrix, f"directions{number}")
        made = new_directions(products[-1], directions, size, run.operator, make)
        if made is None:
            break
        directions.append(made)
        products.append(run.products(f"products{number}", made.shape[1], made.columns))
    core, factor, inner = small_matrices(omega, directions, products, run.operator)
    _require_symmetric(core, run.operator.dtype)
    recovered = nystrom(core, factor, inner, run.settings.pairs, run.operator.dtype)
    return sum(matrix.shape[1] for matrix in products), products, recovered


def _require_symmetric(core: Tensor, dtype: torch.dtype) -> None:
    allowed, found = 10 * torch.finfo(dtype).eps ** 0.5, float((core - core.T).norm() / core.norm().clamp(min=1e-300))
    if found > allowed:
        raise InputError(
            f"the operator is not symmetric, or gives another product each time: x^T H y and y^T H x differ by "
            f"{found:.1e} (allowed: {allowed:.1e}); give a symmetric operator on fixed data, or in float64 if its "
            "products are mostly rounding (networks whose loss is nearly zero)"
        )


def _paper(run: _Run) -> tuple[int, list[StoredMatrix], Recovered]:
    """The inner measurements are formed from the kept columns, in one reading of them."""
    count, device, dtype = run.settings.count, run.operator.device, run.operator.dtype
    left, right, half = run.map(count, "left"), run.map(count, "right"), count // 2
    outer = run.products("outer", half, right.columns)
    rest = run.products("inner", count - half, lambda first, last: right.columns(half + first, half + last))
    of_right = measured(right, outer, device)
    _require_symmetric(of_right[:half], dtype)
    of_left = measured(left, outer, device)
    inner = torch.cat([of_left, measured(left, rest, device)], dim=1)
    recovered = two_sided(of_left, of_right, inner, triangle([outer], run.operator), run.settings.pairs, dtype)
    return count, [outer], recovered
