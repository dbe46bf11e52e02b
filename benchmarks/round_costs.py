"""Rounds a second of a federation: ours, a plain loop over clients, and Flower's simulation, with the same result."""

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from benchmarks.client_rounds import PlainLoop, Task
from benchmarks.flower_round import FlowerSimulation
from benchmarks.timing import Times, in_turns, ratio
from hessketch.curvature.losses import cross_entropy
from hessketch.federated.methods.count_sketch import SketchedAveraging
from hessketch.federated.settings import FederatedSettings
from hessketch.federated.simulation import Simulation
from hessketch.progress import Progress

OURS, LOOP, PLAIN, FLOWER = "hessketch", "hessketch, chunk=1", "plain loop", "Flower"
FASTER_TARGET = 5.0
"""Times Flower's rounds a second that ours are to be."""
AGREEMENT = 1e-3
"""Relative difference of the first round's change of the weights from the plain loop's beyond which it is another one.

Float32 gradients are summed in another order, and five steps pass some rectifiers and maxima on another side.
"""


class Rounds(Protocol):
    """A federation that goes on from round to round."""

    @property
    def weights(self) -> Tensor: ...

    def round(self) -> None: ...


class OurRounds:
    """The simulator of this package, with its own choice of clients computed at once (`chunk` 0), or another."""

    def __init__(self, task: Task, chunk: int):
        model = task.model()
        dimension = sum(parameter.numel() for parameter in model.parameters())
        settings = FederatedSettings(
            learning_rate=task.rate, clients=task.clients, local_steps=task.steps, chunk=chunk, hashes="fresh"
        )
        columns = dimension // task.reduction
        method = SketchedAveraging(dimension, 1, columns, task.seed, device=task.device)
        whole = model, cross_entropy, task.data(), task.parts()
        self._simulation = Simulation(*whole, method, settings, task.seed)

    @property
    def weights(self) -> Tensor:
        return self._simulation.theta

    def round(self) -> None:
        self._simulation.round()


@dataclass(frozen=True)
class Settings:
    """How rounds are timed: how often, and Flower's worker processes and Python (None leaves Flower out)."""

    rounds: int
    workers: int
    flower: str | None


def measure(task: Task, settings: Settings, progress: Progress) -> list[dict]:
    """Rows of the long table: rounds a second, CPU seconds, times Flower's rounds, and agreement, by candidate."""
    with _candidates(task, settings) as candidates:
        differences = _first_rounds(task, candidates, progress)
        calls = {name: candidate.round for name, candidate in candidates.items()}
        times = in_turns(calls, settings.rounds, torch.device(task.device), progress.stage(task.label))
        if FLOWER in candidates:
            of_flower = np.array(candidates[FLOWER].cpu_seconds[-settings.rounds :])
            times[FLOWER] = Times(times[FLOWER].wall, of_flower)
    rows = []
    for name, taken in times.items():
        quantities = {
            "rounds a second": 1 / float(np.median(taken.wall)),
            "CPU seconds": float(np.median(taken.cpu)),
            "relative difference": differences[name],
        }
        if FLOWER in times:
            faster = ratio(times[FLOWER], taken, "wall")
            quantities |= {
                "times faster": faster.median,
                "times faster, lower quartile": faster.low,
                "times faster, upper quartile": faster.high,
                "times less CPU": ratio(times[FLOWER], taken, "cpu").median,
            }
        shared = {"part": "rounds", "problem": task.label, "method": name}
        rows += [{**shared, "quantity": q, "value": v} for q, v in quantities.items() if not math.isnan(v)]
    return rows


@contextlib.contextmanager
def _candidates(task: Task, settings: Settings) -> Iterator[dict[str, Rounds]]:
    made: dict[str, Rounds] = {OURS: OurRounds(task, 0), LOOP: OurRounds(task, 1), PLAIN: PlainLoop(task)}
    if settings.flower is None:
        yield made
        return
    with FlowerSimulation(task, settings.rounds + 1, settings.workers, settings.flower) as simulation:
        yield {**made, FLOWER: simulation}


def _first_rounds(task: Task, candidates: dict[str, Rounds], progress: Progress) -> dict[str, float]:
    """Relative differences after everybody's first round, which is not timed: Flower's starts its workers."""
    start = candidates[PLAIN].weights.cpu().double()
    after = {}
    for name, candidate in candidates.items():
        candidate.round()
        after[name] = candidate.weights.cpu().double()
    scale = (after[PLAIN] - start).norm()
    differences = {name: float((weights - after[PLAIN]).norm() / scale) for name, weights in after.items()}
    for name, difference in differences.items():
        if difference > AGREEMENT:
            progress.say(f"{task.label}: {name} changes the weights otherwise, by {difference:.1e} of the change")
    return differences
