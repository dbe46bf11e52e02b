"""Exact spectra along followed trainings, from trajectories to tables on disk, resuming after a kill."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas
import torch
from torch import Tensor

from hessketch.checkpoints import Architecture
from hessketch.curvature.job import tensors_digest
from hessketch.data.examples import Examples
from hessketch.data.followed_runs import Followed, point_columns
from hessketch.described import described, require_allowed
from hessketch.errors import InputError, NotFiniteError
from hessketch.landscape.exact_spectra import exact_spectra, require_exact, spectra_tables
from hessketch.networks.registry import network_of
from hessketch.progress import Progress
from hessketch.provenance import Stopwatch, environment
from hessketch.runs import Run
from hessketch.waiting_tables import WaitingTables, with_columns

TABLES = ("spectra", "alignments")


@dataclass(frozen=True)
class SpectraSettings:
    """What is measured at each checkpoint; see `exact_spectra`."""

    top: int = described(0, "leading eigenvectors that are compared; 0: one a class and one more")
    max_parameters: int = described(20_000, "largest network whose matrices are formed and decomposed whole")

    def __post_init__(self) -> None:
        """Raises InputError for values that no measurement could use."""
        rules = {
            "top": (self.top >= 0, "a whole number of at least 0"),
            "max_parameters": (self.max_parameters >= 1, "a whole number of at least 1"),
        }
        require_allowed(self, rules)


def spectra_of_runs(
    runs: Sequence[Run],
    followed: Callable[[Run], Followed],
    settings: SpectraSettings,
    output: Path,
    *,
    device: torch.device,
    memory: int | None = None,
    progress: Progress | None = None,
) -> dict:
    """Exact spectra at every checkpoint of every run; writes TABLES and `record.json` into `output`; the record.

    Each row starts with the columns of `point_columns`; what follows is that of `spectra_tables`. The tables of a
    finished checkpoint are kept in `output/partial` until all are done, so that a killed job goes on where it was.
    Checkpoints of a run that diverged whose numbers are too large to be measured are left out, and the record says why.
    Before anything is measured, raises InputError for a network of more than `max_parameters` or whose matrices exceed
    `memory` bytes (default: what is free on the device), and for a run of which no weights were kept. Errors of a run
    that did not diverge name run and step.
    """
    progress, watch = progress or Progress("exact spectra"), Stopwatch()
    for run in runs:
        _require_measurable(followed(run), settings, device, memory)
    waiting = WaitingTables(output, TABLES)
    for number, run in enumerate(runs, start=1):
        one = followed(run)
        train = one.train.to(device)
        data = tensors_digest([one.train.inputs, one.train.targets])
        for place, (facts, state) in enumerate(one.checkpoints, start=1):
            folder = waiting.part(_task(one, facts, state, data, settings))
            where = f"{run.path}, step {facts['step']}"
            if waiting.is_done(folder):
                progress.say(f"{where}: already measured, resumed")
                continue
            progress.say(f"run {number} of {len(runs)}, checkpoint {place} of {len(one.checkpoints)}: {where}")
            clock, left_out = Stopwatch(), None
            try:
                tables = _measured(one, facts, state, train, settings, device, memory, progress)
            except (NotFiniteError, InputError) as error:
                if one.finished:
                    raise type(error)(f"{where}: {error}") from error
                # InputError too: weights beyond all measure give products that are not symmetric.
                progress.say(f"{where}: left out ({error})")
                tables, left_out = _nothing(one, facts), str(error)
            record = {"run": run.path, "step": facts["step"], "seconds": clock.seconds(), "left_out": left_out}
            waiting.keep(folder, tables, record)
    return waiting.publish({"settings": asdict(settings), "environment": environment(device), **watch.cost()})


def parameters_of(architecture: Architecture) -> int:
    """How many parameters a network has."""
    return sum(parameter.numel() for parameter in network_of(architecture).parameters())


def _require_measurable(one: Followed, settings: SpectraSettings, device: torch.device, memory: int | None) -> None:
    """InputErrors that would end the job later, named by their run."""
    if not one.checkpoints:
        raise InputError(f"{one.run.path}: no weights were kept; keep those of some steps")
    p, top = parameters_of(one.architecture), settings.top or one.train.classes + 1
    try:
        require_exact(p, len(one.train), one.architecture.classes, device, memory, settings.max_parameters)
    except InputError as error:
        raise InputError(f"{one.run.path}: {error}") from error
    if top > p:
        raise InputError(f"{one.run.path}: {top} leading eigenvectors asked of {p} parameters; allowed: 1 to {p}")


def _task(
    one: Followed, facts: dict[str, Any], state: Mapping[str, Tensor], data: str, settings: SpectraSettings
) -> dict[str, Any]:
    """What a checkpoint's tables depend on."""
    return {
        "run": one.run.path,
        "facts": dict(facts),
        "tensors": tensors_digest(list(state.values())),
        "data": data,
        "settings": asdict(settings),
        "finished": one.finished,
    }


def _point(one: Followed, facts: dict[str, Any], parameters: int) -> dict[str, Any]:
    return point_columns(one, facts, parameters, kind="step", time=facts["step"])


def _measured(
    one: Followed,
    facts: dict[str, Any],
    state: Mapping[str, Tensor],
    train: Examples,
    settings: SpectraSettings,
    device: torch.device,
    memory: int | None,
    progress: Progress,
) -> dict[str, pandas.DataFrame]:
    model = network_of(one.architecture)
    model.load_state_dict(dict(state))
    top = settings.top or one.train.classes + 1
    spectra = exact_spectra(model.to(device).eval(), one.run.loss, train, top=top, memory=memory, progress=progress)
    point = _point(one, facts, len(spectra["hessian"].eigenvalues))
    return {name: with_columns(point, table) for name, table in spectra_tables(spectra, top).items()}


def _nothing(one: Followed, facts: dict[str, Any]) -> dict[str, pandas.DataFrame]:
    """Tables of no rows, the point's columns alone."""
    point = _point(one, facts, parameters_of(one.architecture))
    return dict.fromkeys(TABLES, with_columns(point, pandas.DataFrame(index=[0])).iloc[:0])
