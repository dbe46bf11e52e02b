"""Everything that a profile's jobs wrote, as a few long tables."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from hessketch.config import runs_of
from hessketch.records import read_record, read_table

SPECTRUM_TABLES = ("density", "ritz", "eigenvalues", "bounds", "sums")
_FACTS = ("status", "diverged_at", "epochs", "n", "p", "classes", "wall_seconds", "peak_memory_mib")
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
        finished = record["status"] == "finished"
        rows.append(
            {
                **run.identity(),
                "selected": run.path == chosen[run.cell.path],
                **{name: record[name] for name in _FACTS},
                **{name: float(record[name]) if finished else float("nan") for name in _RESULTS},
            }
        )
    return pd.DataFrame(rows)


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
