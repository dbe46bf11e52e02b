"""All spectra of one network on one set of examples, from a checkpoint to tables on disk, resuming after a kill."""

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas
import torch
from torch import distributed, nn

from hessketch.checkpoints import load_weights, parameter_order, read_architecture
from hessketch.curvature.losses import loss_function, mean_loss_and_accuracy
from hessketch.curvature.operators import COMPONENTS, CurvatureOperator
from hessketch.curvature.resume import LanczosStore
from hessketch.curvature.tables import spectrum_tables
from hessketch.data.examples import Examples
from hessketch.errors import InputError, NotFiniteError
from hessketch.linalg.methods import Settings, find_spectrum, method_of, without_pairs
from hessketch.networks.registry import network_of
from hessketch.progress import Progress
from hessketch.provenance import Stopwatch, code_digest, environment
from hessketch.records import read_record, read_table, write_record, write_table

# Papyan 2018, Figure 4: the test Hessian and the GGN are deflated, the residual has no outliers to take out.
NOT_DEFLATED = ("residual",)


def load_network(checkpoint: Path, architecture=None) -> tuple[nn.Module, dict]:
    """The network of a checkpoint in eval mode, and the checkpoint's metadata.

    `architecture` overrides what the file says of itself. Raises InputError for another network's weights.
    """
    architecture = architecture or read_architecture(checkpoint)
    model = network_of(architecture)
    metadata = load_weights(model, checkpoint)
    return model.eval(), metadata


def tensors_digest(tensors: Sequence[torch.Tensor]) -> str:
    """Digest of the values of tensors, one after the other."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def spectra_of_network(
    model: nn.Module,
    loss: str,
    examples: Examples,
    settings: Settings,
    output: Path,
    *,
    seed: int,
    batch_size: int = 500,
    operators: Sequence[str] = COMPONENTS,
    columns: dict | None = None,
    memory: int | None = None,
    tf32: bool = False,
    save_every: float = 30.0,
    group: distributed.ProcessGroup | None = None,
    progress: Progress | None = None,
) -> dict:
    """Spectra of `operators` by the method of `settings`; writes five tables and `record.json` into `output`.

    Tables: density, ritz, eigenvalues, bounds, sums, each with the columns operator, n, p, classes and `columns`. A
    finished operator is kept in `output/partial` until all are done, and a run of method fast leaves its state there
    every `save_every` seconds, so that a killed job goes on where it was. `seed` fixes the start vectors, the same for
    every operator. `memory` bounds in bytes what is kept between products, half of it graphs and half Lanczos vectors
    (default: half of what is free, each). With a process `group` each process takes its share of the examples, the
    first writes, and a killed job begins anew at the operator it was in. Returns the record.
    """
    progress = progress or Progress("spectrum")
    watch = Stopwatch()
    device = next(model.parameters()).device
    task = {
        "weights": tensors_digest(list(model.state_dict().values())),
        "data": tensors_digest([examples.inputs, examples.targets]),
        "loss": loss,
        "method": method_of(settings),
        "settings": asdict(settings),
        "seed": seed,
        "batch_size": batch_size,
        "tf32": tf32,
        "code": code_digest(),
    }
    facts = {
        "n": len(examples),
        "p": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "classes": examples.classes,
    }
    loss_of, batches = loss_function(loss), _share(examples, group).to(device).batches(batch_size)
    memory = memory if memory is None else memory // 2
    collected: dict[str, list[pandas.DataFrame]] = {}
    runs: dict[str, dict] = {}
    for name in operators:
        folder = output / "partial" / name
        done = None if group is not None else _read_partial(folder, task)
        if done is None:
            stores = None if group is not None else _stores(folder, task, save_every)
            try:
                operator = CurvatureOperator(name, model, loss_of, batches, memory=memory, tf32=tf32, group=group)
                done = _spectrum_of(operator, settings, seed, memory, stores, progress)
                del operator  # with its graphs, before the next one keeps its own
            except NotFiniteError as error:
                raise NotFiniteError(f"{name}: {error}") from error
            if group is None:
                _write_partial(folder, task, *done)
        else:
            progress.say(f"{name}: already done, resumed")
        tables, runs[name] = done
        for table, frame in tables.items():
            collected.setdefault(table, []).append(frame.assign(**(columns or {}), operator=name, **facts))
    mean_loss, accuracy = mean_loss_and_accuracy(model, loss_of, examples.to(device).batches(batch_size))
    record = {
        **(columns or {}),
        **task,
        "operators": list(operators),
        "runs": runs,
        **facts,
        "mean_loss": mean_loss,
        "accuracy": accuracy,
        "network_mode": "eval: batch norm frozen at its running statistics",
        "parameter_order": parameter_order(model),
        "processes": 1 if group is None else distributed.get_world_size(group),
        "environment": environment(device),
        **watch.cost(),
    }
    if group is None or distributed.get_rank(group) == 0:
        for table, frames in collected.items():
            full = [frame for frame in frames if len(frame)] or frames[:1]
            write_table(pandas.concat(full, ignore_index=True), output / f"{table}.parquet")
        write_record(record, output / "record.json")
        shutil.rmtree(output / "partial", ignore_errors=True)
    return record


def _share(examples: Examples, group: distributed.ProcessGroup | None) -> Examples:
    """This process's examples: every world-th, from its rank on."""
    if group is None:
        return examples
    rank, world = distributed.get_rank(group), distributed.get_world_size(group)
    return Examples(examples.inputs[rank::world], examples.targets[rank::world], examples.classes)


def _stores(folder: Path, task: dict, every: float) -> Callable[[str], LanczosStore]:
    identity = json.dumps(task, sort_keys=True)
    return lambda name: LanczosStore(folder / name, identity, every)


def _spectrum_of(
    operator: CurvatureOperator,
    settings: Settings,
    seed: int,
    memory: int | None,
    stores: Callable[[str], LanczosStore] | None,
    progress: Progress,
) -> tuple[dict[str, pandas.DataFrame], dict[str, Any]]:
    """The tables of one operator, and how they were computed."""
    name = operator.name
    chosen = without_pairs(settings) if name in NOT_DEFLATED else settings
    # The same start vectors for every operator: v^T H v = v^T G v + v^T R v then holds in the estimates too.
    generator = torch.Generator().manual_seed(seed)
    start = time.perf_counter()
    spectrum = find_spectrum(
        operator, chosen, generator, progress.stage(f"{name}: product"), memory=memory, stores=stores
    )
    seconds = time.perf_counter() - start
    if spectrum.unconverged:
        progress.say(f"{name}: {spectrum.unconverged} of the leading eigenpairs have not converged; allow more steps")
    facts = {
        "products": spectrum.products,
        "seconds": round(seconds, 3),
        "reorthogonalization": spectrum.reorthogonalization,
        "unconverged": spectrum.unconverged,
        "batches_kept": operator.batches_kept,
        "largest_batch": operator.largest_batch,
        **operator.arithmetic,
    }
    return spectrum_tables(spectrum, seconds), facts


def _write_partial(folder: Path, task: dict, tables: dict[str, pandas.DataFrame], facts: dict) -> None:
    for name, frame in tables.items():
        write_table(frame, folder / f"{name}.parquet")
    write_record({**task, "tables": list(tables), "facts": facts}, folder / "task.json")


def _read_partial(folder: Path, task: dict) -> tuple[dict[str, pandas.DataFrame], dict] | None:
    """The tables of a finished operator and how they were computed, if they are whole and of this very task."""
    try:
        record = read_record(folder / "task.json")
        names, facts = record.pop("tables", []), record.pop("facts", {})
        if record != json.loads(json.dumps(task)):
            return None
        return {name: read_table(folder / f"{name}.parquet") for name in names}, facts
    except InputError:
        return None
