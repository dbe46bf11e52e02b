"""A job of the pipeline as a plan sees it, and what all that list jobs share."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from hessketch.planning.sizes import NetworkSize, Scale
from hessketch.planning.work import NOTHING, Work, krylov, passes
from hessketch.runs import Run

Key = TypeVar("Key")

# Bytes that a pass keeps for each number that the layers give, in float32: for a gradient what goes backwards needs;
# for products on a kept graph also slopes and tangents (measured: 28 to 40, ResNet18 and VGG11 at width 1/16).
GRADIENT_BYTES, GRAPH_BYTES = 12, 30
# Of these examples at once a forward pass in eval mode takes.
EVALUATION_BATCH = 1000
# Steps over pairs that a Lanczos run takes until so many leading eigenpairs have converged, and some.
STEPS_A_PAIR, MORE_STEPS = 2.4, 10


@dataclass(frozen=True, eq=False)
class Job:
    """One job: the rule that runs it, and the jobs whose results it reads."""

    rule: str
    name: str
    work: Work = NOTHING
    after: tuple[str, ...] = ()
    start: str = "job"  # which kind of program it is: one of throughput.STARTS


@dataclass(frozen=True)
class Plan:
    """What jobs are listed from: a filled config, by how much it is enlarged, and bytes that a job may take."""

    config: Mapping[str, Any]
    scale: Scale
    memory: float  # of the device, for one job

    def network(self, run: Run) -> NetworkSize:
        return self.scale.network(run)

    def graphs(self) -> float:
        """Bytes for graphs between products."""
        asked = self.config["spectrum"]["memory_gib"]
        return self.memory / 2 if asked == "auto" else asked * 2**30 / 2

    def products(
        self, kind: str, network: NetworkSize, examples: float, count: float, *, lanczos: bool = False
    ) -> Work:
        """`count` products over so many examples: on kept graphs where they fit, else built anew for each.

        With `lanczos` they are those of one reorthogonalised run.
        """
        size = self.config["spectrum"]["batch_size"]
        take = krylov if lanczos else passes
        work = take(kind, network, examples, count, batch=size)
        kept = GRAPH_BYTES * network.activations * examples
        rebuilt = max(0.0, 1 - self.graphs() / kept) if kept else 0.0
        # To build a graph is to go forwards and backwards once.
        work += passes("gradient", network, examples, rebuilt * count, batch=size)
        work += passes("graph", network, examples, 1, batch=size)
        return work.holding(min(kept, max(self.graphs(), GRAPH_BYTES * network.activations * min(size, examples))))


def evaluated(network: NetworkSize, examples: float, times: float = 1) -> Work:
    """Loss and accuracy over examples."""
    return passes("forward", network, examples, times, batch=EVALUATION_BATCH)


def converged_steps(pairs: float, least: float = 0) -> float:
    """Steps of a Lanczos run until so many leading pairs have converged, at least so many."""
    return max(least, STEPS_A_PAIR * pairs + MORE_STEPS)


def gathered(runs: Iterable[Run], key: Callable[[Run], Key]) -> dict[Key, list[Run]]:
    """Runs by what they share, in their order."""
    together: dict[Key, list[Run]] = {}
    for run in runs:
        together.setdefault(key(run), []).append(run)
    return together


def names(jobs: Iterable[Job]) -> tuple[str, ...]:
    return tuple(job.name for job in jobs)
