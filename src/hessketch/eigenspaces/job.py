"""Everything that is measured of masks and eigenspaces, from kept weights to tables on disk, resuming after a kill."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from hessketch.curvature.job import tensors_digest
from hessketch.eigenspaces.measuring import Measuring
from hessketch.eigenspaces.room import Needs, Size
from hessketch.eigenspaces.settings import EigenspaceSettings
from hessketch.eigenspaces.subjects import Subject
from hessketch.eigenspaces.tables import TABLES, joined
from hessketch.errors import InputError
from hessketch.linalg.sketch_sizes import least_measurements
from hessketch.networks.registry import network_of
from hessketch.progress import Progress
from hessketch.provenance import Stopwatch, environment
from hessketch.runs import Run
from hessketch.waiting_tables import WaitingTables


def measure_runs(
    runs: Sequence[Run],
    subject_of: Callable[[Run], Subject],
    settings: EigenspaceSettings,
    output: Path,
    *,
    device: torch.device,
    memory: int | None = None,
    progress: Progress | None = None,
) -> dict:
    """Measures every run and writes TABLES and `record.json` into `output`; the record.

    At each of a subject's points and for each of the settings' splits and methods ('exact' only for networks of up to
    `exact_up_to` parameters): the columns of `point_columns`, split and method, then those of `mask_tables` (overlaps,
    layers, metrics), rank, eigenvalue and residual (eigenvalues), and those of `quality`. `stability` has the run, n, p
    and classes and the columns STABILITY. `memory` bounds in bytes what is kept at once.

    What was measured of a point and split waits in `output/partial` until all runs are done, and so do the eigenspaces
    of the stability, (p, k) float32 each: a killed job goes on with the point it was in. Points of a run that diverged
    whose numbers are too large to be measured are left out, and the record says why. `subject_of` is called twice for
    each run: more pairs than parameters or than measurements allow, too few examples, and more memory or disk than
    there is are errors before anything is measured. Raises InputError for these, naming every run, and for weights and
    products that cannot be measured naming run and point (NotFiniteError for NaN).
    """
    progress, watch = progress or Progress("eigenspaces"), Stopwatch()
    waiting = WaitingTables(output, tuple(TABLES))
    folders: list[Path] = []
    problems: list[str] = []
    for subject in map(subject_of, runs):
        folders.append(waiting.part(_task(subject, settings)))
        if not waiting.is_done(folders[-1]) and (problem := _problem(subject, settings, device, memory, folders[-1])):
            problems.append(f"{subject.run.path}: {problem}")
    if problems:
        raise InputError("; ".join(problems))
    for number, (run, folder) in enumerate(zip(runs, folders, strict=True), start=1):
        if waiting.is_done(folder):
            progress.say(f"{run.path}: already measured, resumed")
            continue
        progress.say(f"run {number} of {len(runs)}: {run.path}")
        subject = subject_of(run)
        measuring = Measuring(subject, settings, folder, device, memory, progress)
        tables = measuring.tables()
        waiting.keep(folder, tables, {"run": run.path, **measuring.facts()})
        measuring.forget()
    record = {
        "settings": asdict(settings),
        "network_mode": "eval: batch norm frozen at its running statistics",
        "environment": environment(device),
        **watch.cost(),
    }
    return waiting.publish(record, joined)


def _problem(
    subject: Subject, settings: EigenspaceSettings, device: torch.device, memory: int | None, folder: Path
) -> str:
    """Why a run cannot be measured, with what could be: too few parameters for the settings, or too little room."""
    parameters = list(network_of(subject.architecture).parameters())
    p = sum(parameter.numel() for parameter in parameters)
    problem = _wrong_counts(p, settings)
    if not problem:
        needs = Needs(Size(p, parameters[0].dtype, device), settings, memory, folder)
        try:
            if subject.points:
                needs.require_points()
            needs.require_stability(len(subject.stability))
        except InputError as error:
            return str(error)
    return problem


def _wrong_counts(p: int, settings: EigenspaceSettings) -> str:
    pairs = settings.pairs_of(p)
    if pairs >= p:
        return (
            f"{pairs} pairs asked for, the network has {p} parameters; allowed: fewer than {p} pairs (a mask of all "
            "tells nothing), or a wider network"
        )
    if "sketched" in settings.methods:
        count = settings.measurements_of(pairs)
        least = least_measurements(pairs, settings.sketch_method)
        if not least <= count <= p:
            return (
                f"{pairs} pairs with {count} measurements asked for, the network has {p} parameters; allowed: "
                f"measurements from {least} to {p}; ask for fewer pairs, or leave sketched out of the methods"
            )
    if settings.methods == ("exact",) and p > settings.exact_up_to:
        return f"{p} parameters, exact_up_to is {settings.exact_up_to}; raise it, or add sketched to the methods"
    return ""


def _task(subject: Subject, settings: EigenspaceSettings) -> dict[str, Any]:
    """What a run's tables depend on."""
    points = [*subject.points, *subject.stability]
    tensors = [tensor for point in points for tensor in point.state.values()]
    data = [t for examples in (subject.train, subject.test) for t in (examples.inputs, examples.targets)]
    return {
        "run": subject.run.path,
        "points": [[point.name, dict(point.facts)] for point in points],
        "stability": [point.name for point in subject.stability],
        "tensors": tensors_digest([*tensors, *data]),
        "settings": asdict(settings),
        "n": subject.n,
        "finished": subject.finished,
    }
