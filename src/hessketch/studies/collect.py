"""Everything that a profile's jobs wrote, as a few long tables."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from hessketch.config import runs_of
from hessketch.federation_config import federated_runs_of, spectra_of
from hessketch.records import read_record, read_table
from hessketch.runs import IDENTITY, Run
from hessketch.studies.sharper_sketching import TRAINER
from hessketch.trainers import trainer_columns

SPECTRUM_TABLES = ("density", "ritz", "eigenvalues", "bounds", "sums")
_FACTS = ("status", "diverged_at", "epochs", "n", "p", "classes", "wall_seconds", "peak_memory_mib")
_FEDERATED_FACTS = (
    "status", "diverged_at", "rounds", "n", "p", "classes", "clients", "upload_numbers", "upload_bytes",
    "download_bytes", "reduction_numbers", "reduction_bytes", "wall_seconds", "peak_memory_mib",
)  # fmt: skip
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
    """The rounds of the federated runs that are `selected` (in the order of `collect_federated_runs`), named by run.

    Without any the table is empty and has its columns.
    """
    runs = federated_runs_of(config)
    chosen = [run for run, is_chosen in zip(runs, selected, strict=True) if is_chosen]
    frames = [_rounds_of(run, results) for run in chosen]
    # Of a run that diverged in its first round there are no rows, whose columns would spoil the kinds of others'.
    full = [frame for frame in frames if len(frame)]
    return pd.concat(full, ignore_index=True) if full else _rounds_of(runs[0], results).iloc[:0]


def _rounds_of(run: Run, results: Path) -> pd.DataFrame:
    rounds = read_table(results / f"runs/{run.path}/rounds.parquet")
    return rounds.assign(**run.identity(), **trainer_columns(run))[[*IDENTITY, *TRAINER, *rounds.columns]]


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
