"""Hessian spectra of the weights that a training kept on its way, as tables on disk, resuming after a kill."""

import hashlib
import json
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas
import torch
from torch import Tensor, nn

from hessketch.checkpoints import Architecture
from hessketch.curvature.gradients import squared_gradient_norm
from hessketch.curvature.job import Tables, networks_of, spectra_of_network, tensors_digest, way_to_spectra
from hessketch.curvature.losses import loss_function
from hessketch.curvature.tables import DENSITY, EIGENVALUES, joined
from hessketch.data.examples import Examples
from hessketch.errors import InputError, NotFiniteError
from hessketch.linalg.methods import Settings
from hessketch.progress import Progress
from hessketch.provenance import Stopwatch, code_digest, environment
from hessketch.records import is_intact, read_record, read_table, write_record, write_table

# What names one spectrum, besides the columns that the caller gives, then what is known of it.
SPECTRUM = {
    "kind": "str",
    "round": "int64",
    "train_loss": "float64",
    "target_loss": "float64",
    "split": "str",
    "operator": "str",
    "n": "int64",
    "p": "int64",
    "classes": "int64",
}
# kappa = absolute_sum / largest_magnitude; gradient_norm_squared is of the mean loss, on the split `train` alone.
CURVATURE = {
    "largest_eigenvalue": "float64",
    "largest_magnitude": "float64",
    "trace": "float64",
    "trace_standard_error": "float64",
    "frobenius_squared": "float64",
    "frobenius_squared_standard_error": "float64",
    "absolute_sum": "float64",
    "absolute_sum_standard_error": "float64",
    "kappa": "float64",
    "kappa_standard_error": "float64",
    "gradient_norm_squared": "float64",
}
TABLES = {"curvature": CURVATURE, "density": DENSITY, "eigenvalues": EIGENVALUES}
# What is read of one spectrum once it is there.
_OF_ONE = ("record.json", "ritz.parquet", "sums.parquet", "density.parquet", "eigenvalues.parquet")


def spectra_of_checkpoints(
    architecture: Architecture | None,
    checkpoints: Sequence[tuple[Mapping[str, Any], Mapping[str, Tensor]]],
    loss: str,
    splits: Mapping[str, Examples],
    settings: Settings,
    output: Path,
    *,
    columns: Mapping[str, Any],
    seed: int,
    device: torch.device,
    batch_size: int = 500,
    memory: int | None = None,
    tf32: bool = False,
    save_every: float = 30.0,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Spectra of the Hessian at every checkpoint on every split; writes three tables and `record.json` into `output`.

    A checkpoint is its facts (kind, round, train_loss, target_loss) and a state_dict of `architecture`. Tables:
    curvature, one row a checkpoint and split; density and eigenvalues, of the checkpoints of kind `loss`. Each has
    `columns` and those of SPECTRUM besides. Without checkpoints the tables are empty.

    `seed` fixes the start vectors: with one seed, differences between networks are not those of their vectors. A
    finished spectrum is kept in `output/partial` until all are done, so that a killed job goes on where it was. The
    other arguments are those of `spectra_of_network`. Returns the record.
    """
    if architecture is None and checkpoints:
        raise InputError("checkpoints without the architecture of their network given; give both, or none")
    progress, watch = progress or Progress("checkpoint spectra"), Stopwatch()
    way = way_to_spectra(loss, settings, seed, batch_size, tf32)
    task = {**way, "architecture": None if architecture is None else asdict(architecture), "code": code_digest()}
    options = {"seed": seed, "batch_size": batch_size, "memory": memory, "tf32": tf32, "save_every": save_every}
    one = _Measuring(loss, settings, columns, options, task, output / "partial", progress)
    found: list[Tables] = []
    computed = []
    networks = () if architecture is None else networks_of(architecture, checkpoints, device)
    for number, (facts, model) in enumerate(networks, start=1):
        for split, examples in splits.items():
            where = f"checkpoint {number} of {len(checkpoints)} (round {facts['round']}), {split} examples"
            tables, run = one.spectrum(model, facts, split, examples.to(device), where)
            found.append(tables)
            computed.append({**facts, "split": split, **run})
    for name, kinds in TABLES.items():
        frames = [tables[name] for tables in found if name in tables]
        write_table(joined(frames, columns, {**SPECTRUM, **kinds}), output / f"{name}.parquet")
    record = {**columns, **way, "spectra": computed, "environment": environment(device), **watch.cost()}
    write_record(record, output / "record.json")
    shutil.rmtree(output / "partial", ignore_errors=True)
    return record


@dataclass(frozen=True)
class _Measuring:
    """The Hessian's spectrum of one network on one split after the other."""

    loss: str
    settings: Settings
    columns: Mapping[str, Any]
    options: Mapping[str, Any]  # of `spectra_of_network`
    task: Mapping[str, Any]
    partial: Path
    progress: Progress

    def spectrum(
        self, model: nn.Module, facts: Mapping[str, Any], split: str, examples: Examples, where: str
    ) -> tuple[Tables, dict[str, Any]]:
        """Those of TABLES that the checkpoint has, and how they were computed, unless they are there already."""
        self.progress.say(where)
        tensors = [*model.state_dict().values(), examples.inputs, examples.targets]
        folder = self.partial / _digest({**self.task, "facts": facts}, tensors)
        try:
            if not all(is_intact(folder / name) for name in _OF_ONE):
                self._find(model, facts, split, examples, folder)
            gradient = self._squared_gradient_norm(model, examples) if split == "train" else math.nan
        except NotFiniteError as error:
            raise NotFiniteError(f"{where}: {error}") from error
        by_loss = ("density", "eigenvalues") if facts["kind"] == "loss" else ()
        tables = {name: read_table(folder / f"{name}.parquet") for name in by_loss}
        tables["curvature"] = _curvature(folder, gradient, [*self.columns, *SPECTRUM])
        return tables, read_record(folder / "record.json")["runs"]["hessian"]

    def _find(self, model: nn.Module, facts: Mapping[str, Any], split: str, examples: Examples, folder: Path) -> None:
        target = math.nan if facts["target_loss"] is None else facts["target_loss"]
        known = {name: facts[name] for name in ("kind", "round", "train_loss")}
        spectra_of_network(
            model,
            self.loss,
            examples,
            self.settings,
            folder,
            operators=("hessian",),
            columns={**self.columns, **known, "target_loss": target, "split": split},
            progress=self.progress,
            **self.options,
        )

    def _squared_gradient_norm(self, model: nn.Module, examples: Examples) -> float:
        batches = examples.batches(self.options["batch_size"])
        return squared_gradient_norm(model, loss_function(self.loss), batches)


def empty_tables(columns: Mapping[str, Any]) -> Tables:
    """The three tables without rows; the values of `columns` give its columns their kinds."""
    return {name: joined([], columns, {**SPECTRUM, **kinds}) for name, kinds in TABLES.items()}


def _digest(task: Mapping[str, Any], tensors: Sequence[Tensor]) -> str:
    """What a spectrum depends on, as the name of a folder: what another task left has another one."""
    text = json.dumps({**task, "tensors": tensors_digest(tensors)}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _curvature(folder: Path, gradient: float, names: Sequence[str]) -> pandas.DataFrame:
    """One row from the tables of one Hessian: `names` as they stand there, and CURVATURE."""
    ritz, sums = (read_table(folder / f"{name}.parquet") for name in ("ritz", "sums"))
    values = ritz.loc[~ritz["deflated"], "ritz_value"]
    total = sums.set_index("quantity")
    largest = float(values.abs().max())
    row: dict[str, Any] = {"largest_eigenvalue": float(values.max()), "largest_magnitude": largest}
    for name, quantity in (("trace",) * 2, ("frobenius_squared",) * 2, ("absolute_sum", "absolute")):
        row[name] = total.loc[quantity, "value"]
        row[f"{name}_standard_error"] = total.loc[quantity, "standard_error"]
    for end in ("", "_standard_error"):
        row[f"kappa{end}"] = row[f"absolute_sum{end}"] / largest if largest > 0 else math.nan
    row["gradient_norm_squared"] = gradient
    return sums[list(names)].iloc[:1].assign(**row)
