"""Spectra of the predictor Hessian of single training examples along trainings, as tables on disk.

H_i = l'_i d2 f(theta; x_i) (Shrivastava et al., NeurIPS 2024): the operator `predictor`. Two estimators stand side by
side: `paper`, stochastic Lanczos quadrature with its smoothed sum as in the authors' code, and `fast`.
"""

import hashlib
import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import torch
from torch import nn

from hessketch.curvature.job import NETWORK_MODE, tensors_digest
from hessketch.curvature.predictor_estimators import spectra_of_example
from hessketch.curvature.predictor_settings import PredictorSettings
from hessketch.curvature.resume import LanczosStore
from hessketch.curvature.tables import joined
from hessketch.data.examples import Examples
from hessketch.data.of_run import examples_of_run
from hessketch.data.prepared import PreparedData
from hessketch.errors import InputError, NotFiniteError
from hessketch.linalg.density import Density
from hessketch.progress import Progress
from hessketch.provenance import Stopwatch, code_digest, environment
from hessketch.records import is_intact, read_record, read_table, write_record, write_table
from hessketch.runs import Run
from hessketch.seeds import derive_seed
from hessketch.trainers import trainer_columns

# What names one spectrum, besides the columns that the caller gives, then what is known of it.
SPECTRUM = {
    "kind": "str",
    "time": "int64",
    "train_loss": "float64",
    "example": "int64",
    "label": "int64",
    "p": "int64",
    "outputs": "int64",
    "estimator": "str",
}
# kappa is the sum of |eigenvalues| over the largest magnitude, its standard error that of the sum over the same, NaN
# where H_i is zero; slope is l'_i of a single output; kappa_lower bounds from below what the same start vectors see
# (`lower_absolute_sum`), far below kappa where the steps do not resolve the eigenvalues near zero. For `paper`, else
# NaN: kappa_smoothed and kappa_floor, the authors' smoothed sum and what their smoothing makes of p zeros, over the
# largest magnitude; their kernel is that of d2 f for a single output, as their code leaves l'_i out, else that of H_i.
KAPPA = {
    **dict.fromkeys(
        (
            "example_loss", "slope", "largest_eigenvalue", "smallest_eigenvalue", "largest_magnitude", "absolute_sum",
            "absolute_sum_standard_error", "kappa", "kappa_standard_error", "kappa_lower", "kappa_smoothed",
            "kappa_floor",
        ),
        "float64",
    ),
    "products": "int64",
    "seconds": "float64",
}  # fmt: skip
DENSITY = dict.fromkeys(("eigenvalue", "density", "density_standard_error", "broadening"), "float64")
TABLES = {"kappa": KAPPA, "density": DENSITY}


@dataclass(frozen=True)
class Training:
    """One training whose networks are looked at."""

    name: str  # in messages
    columns: Mapping[str, Any]  # of its rows in the tables
    loss: str
    examples: Examples  # those it trained on
    checkpoints: Iterable[tuple[Mapping[str, Any], nn.Module]]  # facts kind, time, train_loss, and a network
    seed: int  # of the start vectors, the same for all its checkpoints and examples


def training_of_run(
    run: Run, prepared: PreparedData, checkpoints: Iterable[tuple[Mapping[str, Any], nn.Module]]
) -> Training:
    """A run with the examples that it trained on; the start vectors are those of all trainers, losses and rates."""
    return Training(
        name=run.path,
        columns={**run.identity(), **trainer_columns(run)},
        loss=run.loss,
        examples=examples_of_run(run, prepared, "train", run.examples_per_class),
        checkpoints=checkpoints,
        seed=derive_seed(run.seed, f"{run.dataset}/{run.network_label}", "predictor spectra"),
    )


def checkpoints_at_epochs(
    checkpoints: Sequence[tuple[Mapping[str, Any], Any]], epochs: Sequence[int], run: str, diverged: bool
) -> list[tuple[dict[str, Any], Any]]:
    """Those of a trajectory at the wanted epochs, with facts kind `epoch`, time and train_loss.

    Raises InputError, naming those that exist, for an epoch that is missing, unless the run diverged: then those that
    exist are given.
    """
    found = {facts["epoch"]: (facts, state) for facts, state in checkpoints}
    missing = [epoch for epoch in epochs if epoch not in found]
    if missing and not diverged:
        raise InputError(
            f"{run}: no weights of epoch {', '.join(map(str, missing))} were kept; there are epochs "
            f"{', '.join(f'{epoch:g}' for epoch in found)}"
        )
    there = [(epoch, *found[epoch]) for epoch in epochs if epoch in found]
    return [({"kind": "epoch", "time": t, "train_loss": facts["train_loss"]}, state) for t, facts, state in there]


def checkpoints_of_rounds(checkpoints: Iterable[tuple[Mapping[str, Any], Any]]) -> list[tuple[dict[str, Any], Any]]:
    """Those that a federated training kept by their round, with facts kind `round`, time and train_loss."""
    return [
        ({"kind": "round", "time": facts["round"], "train_loss": facts["train_loss"]}, state)
        for facts, state in checkpoints
        if facts["kind"] == "round"
    ]


def predictor_spectra(
    trainings: Sequence[Training],
    examples: Sequence[int],
    settings: PredictorSettings,
    output: Path,
    *,
    device: torch.device | str = "cpu",
    save_every: float = 30.0,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Spectra of H_i for the given places in the training subset; writes kappa, density and `record.json` to `output`.

    Rows are those of all trainings, checkpoints, examples and estimators. `kappa.parquet` has the trainings' columns,
    those of SPECTRUM and those of KAPPA, `density.parquet` those of DENSITY instead, in units of H_i. Networks may be
    float32 or float64.

    A finished (checkpoint, example) is kept in `output/partial` until all are done, and a long Lanczos run of `fast`
    leaves its state there every `save_every` seconds, so that a killed job goes on. `device` is that of the networks,
    for the record, which is returned. Raises InputError for an example that does not exist, before anything is
    computed, and NotFiniteError naming the checkpoint where outputs or products hold NaN.
    """
    progress, watch = progress or Progress("predictor spectra"), Stopwatch()
    for training in trainings:
        _require_examples(examples, len(training.examples))
    collected: dict[str, list[pandas.DataFrame]] = {name: [] for name in TABLES}
    computed = []
    for training in trainings:
        for facts, model in training.checkpoints:
            for index in examples:
                folder = _finished(training, facts, model, index, settings, output, save_every, progress)
                for name, frames in collected.items():
                    frames.append(read_table(folder / f"{name}.parquet"))
                computed.append(read_record(folder / "record.json"))
    record = {
        "trainings": [
            {"name": t.name, **t.columns, "loss": t.loss, "seed_of_start_vectors": t.seed} for t in trainings
        ],
        "examples": list(examples),
        "settings": asdict(settings),
        "network_mode": NETWORK_MODE,
        "spectra": computed,
        "environment": environment(device),
        **watch.cost(),
    }
    columns = trainings[0].columns if trainings else {}
    for name, kinds in TABLES.items():
        write_table(joined(collected[name], columns, {**SPECTRUM, **kinds}), output / f"{name}.parquet")
    write_record(record, output / "record.json")
    shutil.rmtree(output / "partial", ignore_errors=True)
    return record


def _require_examples(indices: Sequence[int], count: int) -> None:
    for index in indices:
        if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < count:
            raise InputError(
                f"example {index!r} given; allowed: 0 to {count - 1}, the places in the run's training subset"
            )
    if not indices or len(set(indices)) < len(indices):
        raise InputError(f"examples {list(indices)} given; allowed: at least one, each once")


def _finished(
    training: Training,
    facts: Mapping[str, Any],
    model: nn.Module,
    index: int,
    settings: PredictorSettings,
    output: Path,
    save_every: float,
    progress: Progress,
) -> Path:
    """The folder with the tables of one checkpoint and example, computed unless they are there already."""
    like = next(model.parameters())
    x = training.examples.inputs[index : index + 1].to(like)
    y = training.examples.targets[index : index + 1].to(like.device)
    task = {
        **{"columns": dict(training.columns), "facts": dict(facts), "example": index, "loss": training.loss},
        **{"settings": asdict(settings), "seed": training.seed, "code": code_digest(), "dtype": str(like.dtype)},
        "tensors": tensors_digest([*model.state_dict().values(), x, y]),
    }
    identity = hashlib.sha256(json.dumps(task, sort_keys=True).encode()).hexdigest()
    folder = output / "partial" / identity[:32]
    if all(is_intact(folder / name) for name in ("record.json", *(f"{table}.parquet" for table in TABLES))):
        return folder
    where = f"{training.name}, {facts['kind']} {facts['time']}, example {index}"
    try:
        found = spectra_of_example(
            model, training.loss, x, y, settings, training.seed, progress=progress,
            stores=lambda name: LanczosStore(folder / "lanczos" / name, identity, save_every),
        )  # fmt: skip
    except NotFiniteError as error:
        raise NotFiniteError(f"{where}: {error}") from error
    why = {name: "" if row["largest_magnitude"] > 0 else ": H_i is zero" for name, row in found.rows.items()}
    kappas = (f"kappa {row['kappa']:.4g} ({name}{why[name]})" for name, row in found.rows.items())
    progress.say(f"{where}: {', '.join(kappas)}")
    known = {name: facts[name] for name in ("kind", "time", "train_loss")} | {"example": index, "label": int(y)}
    named = {**training.columns, **known, **{name: found.record[name] for name in ("p", "outputs")}}
    kappa = pandas.DataFrame([{**named, "estimator": name, **row} for name, row in found.rows.items()])
    frames = [_density_frame(d).assign(**named, estimator=name) for name, d in found.densities.items()]
    density = pandas.concat(frames, ignore_index=True)
    write_table(kappa, folder / "kappa.parquet")
    write_table(density, folder / "density.parquet")
    write_record({**known, **found.record, "tensors": task["tensors"]}, folder / "record.json")
    shutil.rmtree(folder / "lanczos", ignore_errors=True)
    return folder


def _density_frame(density: Density) -> pandas.DataFrame:
    values = (density.eigenvalues, density.density, density.standard_error, np.float64(density.broadening))
    return pandas.DataFrame(dict(zip(DENSITY, values, strict=True)))
