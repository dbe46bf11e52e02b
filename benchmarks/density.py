"""How far an estimated spectrum is from the exact one, against the products that it took."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import wasserstein_distance

from benchmarks.trained import TOP, Exact
from hessketch.curvature.losses import cross_entropy
from hessketch.curvature.operators import CurvatureOperator
from hessketch.linalg.density import Density
from hessketch.linalg.fast_spectrum import FastSettings, fast_spectrum
from hessketch.linalg.paper_spectrum import PaperSettings, paper_spectrum
from hessketch.linalg.spectrum import SpectrumPart
from hessketch.progress import Progress

STEPS = (16, 32, 64, 128, 256)
START_VECTORS = (1, 2)  # of the fast method; the paper takes one


@dataclass(frozen=True)
class Estimate:
    """A spectrum as points with weights, once as Ritz values and once as a smooth curve.

    `taken_out` are eigenvalues that the method found one by one; in points and curve they stand at zero.
    """

    method: str
    products: int
    values: np.ndarray  # (m,) Ritz values
    weights: np.ndarray  # (m,) sum to 1
    curve: Density  # as the method plots it
    taken_out: np.ndarray  # (k,), k may be 0


def measure(problem: Exact, seeds: Sequence[int], progress: Progress) -> list[dict]:
    """Rows of the long table: distances of every estimate and its products, from every seed."""
    rows = []
    report = progress.stage(f"density, {problem.name}")
    for done, steps in enumerate(STEPS, start=1):
        for seed in seeds:
            for estimate in (*paper_estimates(problem, steps, seed), *fast_estimates(problem, steps, seed)):
                rows += _rows(problem, estimate, steps, seed)
        report(done, len(STEPS))
    return rows


def _rows(problem: Exact, estimate: Estimate, steps: int, seed: int) -> list[dict]:
    curve = estimate.curve
    quantities = {
        "products": estimate.products,
        "distance of Ritz values": distance(problem, estimate.values, estimate.weights, estimate.taken_out),
        "distance of curve": distance(problem, curve.eigenvalues, np.maximum(curve.density, 0), estimate.taken_out),
    }
    shared = {"part": "density", "problem": problem.name, "operator": "hessian", "method": estimate.method}
    chosen = {"choice": f"{steps} steps", "seed": seed}
    return [{**shared, **chosen, "quantity": quantity, "value": value} for quantity, value in quantities.items()]


def distance(problem: Exact, values: np.ndarray, weights: np.ndarray, taken_out: np.ndarray) -> float:
    """Wasserstein-1 distance to the exact spectrum over the width of the bulk, which is all but the TOP largest.

    Eigenvalues that were taken out are zero on both sides, and their own errors are added, each of weight 1/p.
    """
    by_magnitude = np.argsort(-np.abs(problem.spectrum))
    leading, rest = problem.spectrum[by_magnitude[: len(taken_out)]], problem.spectrum[by_magnitude[len(taken_out) :]]
    exact = np.concatenate([rest, np.zeros(len(taken_out))])
    errors = np.abs(np.sort(leading) - np.sort(taken_out)).sum() / problem.parameters
    width = np.ptp(problem.spectrum[by_magnitude[TOP:]])
    return float((wasserstein_distance(exact, values, v_weights=weights) + errors) / width)


def _operator(problem: Exact) -> CurvatureOperator:
    return CurvatureOperator("hessian", problem.model, cross_entropy, problem.batches)


def paper_estimates(problem: Exact, steps: int, seed: int) -> list[Estimate]:
    """Papyan's protocol with `steps` Lanczos steps and one start vector, else as configured: as it is and deflated."""
    settings = PaperSettings(lanczos_steps=steps, deflation_rank=TOP)
    spectrum = paper_spectrum(_operator(problem), settings, torch.Generator().manual_seed(seed))
    raw, deflated = spectrum.parts
    of_raw = settings.normalization_steps + steps
    of_deflated = spectrum.products - of_raw
    return [
        _of_part("paper, not deflated", raw, of_raw, np.empty(0)),
        _of_part("paper, deflated", deflated, of_deflated, spectrum.pairs.values),
    ]


def fast_estimates(problem: Exact, steps: int, seed: int) -> list[Estimate]:
    """Our method, of which the first run takes at least `steps` steps: the part without the leading eigenvalues."""
    estimates = []
    for count in START_VECTORS:
        settings = FastSettings(top=TOP, lanczos_steps=steps, start_vectors=count)
        spectrum = fast_spectrum(_operator(problem), settings, torch.Generator().manual_seed(seed))
        deflated = next(part for part in spectrum.parts if part.deflated)
        name = f"fast, {count} start vector{'s' if count > 1 else ''}"
        estimates.append(_of_part(name, deflated, spectrum.products, spectrum.pairs.values))
    return estimates


def _of_part(method: str, part: SpectrumPart, products: int, taken_out: np.ndarray) -> Estimate:
    """The mean measure of the part's start vectors."""
    values = np.concatenate([pairs.values for pairs in part.ritz])
    weights = np.concatenate([pairs.weights for pairs in part.ritz]) / len(part.ritz)
    return Estimate(method, products, values, weights, part.density, taken_out)
