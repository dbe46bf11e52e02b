"""Measurements of a device that never was: a second for every unit, written as the benchmark writes them."""

from itertools import product
from pathlib import Path

import pandas as pd

from hessketch.planning.throughput import COLUMNS, DENSE, STARTS
from hessketch.planning.work import OPERATIONS
from hessketch.records import write_record

# Seconds of a layer, an operation, a number and a parameter.
CONSTANTS = (1e-5, 2e-10, 3e-9, 4e-9)


def write_throughput(folder: Path, name: str = "cpu-toy") -> Path:
    """A folder throughput-NAME whose passes take what CONSTANTS say."""
    rows = [{"kind": kind, "parameters": 1000, "examples": 1000, "seconds": 0.1} for kind in DENSE]
    rows += [{"kind": kind, "seconds": 2.0, "memory_mib": 400.0} for kind in STARTS]
    for kind, family, (layers, flops, numbers, p) in product(
        OPERATIONS,
        ("convolutions", "matrices"),
        [(5, 1e3, 100, 500), (9, 1e6, 1e4, 2e3), (20, 1e7, 3e4, 1e6), (40, 2e5, 900, 9e5), (7, 1e4, 5e4, 10)],
    ):
        size = {"family": family, "layers": layers, "flops": flops, "activations": numbers, "parameters": p}
        for examples, vectors in ((1, 1), (100, 1), (300, 20)):
            units = (layers, flops * examples, numbers * examples, p * vectors)
            seconds = sum(c * u for c, u in zip(CONSTANTS, units, strict=True))
            rows.append({"kind": kind, **size, "examples": examples, "vectors": vectors, "seconds": seconds})
    path = folder / f"throughput-{name}"
    path.mkdir(parents=True)
    pd.DataFrame(rows).reindex(columns=COLUMNS).to_csv(path / "measurements.csv", index=False)
    write_record({"device": "cpu", "memory": 64e9}, path / "record.json")
    return path
