"""What one product costs, in gradients of the same examples: ours and the others', and whether targets are met."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from benchmarks import memory, scratch
from benchmarks.peers import OPERATORS, OURS, Candidate, Product, available
from benchmarks.problems import Timed, unit_vector
from benchmarks.timing import Ratio, best_clock, in_turns, ratio
from hessketch.progress import Progress

TARGETS = {
    ("vgg11", "hessian"): 2.3,
    ("resnet18", "hessian"): 2.8,
    ("vgg11", "ggn"): 1.35,
    ("vgg11", "together"): 3.0,
    ("resnet18", "together"): 3.0,
}
"""Gradients that our product may cost, by network and operator."""

RELATIVE_TARGETS = {"hessian": ("double backward", 0.70), "ggn": ("curvlinops", 0.60)}
"""By operator, a candidate and the share of its time that ours may take."""

AGREEMENT = 1e-3
"""Relative difference from our product beyond which a candidate multiplies with something else: it cannot be best."""

_GRADIENT = "gradient"


@dataclass(frozen=True)
class Settings:
    """What is measured alike on every network."""

    rounds: int
    device: torch.device
    threads: int
    with_memory: bool


@dataclass(frozen=True)
class Cost:
    """One candidate's product of one operator on one network."""

    candidate: str
    ratio: Ratio
    seconds: float  # median of a product, by the clock of the ratios
    difference: float  # |product - ours| / |ours|
    memory_mib: float  # NaN where it was not measured


def measure(problem: Timed, settings: Settings, progress: Progress) -> list[dict]:
    """Rows of the long table: every quantity of `Cost` for every operator and candidate."""
    rows = []
    for operator in OPERATORS:
        for cost in operator_costs(problem, operator, settings, progress):
            quantities = {
                "gradients": cost.ratio.median,
                "gradients, lower quartile": cost.ratio.low,
                "gradients, upper quartile": cost.ratio.high,
                "seconds": cost.seconds,
                "relative difference": cost.difference,
                "memory in MiB": cost.memory_mib,
            }
            shared = {"part": "products", "problem": problem.label, "operator": operator, "method": cost.candidate}
            shared["choice"] = f"{problem.examples} images in batches of {problem.batch}"
            rows += [{**shared, "quantity": q, "value": v} for q, v in quantities.items() if not math.isnan(v)]
    return rows


def operator_costs(problem: Timed, operator: str, settings: Settings, progress: Progress) -> list[Cost]:
    """Costs of one operator, ours first. Each product is compared with ours before any is timed."""
    title = f"{problem.label}, {operator}"
    vector = unit_vector(problem.parameters, settings.device)
    candidates = available(operator)
    memories = {c.name: _memory(problem, operator, c, vector, settings) for c in candidates}
    made = {c.name: c.makers[operator](problem.model, problem.batches) for c in candidates}
    differences = _differences(made, vector)
    for name, difference in list(differences.items())[1:]:
        progress.say(f"{title}: {name} differs from {OURS} by {difference:.1e}")
    calls = {name: _call(product, vector) for name, product in made.items()}
    calls[_GRADIENT] = _call(scratch.gradient(problem.model, problem.batches), vector)
    calls[_GRADIENT]()
    times = in_turns(calls, settings.rounds, settings.device, progress.stage(title))
    clock = best_clock(settings.device, settings.threads)
    seconds = {name: float(np.median(t.clock(clock))) for name, t in times.items()}
    ratios = {name: ratio(t, times[_GRADIENT], clock) for name, t in times.items()}
    return [Cost(n, ratios[n], seconds[n], differences[n], memories[n]) for n in made]


def _call(product: Product, vector: Tensor) -> Callable[[], Tensor]:
    return lambda: product(vector)


def _differences(made: dict[str, Product], vector: Tensor) -> dict[str, float]:
    """Relative distance of each product from ours, accumulated in float64; also everybody's first call."""
    ours = made[OURS](vector).double()
    scale = ours.norm()
    return {n: float((product(vector).detach().double() - ours).norm() / scale) for n, product in made.items()}


def _memory(problem: Timed, operator: str, candidate: Candidate, vector: Tensor, settings: Settings) -> float:
    if settings.device.type == "cuda":
        return memory.on_device(candidate.makers[operator], problem.model, problem.batches, vector)
    if not settings.with_memory:
        return math.nan
    where = problem.network, problem.width, problem.examples, problem.batch
    return memory.of_process(*where, operator, candidate.name)
