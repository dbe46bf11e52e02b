"""Federated trainings from examples to files, one after the other, resuming after a kill."""

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas
import torch
from torch import distributed

from hessketch.checkpoints import save_model
from hessketch.curvature.losses import evaluation, loss_function
from hessketch.data.examples import Examples
from hessketch.data.of_run import subset_seed
from hessketch.errors import InputError
from hessketch.federated.record import record_of, summary
from hessketch.federated.settings import FederatedSettings
from hessketch.federated.training import EVALUATION_BATCH, Keeping, Training, begin, resume, seeds_of, train_rounds
from hessketch.progress import Progress
from hessketch.provenance import code_digest
from hessketch.publishing import publish, waiting_record
from hessketch.records import write_record, write_table
from hessketch.runs import Run, rate_of
from hessketch.trajectories import write_trajectory

FILES = ("model.safetensors", "rounds.parquet", "checkpoints.safetensors", "record.json")
COLUMNS = (
    "round", "server_rate", "train_loss", "train_accuracy", "test_loss", "test_accuracy", "update_norm", "lift_error",
    "lift_error_theory", "error_norm", "upload_bytes", "download_bytes", "participants", "seconds",
)  # fmt: skip
"""Columns of rounds.parquet, see `Simulation.round`; test loss and accuracy NaN but after 20 rounds and the last."""
_WHOLE = ("round", "participants")  # int64; the others are float64


def federate_runs(
    runs: Sequence[Run],
    examples_of: Callable[[Run], tuple[Examples, Examples]],
    settings: FederatedSettings,
    output_of: Callable[[Run], Path],
    *,
    device: torch.device,
    checkpoint_rounds: Sequence[int] = (),
    checkpoint_losses: Sequence[float] = (),
    save_every_seconds: float = 30.0,
    group: distributed.ProcessGroup | None = None,
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """Trains federated runs one after the other and writes FILES into each run's folder; the records.

    `examples_of(run)` gives its training and test examples; a run's own learning rate takes the place of the settings'.
    Weights are kept after `checkpoint_rounds`, and where the training loss first was at most each `checkpoint_losses`.
    Until all are done, results wait in `output_of(run)/partial` with the state of the run under way, saved every
    `save_every_seconds`: a killed call given again loses neither, and ends with the same weights, bit for bit on a CPU.
    A run that diverges is a result too: its record says where, and its weights are the last finite ones.

    The training loss of a round is taken on the way, over the participants (first mini-batches, in training mode): that
    is the loss which `checkpoint_losses` are compared with. Raises InputError for `checkpoint_rounds` that do not
    exist, and before a run's first round for what makes no federation of it.

    With a process `group` (torchrun) each process simulates its share of the clients, the first writes, and a run that
    was killed begins anew.
    """
    _require_checkpoints(checkpoint_rounds, checkpoint_losses, settings.rounds)
    save_every = save_every_seconds if group is None else math.inf
    keeping = Keeping(tuple(checkpoint_rounds), tuple(dict.fromkeys(checkpoint_losses)), save_every)
    progress = progress or Progress("federate")
    report, total = progress.stage("round"), settings.rounds * len(runs)
    writes = group is None or distributed.get_rank(group) == 0
    records = []
    for number, run in enumerate(runs):
        folder = output_of(run) / "partial"
        of_run = replace(settings, learning_rate=rate_of(run))
        identity = _identity(run, of_run, keeping)
        record = waiting_record(folder, FILES, identity) if group is None else None
        if record is None:
            examples, test = (part.to(device) for part in examples_of(run))
            training = begin(run, examples, of_run, folder, identity, keeping, group)
            if group is None:
                resume(training)
            train_rounds(training, test, partial(_report_after, report, number * settings.rounds, total))
            record = _finish(training, examples, test, writes)
        progress.say(summary(record))
        records.append(record)
    for run in runs if writes else ():
        publish(output_of(run), FILES)
    return records


def _require_checkpoints(rounds: Sequence[int], losses: Sequence[float], last: int) -> None:
    beyond = [number for number in rounds if not 1 <= number <= last]
    if beyond:
        raise InputError(f"weights of round {beyond[0]} asked for; allowed: rounds 1 to {last}")
    if any(not 0 < target < math.inf for target in losses):
        raise InputError(f"weights at training losses {list(losses)} asked for; allowed: numbers above 0")


def _report_after(report: Callable[[int, int], None], before: int, total: int, done: int) -> None:
    report(before + done, total)


def _identity(run: Run, settings: FederatedSettings, keeping: Keeping) -> str:
    """Text that two trainings share only if one may continue the other, or stand for it."""
    kept = {"rounds": list(keeping.rounds), "losses": list(keeping.losses)}
    task = {"run": run.path, "settings": asdict(settings), **kept, "code": code_digest()}
    return hashlib.sha256(json.dumps(task, sort_keys=True).encode()).hexdigest()


def _finish(training: Training, train: Examples, test: Examples, writes: bool) -> dict[str, Any]:
    """The record, and, for the process that writes, the run's files in its folder of unpublished results."""
    simulation = training.simulation
    splits = {"train": train.batches(EVALUATION_BATCH), "test": test.batches(EVALUATION_BATCH)}
    record = {
        **record_of(training.run, simulation, training.rows, training.diverged_at),
        **evaluation(simulation.model, loss_function(training.run.loss), **splits),
        "task": training.identity,
        "resumed_from_round": training.resumed_from,
        "seeds": {"subset": subset_seed(training.run), **seeds_of(training.run)},
        **training.watch.cost(),
    }
    if not writes:
        return record
    folder, run = training.folder, training.run
    write_trajectory(folder / "checkpoints.safetensors", training.architecture, training.checkpoints)
    model = folder / "model.safetensors"
    save_model(simulation.model, training.architecture, model, run=run.path, status=record["status"])
    rows = pandas.DataFrame(training.rows, columns=COLUMNS)
    kinds = {column: "int64" if column in _WHOLE else "float64" for column in COLUMNS}
    write_table(rows.astype(kinds), folder / "rounds.parquet")
    write_record(record, folder / "record.json")
    (folder / "resume.safetensors").unlink(missing_ok=True)
    return record
