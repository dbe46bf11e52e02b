"""Followed trainings from examples to files, one after the other, resuming after a kill."""

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pandas
import torch
from torch import nn

from hessketch.checkpoints import Architecture, parameter_order
from hessketch.curvature.losses import outputs_of
from hessketch.data.examples import Examples
from hessketch.data.of_run import subset_seed
from hessketch.errors import InputError
from hessketch.networks.registry import network_of
from hessketch.progress import Progress
from hessketch.provenance import Stopwatch, code_digest, environment
from hessketch.publishing import publish, waiting_record
from hessketch.records import is_intact, read_metadata, read_tensors, write_record, write_table, write_tensors
from hessketch.runs import Run, rate_of
from hessketch.seeds import derive_seed
from hessketch.trainers import FULL_BATCH, Trainer
from hessketch.training.trajectory import Followed, TrajectorySettings, follow
from hessketch.trajectories import Checkpoint, write_trajectory

FILES = ("trajectory.safetensors", "history.parquet", "record.json")
_COLUMNS = {
    "step": "int64",
    "epoch": "float64",
    **dict.fromkeys(
        ("learning_rate", "train_loss", "train_accuracy", "test_loss", "test_accuracy", "seconds"), "float64"
    ),
}


def seeds_of(run: Run) -> dict[str, int]:
    """Seeds of a followed run by purpose. The initial weights are those of all runs that differ in label noise, batch
    size, training examples or rate alone, so that these are compared from one point. The order of mini-batches is that
    of the run with the first batch size alone, so that both are one training up to the switch."""
    start = f"{run.dataset}/{run.network_label}/{run.loss}"
    unswitched = replace(run, trainer=Trainer.parse(run.trainer).first.label)
    return {
        "subset": subset_seed(run),
        "initialisation": derive_seed(run.seed, start, "trajectory initialisation"),
        "batch order": derive_seed(run.seed, unswitched.path, "batch order"),
    }


def follow_runs(
    runs: Sequence[Run],
    examples_of: Callable[[Run], tuple[Examples, Examples]],
    settings_of: Callable[[Run, Examples], tuple[TrajectorySettings, Sequence[int]]],
    output_of: Callable[[Run], Path],
    *,
    device: torch.device,
    save_every_seconds: float = 30.0,
    progress: Progress | None = None,
) -> list[dict]:
    """Trains runs one after the other and writes FILES into each run's folder; the records.

    `examples_of(run)` gives training and test examples, `settings_of(run, training examples)` the settings and the
    steps whose weights are kept; rate and mini-batches are the run's own, and a switch is taken by runs whose trainer
    names two batch sizes alone. Until all are done, results wait in
    `output_of(run)/partial`, with the state of the run under way: a killed call given again loses neither, and ends
    with the same weights, bit for bit on a CPU. A run that diverges is a result too: its record says where. Raises
    InputError, before any is trained, for a run whose path names no learning rate or no mini-batches, and at its turn
    for one with two batch sizes whose settings name no switch.
    """
    _require_complete(runs)
    progress = progress or Progress("trajectories")
    records = []
    for number, run in enumerate(runs, start=1):
        report = _saying_where_it_goes_on(progress, run, progress.stage(f"run {number} of {len(runs)}, step"))
        folder = output_of(run) / "partial"
        record = _follow_one(run, examples_of, settings_of, folder, device, save_every_seconds, report)
        where = f" at {record['diverged_at']}" if record["diverged_at"] else ""
        progress.say(
            f"{run.path}: {record['status']}{where}, train loss {record['train_loss']:.4g}, "
            f"test accuracy {record['test_accuracy']:.4f}"
        )
        records.append(record)
    for run in runs:
        publish(output_of(run), FILES)
    return records


def _saying_where_it_goes_on(
    progress: Progress, run: Run, report: Callable[[int, int], None]
) -> Callable[[int, int], None]:
    """`report`, whose first call also says from which step a training is continued; of a new one that is 0."""
    begun = False

    def report_steps(done: int, total: int) -> None:
        nonlocal begun
        if not begun and done:
            progress.say(f"{run.path}: continuing from step {done}")
        begun = True
        report(done, total)

    return report_steps


def _require_complete(runs: Sequence[Run]) -> None:
    for run in runs:
        if Trainer.parse(run.trainer).batch_size is None:
            raise InputError(
                f"{run.path}: trainer {run.trainer} given; allowed: sgd-full, or sgd-b50 for batches of 50"
            )
        rate_of(run)


def _follow_one(run, examples_of, settings_of, folder: Path, device: torch.device, save_every: float, report) -> dict:
    watch = Stopwatch()
    train, test = (examples.to(device) for examples in examples_of(run))
    settings, keep_at = settings_of(run, train)
    settings = _of_run(settings, run)
    task = _task(run, settings, keep_at, [len(train), len(test)])
    if (done := waiting_record(folder, FILES, task)) is not None:
        return done
    outputs = outputs_of(run.loss, train.classes)
    architecture = Architecture(run.network, tuple(train.inputs.shape[1:]), outputs, run.width, run.norm)
    seeds = seeds_of(run)
    model = network_of(architecture, seeds["initialisation"]).to(device)
    kept, resume = _Kept(folder / f"kept-{task[:16]}"), folder / "resume.safetensors"  # of another task: not ours
    if not kept.are_intact(resume, keep_at):
        resume.unlink(missing_ok=True)
    result = follow(
        model, run.loss, train, test, settings, seeds["batch order"], keep_at=keep_at,
        keep=lambda facts: kept.add(facts, model), identity={"task": task}, resume_file=resume,
        save_every_seconds=save_every, progress=report,
    )  # fmt: skip
    record = {**_record(run, settings, model, result, train, seeds, device), "task": task, **watch.cost()}
    write_trajectory(folder / FILES[0], architecture, kept.read())
    write_table(pandas.DataFrame(result.history, columns=list(_COLUMNS)).astype(_COLUMNS), folder / FILES[1])
    write_record(record, folder / FILES[2])
    resume.unlink(missing_ok=True)
    kept.remove()
    return record


def _of_run(settings: TrajectorySettings, run: Run) -> TrajectorySettings:
    trainer = Trainer.parse(run.trainer)
    if trainer.later_batch_size and not settings.switch_step:
        raise InputError(
            f"{run.path}: switch_step: 0 given; allowed: the step from which trainer {run.trainer} takes mini-batches "
            f"of {trainer.later_batch_size}, from 1 to {settings.steps - 1}"
        )
    return replace(
        settings,
        learning_rate=rate_of(run),
        batch_size=trainer.batch_size or FULL_BATCH,
        switch_step=settings.switch_step if trainer.later_batch_size else 0,
        later_batch_size=trainer.later_batch_size or 0,
    )


def _task(run: Run, settings: TrajectorySettings, keep_at: Sequence[int], examples: Sequence[int]) -> str:
    """Digest that two trainings share only if one may continue the other, or stand for it.

    `examples` are the numbers of training and test examples: which they are follows from the run.
    """
    task = {"run": run.path, "settings": asdict(settings), "kept": sorted(keep_at), "examples": list(examples)}
    return hashlib.sha256(json.dumps({**task, "code": code_digest()}, sort_keys=True).encode()).hexdigest()


class _Kept:
    """Weights kept so far, each in a file of its own at once: a resumed training is past them."""

    def __init__(self, folder: Path):
        self._folder = folder

    def _path(self, step: int) -> Path:
        return self._folder / f"step{step:09d}.safetensors"

    def add(self, facts: Mapping[str, Any], model: nn.Module) -> None:
        write_tensors(model.state_dict(), self._path(facts["step"]), {"facts": dict(facts)})

    def are_intact(self, resume: Path, keep_at: Sequence[int]) -> bool:
        """Whether all weights can be read that a training which goes on from a saved state would not keep again."""
        if not is_intact(resume):
            return False
        done = read_metadata(resume).get("history", [{"step": 0}])[-1]["step"]
        return all(is_intact(self._path(step)) for step in keep_at if step <= done)

    def read(self) -> list[Checkpoint]:
        """All of them, in the order of their steps."""
        points: list[Checkpoint] = []
        for path in sorted(self._folder.glob("step*.safetensors")):
            state, metadata = read_tensors(path)
            points.append((metadata["facts"], state))
        return points

    def remove(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)


def _record(run: Run, settings, model: nn.Module, result: Followed, train: Examples, seeds, device) -> dict[str, Any]:
    last = result.history[-1]
    return {
        "run": run.path,
        "identity": run.identity(),
        "learning_rate": run.learning_rate,
        "settings": asdict(settings),
        "status": result.status,
        "diverged_at": result.diverged_at,
        "resumed_from_step": result.resumed_from_step,
        "captured_steps": result.captured_steps,
        "epochs": last["epoch"],
        **{name: last[name] for name in ("train_loss", "train_accuracy", "test_loss", "test_accuracy")},
        "steps": last["step"],
        "batch_size": settings.batch_size or len(train),
        "n": len(train),
        "p": sum(parameter.numel() for parameter in model.parameters()),
        "classes": train.classes,
        "seeds": seeds,
        "parameter_order": parameter_order(model),
        "environment": environment(device),
    }
