"""Everything that a profile's jobs wrote, as a few long tables."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from hessketch.config import runs_of
from hessketch.federation_config import federated_runs_of, spectra_of, trainer_columns
from hessketch.records import read_record, read_table
from hessketch.runs import IDENTITY
from hessketch.studies.sharper_sketching import TRAINER

SPECTRUM_TABLES = ("density", "ritz", "eigenvalues", "bounds", "sums")
_FACTS = ("status", "diverged_at", "epochs", "n", "p", "classes", "wall_seconds", "peak_memory_mib")
_FEDERATED_FACTS = (
    "status", "diverged_at", "rounds", "n", "p", "classes", "clients", "upload_numbers", "upload_bytes",
    "download_bytes", "reduction_numbers", "reduction_bytes", "wall_seconds", "peak_memory_mib",
)  # fmt: skip
_ROUNDS = {
    "round": "int64",
    "server_rate": "float64",
    "train_loss": "float64",
    "train_accuracy": "float64",
    "test_loss": "float64",
    "test_accuracy": "float64",
    "update_norm": "float64",
    "lift_error": "float64",
    "lift_error_theory": "float64",
    "error_norm": "float64",
    "upload_bytes": "float64",
    "download_bytes": "float64",
    "participants": "int64",
    "seconds": "float64",
}
_RESULTS = ("train_loss", "train_accuracy", "test_loss", "test_accuracy")


def collect_runs(config: Mapping[str, Any], results: Path) -> pd.DataFrame:
    """One row a trained run: its identity, whether its rate was selected, status, sizes, losses, accuracies, cost.

    `config` is a profile's full config, `results` its folder. Results of a diverged run are NaN: its weights are
    those of the last finite epoch, and no figure should take them for a trained network.
    """
    runs = runs_of(config)
    cells = {run.cell.path for run in runs}
    chosen = {cell: read_record(results / f"selected/{cell}/selection.json")["run"] for cell in cells}
    rows = []
    for run in runs:
        record = read_record(results / f"runs/{run.path}/record.json")
        rows.append(
            {
                **run.identity(),
                "selected": run.path == chosen[run.cell.path],
                **{name: record[name] for name in _FACTS},
                **_results(record),
            }
        )
    return pd.DataFrame(rows)


def _results(record: Mapping[str, Any]) -> dict[str, float]:
    finished = record["status"] == "finished"
    return {name: float(record[name]) if finished else float("nan") for name in _RESULTS}


def collect_spectra(config: Mapping[str, Any], results: Path) -> dict[str, pd.DataFrame]:
    """The tables density, ritz, eigenvalues, bounds and sums of every selected run and split, each as one."""
    cells = dict.fromkeys(run.cell.path for run in runs_of(config))
    folders = [results / "spectra" / cell / split for cell in cells for split in config["spectrum"]["splits"]]
    tables = {}
    for name in SPECTRUM_TABLES:
        frames = [read_table(folder / f"{name}.parquet") for folder in folders]
        # An empty frame (nothing deflated) has columns without values, whose kinds would spoil the others'.
        tables[name] = pd.concat([f for f in frames if len(f)] or frames[:1], ignore_index=True)
    return tables


def collect_federated_runs(config: Mapping[str, Any], results: Path) -> pd.DataFrame:
    """One row a federated run, of all rates: identity, trainer, status, sizes, bytes, losses, accuracies, cost.

    The trainer's columns are method, error_feedback and reduction (NaN for uncompressed). Results of a diverged run are
    NaN; `rounds` are those that it did.
    """
    rows = []
    for run in federated_runs_of(config):
        record = read_record(results / f"runs/{run.path}/record.json")
        facts = {name: record[name] for name in _FEDERATED_FACTS}
        rows.append({**run.identity(), **trainer_columns(run), **facts, **_results(record)})
    return pd.DataFrame(rows)


def collect_rounds(config: Mapping[str, Any], results: Path, selected: Sequence[bool]) -> pd.DataFrame:
    """The rounds of the federated runs that are `selected` (in the order of `collect_federated_runs`), named by run."""
    frames = []
    for run, chosen in zip(federated_runs_of(config), selected, strict=True):
        if chosen:
            rounds = read_table(results / f"runs/{run.path}/rounds.parquet")
            frames.append(rounds.assign(**run.identity(), **trainer_columns(run)))
    names = [*IDENTITY, *TRAINER, *_ROUNDS]
    # A run that diverged in its first round has a table without rows, and only some of the columns.
    full = [frame for frame in frames if len(frame)]
    joined = pd.concat(full, ignore_index=True)[names] if full else pd.DataFrame(columns=names)
    return joined.astype(_ROUNDS)


def collect_checkpoint_spectra(config: Mapping[str, Any], results: Path) -> dict[str, pd.DataFrame]:
    """The tables curvature, density and eigenvalues of the checkpoints of every trainer in `spectra_of`, each as one.

    Without any they are empty and have their columns.
    """
    from hessketch.curvature.checkpoint_spectra import empty_tables

    runs = federated_runs_of(config)
    cells = dict.fromkeys(run.cell.path for run in runs if run.trainer in spectra_of(config["federation"]))
    tables = {}
    for name, empty in empty_tables({**runs[0].identity(), **trainer_columns(runs[0])}).items():
        frames = [read_table(results / f"checkpoint_spectra/{cell}/{name}.parquet") for cell in cells]
        full = [frame for frame in frames if len(frame)]
        tables[name] = pd.concat(full, ignore_index=True) if full else empty
    return tables
