"""Hessian spectra of the weights that a training kept on its way, as tables on disk, resuming after a kill."""

import hashlib
import json
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas
import torch
from torch import Tensor, nn

from hessketch.checkpoints import Architecture
from hessketch.curvature.gradients import squared_gradient_norm
from hessketch.curvature.job import spectra_of_network, tensors_digest
from hessketch.curvature.losses import loss_function
from hessketch.curvature.tables import DENSITY, EIGENVALUES
from hessketch.data.examples import Examples
from hessketch.errors import NotFiniteError
from hessketch.linalg.methods import Settings, method_of
from hessketch.networks.registry import network_of
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
) -> dict:
    """Spectra of the Hessian at every checkpoint on every split; writes three tables and `record.json` into `output`.

    A checkpoint is its facts (kind, round, train_loss, target_loss) and a state_dict of `architecture`. Tables:
    curvature, one row a checkpoint and split with the columns of CURVATURE (kappa = absolute_sum / largest_magnitude;
    gradient_norm_squared of the mean loss, on the split `train` alone); density and eigenvalues, of the checkpoints of
    kind `loss`. Each has `columns` and those of SPECTRUM besides. Without checkpoints the tables are empty.

    `seed` fixes the start vectors: with one seed, differences between networks are not those of their vectors. A
    finished spectrum is kept in `output/partial` until all are done, so that a killed job goes on where it was. The
    other arguments are those of `spectra_of_network`. Returns the record.
    """
    progress, watch = progress or Progress("checkpoint spectra"), Stopwatch()
    common = {
        "loss": loss,
        "method": method_of(settings),
        "settings": asdict(settings),
        "seed": seed,
        "batch_size": batch_size,
        "tf32": tf32,
    }
    collected: dict[str, list[pandas.DataFrame]] = {name: [] for name in TABLES}
    computed = []
    for number, (facts, state) in enumerate(checkpoints, start=1):
        model = _network(architecture, state).to(device)
        for split, examples in splits.items():
            where = f"checkpoint {number} of {len(checkpoints)} (round {facts['round']}), {split} examples"
            progress.say(where)
            known = {name: facts[name] for name in ("kind", "round", "train_loss")}
            named = {**columns, **known, "target_loss": _number(facts["target_loss"]), "split": split}
            task = {**common, "facts": facts, "architecture": asdict(architecture), "code": code_digest()}
            folder = output / "partial" / _digest(task, [*state.values(), examples.inputs, examples.targets])
            try:
                if not all(is_intact(folder / name) for name in _OF_ONE):
                    spectra_of_network(
                        model, loss, examples, settings, folder, seed=seed, batch_size=batch_size,
                        operators=("hessian",), columns=named, memory=memory, tf32=tf32, save_every=save_every,
                        progress=progress,
                    )  # fmt: skip
                batches = examples.to(device).batches(batch_size)
                gradient = squared_gradient_norm(model, loss_function(loss), batches) if split == "train" else math.nan
            except NotFiniteError as error:
                raise NotFiniteError(f"{where}: {error}") from error
            collected["curvature"].append(_curvature(folder, gradient, [*columns, *SPECTRUM]))
            if facts["kind"] == "loss":
                for name in ("density", "eigenvalues"):
                    collected[name].append(read_table(folder / f"{name}.parquet"))
            computed.append({**facts, "split": split, **read_record(folder / "record.json")["runs"]["hessian"]})
    record = {**columns, **common, "spectra": computed, "environment": environment(device), **watch.cost()}
    for name, kinds in TABLES.items():
        write_table(_joined(collected[name], columns, kinds), output / f"{name}.parquet")
    write_record(record, output / "record.json")
    shutil.rmtree(output / "partial", ignore_errors=True)
    return record


def empty_tables(columns: Mapping[str, Any]) -> dict[str, pandas.DataFrame]:
    """The three tables without rows; the values of `columns` give its columns their kinds."""
    return {name: _joined([], columns, kinds) for name, kinds in TABLES.items()}


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _network(architecture: Architecture, state: Mapping[str, Tensor]) -> nn.Module:
    model = network_of(architecture)
    model.load_state_dict(dict(state))
    return model.eval()


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
    row = {"largest_eigenvalue": float(values.max()), "largest_magnitude": largest}
    for name, quantity in (("trace",) * 2, ("frobenius_squared",) * 2, ("absolute_sum", "absolute")):
        row[name] = total.loc[quantity, "value"]
        row[f"{name}_standard_error"] = total.loc[quantity, "standard_error"]
    for end in ("", "_standard_error"):
        row[f"kappa{end}"] = row[f"absolute_sum{end}"] / largest if largest > 0 else math.nan
    row["gradient_norm_squared"] = gradient
    return sums[list(names)].iloc[:1].assign(**row)


def _joined(frames: Sequence[pandas.DataFrame], columns: Mapping[str, Any], kinds: Mapping[str, str]):
    """The frames that have rows as one table; none make an empty one with the same columns."""
    names = [*columns, *SPECTRUM, *kinds]
    full = [frame for frame in frames if len(frame)]
    if full:
        return pandas.concat(full, ignore_index=True)[names].astype({**SPECTRUM, **kinds})
    given = pandas.DataFrame({name: [value] for name, value in columns.items()}).iloc[:0]
    return given.reindex(columns=names).astype({**SPECTRUM, **kinds})
