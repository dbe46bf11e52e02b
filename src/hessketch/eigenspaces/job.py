"""Everything that is measured of masks and eigenspaces, from kept weights to tables on disk, resuming after a kill."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from hessketch.curvature.job import tensors_digest
from hessketch.eigenspaces.measuring import Measuring
from hessketch.eigenspaces.settings import EigenspaceSettings
from hessketch.eigenspaces.subjects import Subject
from hessketch.eigenspaces.tables import TABLES, joined
from hessketch.errors import InputError
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
    each run: more pairs than parameters or than measurements allow, or too few examples, are errors before anything is
    measured. Raises InputError for these, for weights and products that cannot be measured naming run and point
    (NotFiniteError for NaN), and where eigenspaces to be compared do not fit onto the disk.
    """
    progress, watch = progress or Progress("eigenspaces"), Stopwatch()
    _require_allowed(map(subject_of, runs), settings)
    waiting = WaitingTables(output, TABLES)
    for number, run in enumerate(runs, start=1):
        subject = subject_of(run)
        folder = waiting.part(_task(subject, settings))
        if waiting.is_done(folder):
            progress.say(f"{run.path}: already measured, resumed")
            continue
        progress.say(f"run {number} of {len(runs)}: {run.path}")
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


def _require_allowed(subjects: Iterable[Subject], settings: EigenspaceSettings) -> None:
    """Raises InputError naming every run whose network has too few parameters for the settings."""
    problems = [f"{s.run.path}: {problem}" for s in subjects if (problem := _problem(s, settings))]
    if problems:
        raise InputError("; ".join(problems))


def _problem(subject: Subject, settings: EigenspaceSettings) -> str:
    model = network_of(subject.architecture)
    p = sum(parameter.numel() for parameter in model.parameters())
    pairs = settings.pairs_of(p)
    if pairs >= p:
        return (
            f"{pairs} pairs asked for, the network has {p} parameters; allowed: fewer than {p} pairs (a mask of all "
            "tells nothing), or a wider network"
        )
    if "sketched" in settings.methods:
        count = settings.measurements_of(pairs)
        least = 2 * pairs if settings.sketch_method == "paper" else pairs
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
