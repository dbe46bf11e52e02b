"""All spectra of one network on one set of examples, from a checkpoint to tables on disk, resuming after a kill."""

import hashlib
import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import pandas
import torch
from torch import nn

from hessketch.checkpoints import load_weights, parameter_order, read_architecture
from hessketch.curvature.losses import loss_function, mean_loss_and_accuracy
from hessketch.curvature.operators import COMPONENTS, CurvatureOperator
from hessketch.curvature.tables import spectrum_tables
from hessketch.data.examples import Examples
from hessketch.errors import InputError
from hessketch.linalg.spectrum import SpectrumSettings, paper_spectrum
from hessketch.networks.registry import build_network
from hessketch.progress import Progress
from hessketch.provenance import Stopwatch, code_digest, environment
from hessketch.records import read_record, read_table, write_record, write_table

# Papyan 2018, Figure 4: the test Hessian and the GGN are deflated, the residual has no outliers to take out.
DEFLATED = ("hessian", "ggn")


def load_network(checkpoint: Path, architecture=None) -> tuple[nn.Module, dict]:
    """The network of a checkpoint in eval mode, and the checkpoint's metadata.

    `architecture` overrides what the file says of itself. Raises InputError for another network's weights.
    """
    architecture = architecture or read_architecture(checkpoint)
    model = build_network(
        architecture.network,
        input_shape=architecture.input_shape,
        classes=architecture.classes,
        width=architecture.width,
        norm=architecture.norm,
        seed=0,
    )
    metadata = load_weights(model, checkpoint)
    return model.eval(), metadata


def _digest(tensors: Sequence[torch.Tensor]) -> str:
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def spectra_of_network(
    model: nn.Module,
    loss: str,
    examples: Examples,
    settings: SpectrumSettings,
    output: Path,
    *,
    seed: int,
    batch_size: int = 500,
    operators: Sequence[str] = COMPONENTS,
    columns: dict | None = None,
    progress: Progress | None = None,
) -> dict:
    """Spectra of `operators` by the paper's algorithms; writes four tables and `record.json` into `output`.

    Tables: density, ritz, eigenvalues, bounds, each with the columns operator, n, p, classes and `columns`. A finished
    operator is kept in `output/partial` until all are done, so that a killed job repeats at most one. `seed` fixes
    the start vectors, the same for every operator. Returns the record.
    """
    progress = progress or Progress("spectrum")
    watch = Stopwatch()
    device = next(model.parameters()).device
    examples = examples.to(device)
    task = {
        "weights": _digest(list(model.state_dict().values())),
        "data": _digest([examples.inputs, examples.targets]),
        "loss": loss,
        "settings": asdict(settings),
        "seed": seed,
        "code": code_digest(),
    }
    loss_of, batches = loss_function(loss), examples.batches(batch_size)
    facts = {
        "n": len(examples),
        "p": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "classes": examples.classes,
    }
    collected: dict[str, list[pandas.DataFrame]] = {}
    for name in operators:
        tables = _read_partial(output / "partial" / name, task)
        if tables is None:
            operator = CurvatureOperator(name, model, loss_of, batches)
            tables = _tables_of(operator, settings, seed, progress)
            _write_partial(output / "partial" / name, task, tables)
        else:
            progress.say(f"{name}: already done, resumed")
        for table, frame in tables.items():
            collected.setdefault(table, []).append(frame.assign(**(columns or {}), operator=name, **facts))
    mean_loss, accuracy = mean_loss_and_accuracy(model, loss_of, batches)
    record = {
        **(columns or {}),
        **task,
        "operators": list(operators),
        "batch_size": batch_size,
        **facts,
        "mean_loss": mean_loss,
        "accuracy": accuracy,
        "network_mode": "eval: batch norm frozen at its running statistics",
        "parameter_order": parameter_order(model),
        "environment": environment(device),
        **watch.cost(),
    }
    for table, frames in collected.items():
        full = [frame for frame in frames if len(frame)] or frames[:1]
        write_table(pandas.concat(full, ignore_index=True), output / f"{table}.parquet")
    write_record(record, output / "record.json")
    shutil.rmtree(output / "partial", ignore_errors=True)
    return record


def _tables_of(
    operator: CurvatureOperator, settings: SpectrumSettings, seed: int, progress: Progress
) -> dict[str, pandas.DataFrame]:
    chosen = settings if operator.name in DEFLATED else replace(settings, deflation_rank=0)
    # The same start vectors for every operator: v^T H v = v^T G v + v^T R v then holds in the estimates too.
    generator = torch.Generator().manual_seed(seed)
    start = time.perf_counter()
    spectrum = paper_spectrum(operator, chosen, generator, progress.stage(f"{operator.name}: product"))
    return spectrum_tables(spectrum, time.perf_counter() - start)


def _write_partial(folder: Path, task: dict, tables: dict[str, pandas.DataFrame]) -> None:
    for name, frame in tables.items():
        write_table(frame, folder / f"{name}.parquet")
    write_record({**task, "tables": list(tables)}, folder / "task.json")


def _read_partial(folder: Path, task: dict) -> dict[str, pandas.DataFrame] | None:
    """The tables of a finished operator, if they are whole and of this very task."""
    try:
        record = read_record(folder / "task.json")
        names = record.pop("tables", [])
        if record != json.loads(json.dumps(task)):
            return None
        return {name: read_table(folder / f"{name}.parquet") for name in names}
    except InputError:
        return None
