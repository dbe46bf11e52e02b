"""Federated trainings from examples to files, one after the other, resuming after a kill."""

import hashlib
import json
import math
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import pandas
import torch
from torch import distributed

from hessketch.checkpoints import Architecture, save_model
from hessketch.curvature.losses import evaluation, loss_function, mean_loss_and_accuracy, outputs_of
from hessketch.data.examples import Examples
from hessketch.data.of_run import subset_seed
from hessketch.errors import InputError, NotFiniteError
from hessketch.federated.methods.registry import build_method
from hessketch.federated.partition import partition, partition_seed
from hessketch.federated.record import record_of, summary
from hessketch.federated.resume import read_state, save_state
from hessketch.federated.settings import FederatedSettings
from hessketch.federated.simulation import DIVERGED, Simulation
from hessketch.networks.registry import network_of
from hessketch.progress import Progress
from hessketch.provenance import Stopwatch, code_digest
from hessketch.publishing import publish, waiting_record
from hessketch.records import write_record, write_table
from hessketch.runs import Run
from hessketch.schedules import is_due
from hessketch.seeds import derive_seed
from hessketch.trainers import Trainer
from hessketch.trajectories import Checkpoint, read_trajectory, write_trajectory

FILES = ("model.safetensors", "rounds.parquet", "checkpoints.safetensors", "record.json")
_EVALUATIONS = 20
_EVALUATION_BATCH = 1000
COLUMNS = (
    "round", "server_rate", "train_loss", "train_accuracy", "test_loss", "test_accuracy", "update_norm", "lift_error",
    "lift_error_theory", "error_norm", "upload_bytes", "download_bytes", "participants", "seconds",
)  # fmt: skip
"""Columns of rounds.parquet, see `Simulation.round`; test loss and accuracy NaN but after 20 rounds and the last."""
_WHOLE = ("round", "participants")  # int64; the others are float64


def seeds_of(run: Run) -> dict[str, int]:
    """Seeds of a federated run by purpose. All but that of the hashes are the same for all trainers and rates, so that
    methods are compared on the same clients, from the same weights."""
    data = f"{run.dataset}/n{'all' if run.examples_per_class is None else run.examples_per_class}"
    return {
        "partition": partition_seed(run.seed, run.dataset, run.examples_per_class),
        "initialisation": derive_seed(run.seed, f"{data}/{run.network_label}/{run.loss}", "federated initialisation"),
        "clients": derive_seed(run.seed, data, "participants and mini-batches"),
        "hashes": derive_seed(run.seed, run.path, "hashes"),
    }


@dataclass
class _Training:
    """One run under way."""

    run: Run
    simulation: Simulation
    architecture: Architecture
    folder: Path
    identity: str
    watch: Stopwatch
    rows: list[dict] = field(default_factory=list)
    checkpoints: list[Checkpoint] = field(default_factory=list)
    diverged_at: str | None = None
    resumed_from: int = 0


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
) -> list[dict]:
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
    beyond = [number for number in checkpoint_rounds if not 1 <= number <= settings.rounds]
    if beyond:
        raise InputError(f"weights of round {beyond[0]} asked for; allowed: rounds 1 to {settings.rounds}")
    if any(not 0 < target < math.inf for target in checkpoint_losses):
        raise InputError(f"weights at training losses {list(checkpoint_losses)} asked for; allowed: numbers above 0")
    checkpoint_losses = list(dict.fromkeys(checkpoint_losses))
    progress = progress or Progress("federate")
    report = progress.stage("round")
    writes = group is None or distributed.get_rank(group) == 0
    total = settings.rounds * len(runs)
    records = []
    for number, run in enumerate(runs):
        folder = output_of(run) / "partial"
        of_run = replace(settings, learning_rate=run.learning_rate)
        identity = _identity(run, of_run, checkpoint_rounds, checkpoint_losses)
        record = waiting_record(folder, FILES, identity) if group is None else None
        if record is None:
            train, test = (examples.to(device) for examples in examples_of(run))
            training = _begin(run, train, of_run, folder, identity, group)
            if group is None:
                _resume(training)
            before = number * settings.rounds
            _train(
                training,
                test,
                checkpoint_rounds,
                checkpoint_losses,
                save_every_seconds if group is None else math.inf,
                lambda done, before=before: report(before + done, total),
            )
            record = _finish(training, train, test, writes)
        progress.say(summary(record))
        records.append(record)
    for run in runs if writes else ():
        publish(output_of(run), FILES)
    return records


def _identity(run: Run, settings: FederatedSettings, rounds: Sequence[int], losses: Sequence[float]) -> str:
    """Text that two trainings share only if one may continue the other, or stand for it."""
    task = {"run": run.path, "settings": asdict(settings), "rounds": list(rounds), "losses": list(losses)}
    return hashlib.sha256(json.dumps({**task, "code": code_digest()}, sort_keys=True).encode()).hexdigest()


def _begin(
    run: Run,
    train: Examples,
    settings: FederatedSettings,
    folder: Path,
    identity: str,
    group: distributed.ProcessGroup | None,
) -> _Training:
    watch = Stopwatch()
    seeds, device = seeds_of(run), train.inputs.device
    outputs = outputs_of(run.loss, train.classes)
    architecture = Architecture(run.network, tuple(train.inputs.shape[1:]), outputs, run.width, run.norm)
    model = network_of(architecture, seeds["initialisation"]).to(device)
    dimension = sum(parameter.numel() for parameter in model.parameters())
    trainer = Trainer.parse(run.trainer)
    method = build_method(trainer, dimension, settings, seeds["hashes"], device)
    clients = partition(
        train.targets.cpu().numpy(),
        settings.clients,
        settings.partition,
        seeds["partition"],
        alpha=settings.alpha,
        shards_per_client=settings.shards_per_client,
        least=settings.least_examples,
    )
    parts = [torch.from_numpy(indices) for indices in clients]
    simulation = Simulation(
        model, loss_function(run.loss), train, parts, method, settings, seeds["clients"], group=group
    )
    return _Training(run, simulation, architecture, folder, identity, watch)


def _resume(training: _Training) -> None:
    """Continues from the state and the weights that a killed training kept; without a whole one of them, anew."""
    state = read_state(training.folder / "resume.safetensors", training.identity)
    kept = _kept(training.folder / "checkpoints.safetensors")
    if state is None or len(kept) < state.checkpoints:
        shutil.rmtree(training.folder, ignore_errors=True)
        return
    training.simulation.load_state(state.tensors, state.numbers)
    training.rows, training.resumed_from = state.rows, len(state.rows)
    training.checkpoints = kept[: state.checkpoints]  # those kept after the state was saved come again


def _kept(path: Path) -> list[Checkpoint]:
    try:
        return read_trajectory(path)[1] if path.is_file() else []
    except InputError:  # damaged
        return []


def _train(
    training: _Training,
    test: Examples,
    checkpoint_rounds: Sequence[int],
    checkpoint_losses: Sequence[float],
    save_every: float,
    report: Callable[[int], None],
) -> None:
    """Rounds until the last or a divergence."""
    simulation, rounds = training.simulation, training.simulation.settings.rounds
    loss = loss_function(training.run.loss)
    last_saved, pause = time.monotonic(), save_every
    while simulation.step < rounds:
        before = simulation.weights() if _ahead(training, checkpoint_losses) else {}
        try:
            row = simulation.round()
        except NotFiniteError as error:
            training.diverged_at = str(error)
            report(rounds)
            return
        for target in _ahead(training, checkpoint_losses):
            if row["train_loss"] <= target:
                _keep(training, "loss", before, row["round"] - 1, row["train_loss"], target, save_every)
        if is_due(simulation.step - 1, rounds, _EVALUATIONS):
            batches = test.batches(_EVALUATION_BATCH)
            row["test_loss"], row["test_accuracy"] = mean_loss_and_accuracy(simulation.model, loss, batches)
        if simulation.step in checkpoint_rounds:
            _keep(training, "round", simulation.weights(), simulation.step, _train_loss(training), None, save_every)
        training.rows.append(row)
        report(simulation.step)
        if time.monotonic() - last_saved >= pause:
            begun, kept = time.monotonic(), len(training.checkpoints)
            save_state(training.folder / "resume.safetensors", simulation, training.rows, kept, training.identity)
            last_saved = time.monotonic()
            # Memories of 100 clients of a full-width network take gigabytes: saving them stays below a twentieth.
            pause = max(save_every, 20 * (last_saved - begun)) if save_every else 0.0
    final = _train_loss(training)
    if not final <= DIVERGED * simulation.first_loss:  # or NaN
        training.diverged_at = f"round {rounds}: training loss {final:.4g}, {simulation.first_loss:.4g} at the start"
        return
    for target in _ahead(training, checkpoint_losses):
        if final <= target:
            _keep(training, "loss", simulation.weights(), rounds, final, target, math.inf)


def _train_loss(training: _Training) -> float:
    simulation = training.simulation
    batches = simulation.examples.batches(_EVALUATION_BATCH)
    return mean_loss_and_accuracy(simulation.model, loss_function(training.run.loss), batches)[0]


def _ahead(training: _Training, targets: Sequence[float]) -> list[float]:
    """Losses that have not been reached."""
    reached = [facts["target_loss"] for facts, _ in training.checkpoints]
    return [target for target in targets if target not in reached]


def _keep(
    training: _Training,
    kind: str,
    state: dict[str, torch.Tensor],
    done: int,
    train_loss: float,
    target: float | None,
    save_every: float,
) -> None:
    """Keeps weights, also on the disk where a kill may come: a resumed run is past them."""
    facts = {"kind": kind, "round": done, "train_loss": train_loss, "target_loss": target}
    # A copy: one round may reach several losses, and tensors of a file may not share their memory.
    training.checkpoints.append((facts, {name: tensor.clone() for name, tensor in state.items()}))
    if math.isfinite(save_every):
        write_trajectory(training.folder / "checkpoints.safetensors", training.architecture, training.checkpoints)


def _finish(training: _Training, train: Examples, test: Examples, writes: bool) -> dict:
    """The record, and, for the process that writes, the run's files in its folder of unpublished results."""
    simulation = training.simulation
    splits = {"train": train.batches(_EVALUATION_BATCH), "test": test.batches(_EVALUATION_BATCH)}
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
    save_model(
        training.simulation.model,
        training.architecture,
        folder / "model.safetensors",
        run=run.path,
        status=record["status"],
    )
    rows = pandas.DataFrame(training.rows, columns=COLUMNS)
    kinds = {column: "int64" if column in _WHOLE else "float64" for column in COLUMNS}
    write_table(rows.astype(kinds), folder / "rounds.parquet")
    write_record(record, folder / "record.json")
    (folder / "resume.safetensors").unlink(missing_ok=True)
    return record
