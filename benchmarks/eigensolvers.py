"""Methods that find the eigenvalues of largest magnitude of a Hessian, each with a ladder of settings.

A method's `solve(problem, seed, setting)` returns the values it would report and the products it took. Libraries bring
their own products where they have some; CPU time is of the whole call, without what is prepared once. A `setting` is
what the user of the method turns: iterations, steps, or a tolerance. Ladders go from cheap to dear.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator, eigsh, lobpcg

from benchmarks.peers import pyhessian_of, version
from benchmarks.trained import TOP, Counting, Exact
from hessketch.curvature.losses import cross_entropy
from hessketch.curvature.operators import CurvatureOperator
from hessketch.linalg.basis import Basis
from hessketch.linalg.deflation import Eigenpairs, low_rank_deflation
from hessketch.linalg.krylov import krylov_run
from hessketch.linalg.leading_eigenpairs import leading_eigenpairs
from hessketch.linalg.vectors import random_unit_vector

_MOST_ITERATIONS = 3000  # of power iteration for one eigenvalue: its tolerance should end it long before
_TOLERANCES = tuple(10.0 ** (-i / 4) for i in range(1, 25))  # 0.56 to 1e-6, about what float32 allows


@dataclass(frozen=True)
class Answer:
    """What a method reports after so many products."""

    values: np.ndarray  # (k,)
    products: int
    cpu_seconds: float
    signed: bool = True  # False: magnitudes only


@dataclass(frozen=True)
class Solver:
    """A method, the settings it can be run with, and those that it, or its documentation, would choose itself."""

    name: str
    solve: Callable[[Exact, int, float], Answer]
    unit: str  # of a setting: "iterations", "steps", "tolerance"
    ladder: Sequence[float]
    own: tuple[float, ...] = ()
    distribution: str | None = None

    @property
    def missing(self) -> bool:
        return self.distribution is not None and version(self.distribution) is None


def _operator(problem: Exact) -> Counting:
    return Counting(CurvatureOperator("hessian", problem.model, cross_entropy, problem.batches))


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class _Clock:
    """CPU seconds of this process since its making."""

    def __init__(self) -> None:
        self._start = time.process_time()

    def seconds(self) -> float:
        return time.process_time() - self._start


def _subspace_iteration(values: Callable[[Eigenpairs], np.ndarray], signed: bool, rayleigh_ritz: bool):
    def solve(problem: Exact, seed: int, iterations: float) -> Answer:
        operator, clock = _operator(problem), _Clock()
        pairs = low_rank_deflation(operator, TOP, int(iterations), _generator(seed), rayleigh_ritz=rayleigh_ritz)
        return Answer(values(pairs), operator.products, clock.seconds(), signed)

    return solve


def _hessketch(problem: Exact, seed: int, tolerance: float) -> Answer:
    """Ours, until the bound of every residual is within the tolerance."""
    operator, clock = _operator(problem), _Clock()
    pairs = leading_eigenpairs(operator, TOP, _generator(seed), tolerance=tolerance)
    return Answer(pairs.values, operator.products, clock.seconds())


def _hessketch_steps(problem: Exact, seed: int, steps: float) -> Answer:
    """The largest Ritz values of our Lanczos after so many steps, converged or not."""
    operator, clock, generator = _operator(problem), _Clock(), _generator(seed)
    start, basis = random_unit_vector(operator, generator), Basis(len(problem.spectrum), operator.dtype, "cpu")
    run = krylov_run(operator, start, int(steps), stop=lambda run: False, generator=generator, basis=basis)
    return Answer(run.ritz().values, operator.products, clock.seconds())


def _pyhessian(problem: Exact, seed: int, tolerance: float) -> Answer:
    """Power iteration, one eigenvalue after the other, each orthogonal to those before; the graph is kept."""
    from pyhessian.utils import group_product, hessian_vector_product

    made = pyhessian_of(problem.model, problem.batches)
    products = 0

    def counted(vector: list[torch.Tensor]) -> tuple[float, Sequence[torch.Tensor]]:
        nonlocal products
        products += 1
        parts = hessian_vector_product(made.gradsH, made.params, vector)
        return group_product(parts, vector).item(), parts

    made.full_dataset, made.dataloader_hv_product = True, counted  # the hook that its methods offer
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        clock = _Clock()
        values, _ = made.eigenvalues(maxIter=_MOST_ITERATIONS, tol=tolerance, top_n=TOP)
    return Answer(np.array(values), products, clock.seconds())


class _EigenthingsOperator:
    """The library's Hessian operator, counted; its algorithms need size, dtype, device and matvec."""

    def __init__(self, problem: Exact):
        from hessian_eigenthings import HessianOperator, supervised_loss

        loss = supervised_loss(torch.nn.functional.cross_entropy)
        self._operator = HessianOperator(problem.model, problem.batches, loss)
        self.size, self.dtype, self.device = self._operator.size, self._operator.dtype, self._operator.device
        self.products = 0

    def matvec(self, vector: torch.Tensor) -> torch.Tensor:
        self.products += 1
        return self._operator.matvec(vector)


def _eigenthings_lanczos(problem: Exact, seed: int, steps: float) -> Answer:
    """Reorthogonalises up to 50 steps, by its default; has no stopping rule."""
    from hessian_eigenthings import lanczos

    operator, clock = _EigenthingsOperator(problem), _Clock()
    found = lanczos(operator, k=TOP, max_iter=int(steps), seed=seed)
    return Answer(found.eigenvalues.double().numpy(), operator.products, clock.seconds())


def _eigenthings_power(problem: Exact, seed: int, tolerance: float) -> Answer:
    from hessian_eigenthings import deflated_power_iteration

    operator, clock = _EigenthingsOperator(problem), _Clock()
    found = deflated_power_iteration(operator, k=TOP, max_iter=_MOST_ITERATIONS, tol=tolerance, seed=seed)
    return Answer(found.eigenvalues.double().numpy(), operator.products, clock.seconds())


def _scipy_operator(problem: Exact) -> tuple[LinearOperator, Callable[[], int]]:
    """curvlinops' operator for SciPy and the number of vectors that it was multiplied with so far."""
    from curvlinops import HessianLinearOperator

    parameters = list(problem.model.parameters())
    linear = HessianLinearOperator(
        problem.model, torch.nn.CrossEntropyLoss(), parameters, problem.batches, check_deterministic=False
    ).to_scipy()
    products = 0

    def multiply(block: np.ndarray) -> np.ndarray:
        nonlocal products
        products += 1 if block.ndim == 1 else block.shape[1]
        return linear @ block

    counted = LinearOperator(linear.shape, matvec=multiply, matmat=multiply, dtype=linear.dtype)
    return counted, lambda: products


def _arpack(problem: Exact, seed: int, tolerance: float) -> Answer:
    operator, products = _scipy_operator(problem)
    start, clock = np.random.default_rng(seed).standard_normal(problem.parameters), _Clock()
    values = eigsh(operator, TOP, which="LM", tol=tolerance, v0=start, return_eigenvectors=False)
    return Answer(values, products(), clock.seconds())


def _lobpcg(problem: Exact, seed: int, iterations: float) -> Answer:
    """SciPy's, with a block of TOP vectors; it finds the largest eigenvalues, not those of largest magnitude."""
    operator, products = _scipy_operator(problem)
    start, clock = np.random.default_rng(seed).standard_normal((problem.parameters, TOP)), _Clock()
    values, _ = lobpcg(operator, start, largest=True, tol=1e-12, maxiter=int(iterations))
    return Answer(values, products(), clock.seconds())


_ITERATIONS = range(1, 2048)
_FEW_ITERATIONS = range(1, 128)
_STEPS = range(TOP, 1024)
_CURVLINOPS = "curvlinops-for-pytorch"
_EIGENTHINGS = "hessian-eigenthings"

SOLVERS = (
    Solver("hessketch leading_eigenpairs", _hessketch, "tolerance", _TOLERANCES, own=(1e-3,)),
    Solver("hessketch, Ritz values after so many steps", _hessketch_steps, "steps", _STEPS),
    Solver(
        "subspace iteration, column norms (Papyan 2018)",
        _subspace_iteration(lambda pairs: pairs.paper_values, signed=False, rayleigh_ritz=False),
        "iterations",
        _ITERATIONS,
        own=(256,),
    ),
    Solver(
        "subspace iteration, Rayleigh-Ritz",
        _subspace_iteration(lambda pairs: pairs.values, signed=True, rayleigh_ritz=True),
        "iterations",
        _ITERATIONS,
    ),
    Solver("PyHessian eigenvalues", _pyhessian, "tolerance", _TOLERANCES, own=(1e-3,), distribution="pyhessian"),
    Solver(
        "hessian-eigenthings lanczos", _eigenthings_lanczos, "steps", _STEPS, own=(2 * TOP,), distribution=_EIGENTHINGS
    ),
    Solver(
        "hessian-eigenthings deflated_power_iteration",
        _eigenthings_power,
        "tolerance",
        _TOLERANCES,
        own=(1e-4,),
        distribution=_EIGENTHINGS,
    ),
    Solver("ARPACK on curvlinops", _arpack, "tolerance", _TOLERANCES, own=(1e-2, 1e-3), distribution=_CURVLINOPS),
    Solver("LOBPCG on curvlinops", _lobpcg, "iterations", _FEW_ITERATIONS, distribution=_CURVLINOPS),
)
