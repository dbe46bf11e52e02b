"""All spectra of one network on one set of examples, from a checkpoint to tables on disk, resuming after a kill."""

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas
import torch
from torch import Tensor, distributed, nn

from hessketch.checkpoints import Architecture, load_weights, parameter_order, read_architecture
from hessketch.curvature.losses import Loss, loss_function, mean_loss_and_accuracy
from hessketch.curvature.named import RegisteredOperator, named_operator
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
NETWORK_MODE = "eval: batch norm frozen at its running statistics"

Tables = dict[str, pandas.DataFrame]  # by name


def load_network(checkpoint: Path, architecture: Architecture | None = None) -> tuple[nn.Module, dict[str, Any]]:
    """The network of a checkpoint in eval mode, and the checkpoint's metadata.

    `architecture` overrides what the file says of itself. Raises InputError for another network's weights.
    """
    model = network_of(architecture or read_architecture(checkpoint))
    metadata = load_weights(model, checkpoint)
    return model.eval(), metadata


def networks_of(
    architecture: Architecture,
    checkpoints: Iterable[tuple[Mapping[str, Any], Mapping[str, Tensor]]],
    device: torch.device | str,
) -> Iterator[tuple[Mapping[str, Any], nn.Module]]:
    """Each checkpoint's network, in eval mode on the device, made when it is asked for."""
    for facts, state in checkpoints:
        model = network_of(architecture)
        model.load_state_dict(dict(state))
        yield facts, model.to(device).eval()


def tensors_digest(tensors: Sequence[Tensor]) -> str:
    """Digest of the values of tensors, one after the other."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def task_of(model: nn.Module, examples: Examples, **how: Any) -> dict[str, Any]:
    """What a result depends on: the values of weights and data, `how` it is computed, and the code."""
    return {
        "weights": tensors_digest(list(model.state_dict().values())),
        "data": tensors_digest([examples.inputs, examples.targets]),
        **how,
        "code": code_digest(),
    }


def way_to_spectra(loss: str, settings: Settings, seed: int, batch_size: int, tf32: bool) -> dict[str, Any]:
    """How spectra are computed, for tasks and records."""
    return {
        "loss": loss,
        "method": method_of(settings),
        "settings": asdict(settings),
        "seed": seed,
        "batch_size": batch_size,
        "tf32": tf32,
    }


def sizes(model: nn.Module, examples: Examples) -> dict[str, int]:
    """n, p and classes, for tables and records."""
    p = sum(q.numel() for q in model.parameters() if q.requires_grad)
    return {"n": len(examples), "p": p, "classes": examples.classes}


def evaluated(model: nn.Module, loss: Loss, batches: list[tuple[Tensor, Tensor]]) -> dict[str, Any]:
    """mean_loss, accuracy and network_mode, for a record."""
    mean_loss, accuracy = mean_loss_and_accuracy(model, loss, batches)
    return {"mean_loss": mean_loss, "accuracy": accuracy, "network_mode": NETWORK_MODE}


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
    columns: dict[str, Any] | None = None,
    memory: int | None = None,
    tf32: bool = False,
    save_every: float = 30.0,
    group: distributed.ProcessGroup | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Spectra of `operators` by the method of `settings`; writes five tables and `record.json` into `output`.

    Tables: density, ritz, eigenvalues, bounds, sums, each with the columns operator, n, p, classes and `columns`. A
    finished operator is kept in `output/partial` until all are done, and a run of method fast leaves its state there
    every `save_every` seconds, so that a killed job goes on where it was. `seed` fixes the start vectors, the same for
    every operator. `memory` bounds in bytes what is kept between products, half of it graphs and half Lanczos vectors
    (default: half of what is free, each). With a process `group` each process takes its share of the examples, the
    first writes, and a killed job begins anew at the operator it was in. Returns the record.
    """
    progress, watch, columns = progress or Progress("spectrum"), Stopwatch(), columns or {}
    device, loss_of = next(model.parameters()).device, loss_function(loss)
    task = task_of(model, examples, **way_to_spectra(loss, settings, seed, batch_size, tf32))
    facts = sizes(model, examples)
    batches = _share(examples, group).to(device).batches(batch_size)
    half = None if memory is None else memory // 2
    one = _Measuring(model, loss_of, batches, settings, seed, half, tf32, group, output, task, save_every, progress)
    found = {name: one.spectrum(name) for name in operators}
    record = {
        **columns,
        **task,
        "operators": list(operators),
        "runs": {name: run for name, (_, run) in found.items()},
        **facts,
        **evaluated(model, loss_of, examples.to(device).batches(batch_size)),
        "parameter_order": parameter_order(model),
        "processes": 1 if group is None else distributed.get_world_size(group),
        "environment": environment(device),
        **watch.cost(),
    }
    if group is None or distributed.get_rank(group) == 0:
        _write({name: tables for name, (tables, _) in found.items()}, columns, facts, record, output)
    return record


def _write(
    found: dict[str, Tables], columns: dict[str, Any], facts: dict[str, Any], record: dict[str, Any], output: Path
) -> None:
    """Each table of all operators as one, then the record."""
    for table in next(iter(found.values()), {}):
        frames = [tables[table].assign(**columns, operator=name, **facts) for name, tables in found.items()]
        full = [frame for frame in frames if len(frame)] or frames[:1]
        write_table(pandas.concat(full, ignore_index=True), output / f"{table}.parquet")
    write_record(record, output / "record.json")
    shutil.rmtree(output / "partial", ignore_errors=True)


@dataclass(frozen=True)
class _Measuring:
    """The spectra of one network by operator, each kept once it is found; by several processes none is."""

    model: nn.Module
    loss: Loss
    batches: list[tuple[Tensor, Tensor]]  # of this process
    settings: Settings
    seed: int
    memory: int | None  # for graphs, and as much again for Lanczos vectors
    tf32: bool
    group: distributed.ProcessGroup | None
    output: Path
    task: dict[str, Any]
    save_every: float
    progress: Progress

    def spectrum(self, name: str) -> tuple[Tables, dict[str, Any]]:
        """The tables of one operator, and how they were computed."""
        if self.group is not None:
            return self._found(name, None)
        folder = self.output / "partial" / name
        done = _read_partial(folder, self.task)
        if done is not None:
            self.progress.say(f"{name}: already done, resumed")
            return done
        done = self._found(name, _stores(folder, self.task, self.save_every))
        _write_partial(folder, self.task, *done)
        return done

    def _found(self, name: str, stores: Callable[[str], LanczosStore] | None) -> tuple[Tables, dict[str, Any]]:
        try:
            operator = named_operator(
                name, self.model, self.loss, self.batches, memory=self.memory, tf32=self.tf32, group=self.group
            )
            return _spectrum_of(operator, self.settings, self.seed, self.memory, stores, self.progress)
        except NotFiniteError as error:
            raise NotFiniteError(f"{name}: {error}") from error


def _share(examples: Examples, group: distributed.ProcessGroup | None) -> Examples:
    """This process's examples: every world-th, from its rank on."""
    if group is None:
        return examples
    rank, world = distributed.get_rank(group), distributed.get_world_size(group)
    return Examples(examples.inputs[rank::world], examples.targets[rank::world], examples.classes)


def _stores(folder: Path, task: dict[str, Any], every: float) -> Callable[[str], LanczosStore]:
    identity = json.dumps(task, sort_keys=True)
    return lambda name: LanczosStore(folder / name, identity, every)


def _spectrum_of(
    operator: CurvatureOperator | RegisteredOperator,
    settings: Settings,
    seed: int,
    memory: int | None,
    stores: Callable[[str], LanczosStore] | None,
    progress: Progress,
) -> tuple[Tables, dict[str, Any]]:
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


def _write_partial(folder: Path, task: dict[str, Any], tables: Tables, facts: dict[str, Any]) -> None:
    for name, frame in tables.items():
        write_table(frame, folder / f"{name}.parquet")
    write_record({**task, "tables": list(tables), "facts": facts}, folder / "task.json")


def _read_partial(folder: Path, task: dict[str, Any]) -> tuple[Tables, dict[str, Any]] | None:
    """The tables of a finished operator and how they were computed, if they are whole and of this very task."""
    try:
        record = read_record(folder / "task.json")
        names, facts = record.pop("tables", []), record.pop("facts", {})
        if record != json.loads(json.dumps(task)):
            return None
        return {name: read_table(folder / f"{name}.parquet") for name in names}, facts
    except InputError:
        return None
