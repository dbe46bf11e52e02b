"""Where trainings by large and by small batches ended, and which of these ends are compared."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from hessketch.checkpoints import Architecture
from hessketch.data.examples import Examples
from hessketch.errors import InputError
from hessketch.records import read_record
from hessketch.runs import Run
from hessketch.trainers import SGD, Trainer
from hessketch.trajectories import read_trajectory


@dataclass(frozen=True)
class Solution:
    """Where one run ended, with what it was trained on."""

    run: Run
    architecture: Architecture
    weights: Mapping[str, Tensor]  # its network's state_dict after the last step; empty if it diverged
    diverged_at: str | None  # "step 17"
    train: Examples
    test: Examples


@dataclass(frozen=True)
class Pair:
    """Two runs whose ends are compared: 'continued', 'same_start' or 'other_start'."""

    name: str
    first: Run
    second: Run


def read_solution(folder: Path, run: Run, train: Examples, test: Examples) -> Solution:
    """The end of a followed run, from its folder; raises InputError where the last step's weights were not kept."""
    architecture, checkpoints = read_trajectory(folder / "trajectory.safetensors")
    record = read_record(folder / "record.json")
    if record["status"] != "finished":
        return Solution(run, architecture, {}, record["diverged_at"], train, test)
    facts, weights = checkpoints[-1] if checkpoints else ({"step": "none"}, {})
    if facts["step"] != record["steps"]:
        raise InputError(
            f"{run.path}: the last weights kept are of step {facts['step']}, the training ended with step "
            f"{record['steps']}; train it with --keep {record['steps']}"
        )
    return Solution(run, architecture, weights, None, train, test)


def pairs_of(runs: Sequence[Run]) -> list[Pair]:
    """The pairs of runs for each seed of a run by large and then small batches, such as sgd-b250-b10.

    First in each is the run by large batches alone. `continued`: with the one that takes small batches later.
    `same_start`: with the one by small batches alone, from the same initial weights. `other_start`: with that of the
    next seed (the first after the last), from others; none where there is a single seed. Raises InputError for runs
    none of which switches, and for runs that are missing or in no pair.
    """
    cells: dict[Run, list[int]] = {}
    for run in dict.fromkeys(runs):
        if Trainer.parse(run.trainer).later_batch_size is not None:
            cells.setdefault(replace(run, seed=0), []).append(run.seed)
    if not cells:
        raise InputError("no run takes large batches first and small ones later; give one as sgd-b250-b10 among others")
    pairs = [pair for cell, seeds in cells.items() for pair in _pairs_of_cell(cell, seeds)]
    used = {run: pair for pair in pairs for run in (pair.first, pair.second)}
    missing = [run for run in used if run not in runs]
    if missing:
        raise InputError(f"{missing[0].path}: not among the runs, but the pair {used[missing[0]].name} has it; give it")
    unused = [run for run in runs if run not in used]
    if unused:
        raise InputError(f"{unused[0].path}: in no pair; leave it out, or give the run that switches to or from it")
    return pairs


def _pairs_of_cell(cell: Run, seeds: Sequence[int]) -> list[Pair]:
    trainer, pairs = Trainer.parse(cell.trainer), []
    small = Trainer(SGD, batch_size=trainer.later_batch_size).label
    for place, seed in enumerate(seeds):
        first = replace(cell, trainer=trainer.first.label, seed=seed)
        pairs.append(Pair("continued", first, replace(cell, seed=seed)))
        pairs.append(Pair("same_start", first, replace(cell, trainer=small, seed=seed)))
        if len(seeds) > 1:
            other = seeds[(place + 1) % len(seeds)]
            pairs.append(Pair("other_start", first, replace(cell, trainer=small, seed=other)))
    return pairs
