"""One federated training under way: begun, resumed, moved on round by round, its weights kept on the way."""

import math
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed

from hessketch.checkpoints import Architecture
from hessketch.curvature.losses import loss_function, mean_loss_and_accuracy, outputs_of
from hessketch.data.examples import Examples
from hessketch.errors import InputError, NotFiniteError
from hessketch.federated.methods.registry import build_method
from hessketch.federated.partition import partition, partition_seed
from hessketch.federated.resume import read_state, save_state
from hessketch.federated.settings import FederatedSettings
from hessketch.federated.simulation import DIVERGED, Simulation
from hessketch.networks.registry import network_of
from hessketch.provenance import Stopwatch
from hessketch.runs import Run
from hessketch.schedules import is_due
from hessketch.seeds import derive_seed
from hessketch.trainers import Trainer
from hessketch.trajectories import Checkpoint, read_trajectory, write_trajectory

EVALUATION_BATCH = 1000
_EVALUATIONS = 20


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


@dataclass(frozen=True)
class Keeping:
    """What is kept of a training on its way, and where a kill may come."""

    rounds: tuple[int, ...]  # weights after these
    losses: tuple[float, ...]  # weights where the training loss first was at most each of these
    save_every: float  # seconds between states on the disk; infinite where nothing is resumed


@dataclass
class Training:
    """One run under way."""

    run: Run
    simulation: Simulation
    architecture: Architecture
    folder: Path
    identity: str
    keeping: Keeping
    watch: Stopwatch
    rows: list[dict[str, Any]] = field(default_factory=list)
    checkpoints: list[Checkpoint] = field(default_factory=list)
    diverged_at: str | None = None
    resumed_from: int = 0


def begin(
    run: Run,
    train: Examples,
    settings: FederatedSettings,
    folder: Path,
    identity: str,
    keeping: Keeping,
    group: distributed.ProcessGroup | None,
) -> Training:
    """The run before its first round, on the device of its training examples; InputError for what cannot be trained."""
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
    return Training(run, simulation, architecture, folder, identity, keeping, watch)


def resume(training: Training) -> None:
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


def train_rounds(training: Training, test: Examples, report: Callable[[int], None]) -> None:
    """Rounds until the last or a divergence, of which `report` gets the number done."""
    simulation, rounds = training.simulation, training.simulation.settings.rounds
    saving = _Saving(training)
    while simulation.step < rounds:
        before = simulation.weights() if _ahead(training) else {}
        try:
            row = simulation.round()
        except NotFiniteError as error:
            training.diverged_at = str(error)
            report(rounds)
            return
        _keep_of_round(training, before, row["train_loss"])
        if is_due(simulation.step - 1, rounds, _EVALUATIONS):
            row["test_loss"], row["test_accuracy"] = _loss_and_accuracy(training, test)
        training.rows.append(row)
        report(simulation.step)
        saving.save_if_due()
    final = _loss_and_accuracy(training, simulation.examples)[0]
    if not final <= DIVERGED * simulation.first_loss:  # or NaN
        training.diverged_at = f"round {rounds}: training loss {final:.4g}, {simulation.first_loss:.4g} at the start"
        return
    for target in _ahead(training):
        if final <= target:
            _keep(training, "loss", simulation.weights(), rounds, final, target)


class _Saving:
    """Saves the state every so many seconds; memories of 100 clients of a full-width network take gigabytes, so that
    saving them stays below a twentieth of the time."""

    def __init__(self, training: Training):
        self._training, self._last, self._pause = training, time.monotonic(), training.keeping.save_every

    def save_if_due(self) -> None:
        if time.monotonic() - self._last < self._pause:
            return
        training, begun, every = self._training, time.monotonic(), self._training.keeping.save_every
        path, kept = training.folder / "resume.safetensors", len(training.checkpoints)
        save_state(path, training.simulation, training.rows, kept, training.identity)
        self._last = time.monotonic()
        self._pause = max(every, 20 * (self._last - begun)) if every else 0.0


def _loss_and_accuracy(training: Training, examples: Examples) -> tuple[float, float]:
    batches = examples.batches(EVALUATION_BATCH)
    return mean_loss_and_accuracy(training.simulation.model, loss_function(training.run.loss), batches)


def _ahead(training: Training) -> list[float]:
    """Losses that have not been reached."""
    reached = [facts["target_loss"] for facts, _ in training.checkpoints]
    return [target for target in training.keeping.losses if target not in reached]


def _keep_of_round(training: Training, before: dict[str, Tensor], train_loss: float) -> None:
    """Keeps what the round just done asks for, also on the disk where a kill may come: a resumed run is past it."""
    simulation, kept = training.simulation, len(training.checkpoints)
    for target in _ahead(training):
        if train_loss <= target:
            _keep(training, "loss", before, simulation.step - 1, train_loss, target)
    if simulation.step in training.keeping.rounds:
        loss = _loss_and_accuracy(training, simulation.examples)[0]
        _keep(training, "round", simulation.weights(), simulation.step, loss, None)
    if len(training.checkpoints) > kept and math.isfinite(training.keeping.save_every):
        write_trajectory(training.folder / "checkpoints.safetensors", training.architecture, training.checkpoints)


def _keep(
    training: Training, kind: str, state: Mapping[str, Tensor], done: int, train_loss: float, target: float | None
) -> None:
    facts = {"kind": kind, "round": done, "train_loss": train_loss, "target_loss": target}
    # A copy: one round may reach several losses, and tensors of a file may not share their memory.
    training.checkpoints.append((facts, {name: tensor.clone() for name, tensor in state.items()}))
