"""Times of several candidates, taken in turns, so that a slow minute of the machine is everybody's."""

import gc
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Times:
    """Seconds of one candidate, one entry a round."""

    wall: np.ndarray  # (rounds,)
    cpu: np.ndarray  # (rounds,) of all threads of this process together

    def clock(self, name: str) -> np.ndarray:
        return {"wall": self.wall, "cpu": self.cpu}[name]


@dataclass(frozen=True)
class Ratio:
    """A candidate's time over the reference's of the same round: median and quartiles over rounds."""

    median: float
    low: float
    high: float


def best_clock(device: torch.device, threads: int) -> str:
    """The clock to compare by: CPU time of a single thread, which a busy machine disturbs least, else wall time."""
    return "cpu" if device.type == "cpu" and threads == 1 else "wall"


def _timed(call: Callable[[], object], device: torch.device) -> tuple[float, float]:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    wall, cpu = time.perf_counter(), time.process_time()
    result = call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elapsed = time.perf_counter() - wall, time.process_time() - cpu
    del result  # outside the clock
    return elapsed


def in_turns(
    calls: Mapping[str, Callable[[], object]], rounds: int, device: torch.device, progress: Progress
) -> dict[str, Times]:
    """Calls every candidate once a round and times each call; the first to go changes from round to round.

    Call each once before, so that no round pays for what happens only once.
    """
    names = list(calls)
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    gc.collect()
    for r in range(rounds):
        for i in range(len(names)):
            name = names[(r + i) % len(names)]
            seconds[name].append(_timed(calls[name], device))
            progress(r * len(names) + i + 1, rounds * len(names))
    return {name: Times(*np.array(taken).T) for name, taken in seconds.items()}


def ratio(times: Times, reference: Times, clock: str) -> Ratio:
    """How many of the reference's calls one call costs."""
    low, median, high = np.quantile(times.clock(clock) / reference.clock(clock), [0.25, 0.5, 0.75])
    return Ratio(float(median), float(low), float(high))
