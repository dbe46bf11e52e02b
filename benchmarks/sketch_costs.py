"""What Count-Sketch costs: times of sketching, lifting and drawing hashes, and memory; its estimates are checked."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from benchmarks.csvec import CSVec
from benchmarks.timing import Times, best_clock, in_turns, ratio
from hessketch.linalg.count_sketch import PLACEMENTS, CountSketch
from hessketch.progress import Progress

PEER = "CSVec"
OURS = tuple(f"hessketch, {placement}" for placement in PLACEMENTS)
FASTER_TARGET = 5.0
"""Times that our sketch and median lift together are to be faster than CSVec's, at five rows."""
STORED_TARGET = 0.1
"""Share of CSVec's stored tables that ours may have."""
_RIGHT = 0.1

_FIVE_NORMALS = 0.28683  # variance of the median of five standard normal numbers
_SKETCH, _LIFT, _DRAW = "sketch", "lift", "draw hashes"


def right(error_over_theory: float) -> bool:
    """Whether an estimate's squared error is what theory expects.

    Medians are up to 5 % better, where numbers of collisions vary or a block's coordinates never collide.
    """
    return abs(error_over_theory - 1) <= _RIGHT


@dataclass(frozen=True)
class Case:
    """A sketch of `dimension` numbers to rows x columns, lifted by the rows' `lift`."""

    dimension: int
    rows: int
    columns: int
    lift: str
    target: float | None  # times faster than the peer, if any are promised

    @property
    def label(self) -> str:
        return f"{self.dimension:,} to {self.rows} x {self.columns:,}, {self.lift}"

    @property
    def theory(self) -> float:
        """Expected |estimate - x|^2 / |x|^2 of the lift, by the median where collisions add up to normal numbers."""
        of_row = (self.dimension - 1) / self.columns
        return of_row * (_FIVE_NORMALS if self.lift == "median" else 1 / self.rows)


def cases(dimension: int) -> list[Case]:
    """Five rows whose medians are taken, at the columns that FetchSGD has for ResNet18, and one row at a hundredth."""
    return [
        Case(dimension, 5, round(dimension * 500_000 / 11_173_962), "median", FASTER_TARGET),
        Case(dimension, 1, dimension // 100, "mean", None),
    ]


@dataclass(frozen=True)
class _Candidate:
    draw: Callable[[], CSVec | CountSketch]
    lift: Callable[[CSVec | CountSketch, Tensor], Tensor]


def _candidates(case: Case, device: torch.device) -> dict[str, _Candidate]:
    size = case.dimension, case.rows, case.columns
    made = {PEER: _Candidate(lambda: CSVec(*size, seed=0, device=device), lambda sketch, table: sketch.lift(table))}
    for name, placement in zip(OURS, PLACEMENTS, strict=True):
        made[name] = _Candidate(
            lambda placement=placement: CountSketch(*size, 0, placement=placement, device=device),
            lambda sketch, table: sketch.lift(table, case.lift),
        )
    return made


def measure(case: Case, rounds: int, device: torch.device, threads: int, progress: Progress) -> list[dict]:
    """Rows of the long table: seconds by what is done, times faster than the peer, memory and error, by candidate."""
    x = torch.randn(case.dimension, generator=torch.Generator().manual_seed(0)).to(device)
    candidates = _candidates(case, device)
    sketches = {name: candidate.draw() for name, candidate in candidates.items()}
    errors = {name: _error_over_theory(case, candidates[name], sketches[name], x) for name in candidates}
    times = in_turns(_calls(candidates, sketches, x), rounds, device, progress.stage(f"sketch, {case.label}"))
    clock = best_clock(device, threads)
    rows = []
    for name in candidates:
        both = _together(times, name)
        faster = ratio(_together(times, PEER), both, clock)
        quantities = {f"{what} seconds": _middle(times[name, what], clock) for what in (_SKETCH, _LIFT, _DRAW)} | {
            "together seconds": _middle(both, clock),
            "times faster": faster.median,
            "times faster, lower quartile": faster.low,
            "times faster, upper quartile": faster.high,
            "stored MiB": sketches[name].stored_bytes / 2**20,
            "share of stored": sketches[name].stored_bytes / sketches[PEER].stored_bytes,
            "error over theory": errors[name],
        }
        if case.target is not None:
            quantities["target, times faster"] = case.target
        shared = {"part": "sketch", "problem": case.label, "method": name}
        rows += [{**shared, "quantity": quantity, "value": value} for quantity, value in quantities.items()]
    return rows


def _calls(
    candidates: dict[str, _Candidate], sketches: dict[str, CSVec | CountSketch], x: Tensor
) -> dict[tuple[str, str], Callable[[], object]]:
    calls = {}
    for name, candidate in candidates.items():
        sketch = sketches[name]
        table = sketch.apply(x)
        calls[name, _SKETCH] = lambda sketch=sketch: sketch.apply(x)
        calls[name, _LIFT] = lambda lift=candidate.lift, sketch=sketch, table=table: lift(sketch, table)
        calls[name, _DRAW] = candidate.draw
    return calls


def _together(times: dict[tuple[str, str], Times], name: str) -> Times:
    sketch, lift = times[name, _SKETCH], times[name, _LIFT]
    return Times(sketch.wall + lift.wall, sketch.cpu + lift.cpu)


def _middle(times: Times, clock: str) -> float:
    return float(np.median(times.clock(clock)))


def _error_over_theory(case: Case, candidate: _Candidate, sketch: CSVec | CountSketch, x: Tensor) -> float:
    """Squared error of the estimate of x over what is expected; also everybody's first call."""
    estimate = candidate.lift(sketch, sketch.apply(x)).double()
    return float((estimate - x).square().sum() / x.double().square().sum()) / case.theory
