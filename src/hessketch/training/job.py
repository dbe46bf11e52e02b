"""One training from examples to files: weights, history and record."""

import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas
import torch
from torch import nn

from hessketch.checkpoints import Architecture, parameter_order, save_model
from hessketch.curvature.losses import evaluation, loss_function, outputs_of
from hessketch.data.examples import Examples
from hessketch.data.of_run import subset_seed
from hessketch.errors import InputError
from hessketch.networks.registry import network_of
from hessketch.progress import Progress
from hessketch.provenance import Stopwatch, code_digest, environment
from hessketch.publishing import put_in_place
from hessketch.records import is_intact, read_metadata, write_record, write_table
from hessketch.runs import Run
from hessketch.seeds import derive_seed
from hessketch.training.settings import TrainingSettings
from hessketch.training.sgd import TrainingResult, train


def _write_history(history: list[dict], path: Path) -> None:
    columns = {
        "epoch": "int64",
        "learning_rate": "float64",
        "train_loss": "float64",
        "train_accuracy": "float64",
        "test_loss": "float64",
        "test_accuracy": "float64",
        "seconds": "float64",
    }
    write_table(pandas.DataFrame(history, columns=list(columns)).astype(columns), path)


def train_run(
    run: Run,
    train_examples: Examples,
    test_examples: Examples,
    settings: TrainingSettings,
    output: Path,
    *,
    device: torch.device,
    checkpoint_epochs: list[int] | None = None,
    save_every_seconds: float = 30.0,
    progress: Progress | None = None,
) -> dict:
    """Trains a run and writes `model.safetensors`, `history.parquet` and `record.json` into `output`; the record.

    `resume.safetensors` stands there while the training is under way: a killed one continues from it and ends with
    the same weights, bit for bit on a CPU. A diverged run is a result too: its record says so, and its weights are
    those of its last finite epoch.
    """
    progress = progress or Progress(run.path)
    watch, epochs = Stopwatch(), checkpoint_epochs or []
    train_examples, test_examples = train_examples.to(device), test_examples.to(device)
    outputs = outputs_of(run.loss, train_examples.classes)
    architecture = Architecture(run.network, tuple(train_examples.inputs.shape[1:]), outputs, run.width, run.norm)
    model = network_of(architecture, derive_seed(run.seed, run.path, "initialisation")).to(device)
    output.mkdir(parents=True, exist_ok=True)
    checkpoints, resume = _Checkpoints(run, model, architecture, output, epochs), output / "resume.safetensors"
    if not checkpoints.can_go_on(resume):
        resume.unlink(missing_ok=True)
    identity = {"run": run.path, "parameters": parameter_order(model), "kept": sorted(epochs), "code": code_digest()}
    result = train(
        model,
        run.loss,
        train_examples,
        test_examples,
        settings,
        derive_seed(run.seed, run.path, "batch order"),
        identity=identity,
        resume_file=resume,
        save_every_seconds=save_every_seconds,
        checkpoint=checkpoints.keep,
        progress=progress.stage("epoch"),
    )
    checkpoints.publish(result)
    record = _record(run, settings, model, result, train_examples, test_examples, device, watch)
    save_model(model, architecture, output / "model.safetensors", run=run.path, status=result.status)
    _write_history(result.history, output / "history.parquet")
    write_record(record, output / "record.json")
    resume.unlink(missing_ok=True)
    checkpoints.forget()
    progress.say(_summary(record))
    return record


def _summary(record: dict[str, Any]) -> str:
    where = f" at {record['diverged_at']}" if record["diverged_at"] else ""
    accuracies = f"train accuracy {record['train_accuracy']:.4f}, test accuracy {record['test_accuracy']:.4f}"
    return f"{record['status']}{where}: {accuracies}"


class _Checkpoints:
    """Weights after some epochs, kept aside until the end: a workflow deletes a killed job's outputs, but not these."""

    def __init__(self, run: Run, model: nn.Module, architecture: Architecture, output: Path, epochs: Sequence[int]):
        self._run, self._model, self._architecture = run, model, architecture
        self._output, self._folder, self._epochs = output, output / "partial", epochs

    def _file(self, epoch: int) -> Path:
        return self._folder / f"epoch{epoch}.safetensors"

    def _save(self, path: Path, epoch: int) -> None:
        save_model(self._model, self._architecture, path, run=self._run.path, epoch=epoch)

    def can_go_on(self, resume: Path) -> bool:
        """Whether a saved state can be read, and all weights that a training going on from it would not keep again."""
        if not is_intact(resume):
            return False
        done = len(read_metadata(resume).get("history", []))
        return all(is_intact(self._file(epoch)) for epoch in self._epochs if epoch <= done)

    def keep(self, epoch: int, _: nn.Module) -> None:
        """Of the model after an epoch, if it is one of them."""
        if epoch == 1:
            self.forget()
        if epoch in self._epochs:
            self._save(self._file(epoch), epoch)

    def publish(self, result: TrainingResult) -> None:
        """Puts each in its place; of a run that diverged before its epoch, the last finite weights."""
        for epoch in self._epochs:
            kept = self._file(epoch)
            if kept.exists():
                put_in_place(kept, self._output / kept.name)
            elif result.status == "diverged":
                self._save(self._output / kept.name, len(result.history))
            else:
                (self._output / "resume.safetensors").unlink(missing_ok=True)
                raise InputError(
                    f"{kept}: gone since the training was interrupted; run the same command again: it starts anew"
                )

    def forget(self) -> None:
        """Deletes what is kept aside."""
        shutil.rmtree(self._folder, ignore_errors=True)


def _record(run, settings, model, result: TrainingResult, train_examples, test_examples, device, watch) -> dict:
    losses = evaluation(model, loss_function(run.loss), train=train_examples.batches(1000))
    if result.status == "finished":  # tested after its last epoch
        losses |= {name: result.history[-1][name] for name in ("test_loss", "test_accuracy")}
    else:
        losses |= evaluation(model, loss_function(run.loss), test=test_examples.batches(1000))
    return {
        "run": run.path,
        "identity": run.identity(),
        "learning_rate": run.learning_rate,
        "settings": asdict(settings),
        "status": result.status,
        "diverged_at": result.diverged_at,
        "resumed_from_epoch": result.resumed_from_epoch,
        "memory_format": result.memory_format,
        "captured_steps": result.captured_steps,
        "epochs": len(result.history),
        "n": len(train_examples),
        "p": sum(parameter.numel() for parameter in model.parameters()),
        "classes": train_examples.classes,
        **losses,
        "seeds": {
            "subset": subset_seed(run),
            **{purpose: derive_seed(run.seed, run.path, purpose) for purpose in ("initialisation", "batch order")},
        },
        "parameter_order": parameter_order(model),
        "environment": environment(device),
        **watch.cost(),
    }
