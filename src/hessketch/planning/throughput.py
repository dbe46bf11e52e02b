"""How long a device takes for work: from measurements on it, or by its data sheet, which is an estimate and says so.

A pass through a network takes

    layers * seconds of a call + examples * (flops * seconds of an operation + activations * seconds of a number)
    + vectors * parameters * seconds of a parameter

with four constants for each kind of pass and family of networks, none negative, fitted to the measurements
(`python -m benchmarks.throughput`) in relative errors; dense linear algebra its operations times a constant, by its
kind.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas
from scipy.optimize import nnls

from hessketch.errors import InputError, nearest
from hessketch.planning.sizes import FAMILIES
from hessketch.planning.work import CALLS, DENSE_OPERATIONS, OPERATIONS, Dense, Pass, Work
from hessketch.records import read_record

COLUMNS = [
    "kind", "label", "family", "parameters", "flops", "activations", "widest", "layers", "inputs", "outputs",
    "examples", "vectors", "seconds", "memory_mib",
]  # fmt: skip
DENSE = (*DENSE_OPERATIONS, "basis")
STARTS = ("job", "table", "figure", "notebook", *CALLS)
PREFIX = "throughput-"  # of folders with measurements
# What a family has no measurements of is taken for a kind that it has.
_INSTEAD = {"clients": "train", "points": "forward", "rows": "hessian", "jacobians": "gradient"}
_DOUBLE = ("points", "rows", "jacobians")  # in float64


@dataclass(frozen=True)
class DataSheet:
    """Published peaks of a GPU: operations a second in float32 (no tensor cores) and float64, bytes a second, bytes."""

    float32: float
    float64: float
    bandwidth: float
    memory: float


GPUS = {
    "h200": DataSheet(67e12, 34e12, 4.8e12, 141e9),
    "h100": DataSheet(67e12, 34e12, 3.35e12, 80e9),
    "a100": DataSheet(19.5e12, 9.7e12, 2.0e12, 80e9),
    "v100": DataSheet(15.7e12, 7.8e12, 0.9e12, 32e9),
    "l4": DataSheet(30.3e12, 0.47e12, 0.3e12, 24e9),
    "rtx4090": DataSheet(82.6e12, 1.3e12, 1.0e12, 24e9),
    "t4": DataSheet(8.1e12, 0.25e12, 0.32e12, 16e9),
}
# Of the peaks, what a network and a decomposition may be hoped to reach; seconds to launch what a layer consists of.
_EFFICIENCY, _OF_DECOMPOSITIONS, _LAUNCH = 0.4, 0.05, 2e-5
_START_OF_CUDA = 3.0  # seconds


@dataclass(frozen=True)
class Throughput:
    """One device: constants of passes (family, kind) -> (4,), of dense linear algebra, and of the starts of jobs."""

    name: str
    passes: Mapping[tuple[str, str], np.ndarray]
    dense: Mapping[str, float]
    starts: Mapping[str, float]  # seconds, of CALLS too
    idle: float  # bytes of a job that has loaded what it needs
    memory: float  # bytes of the device
    said: str  # where the numbers are from
    is_gpu: bool

    def seconds(self, work: Work) -> float:
        """Seconds of the work, without those of a job's start."""
        found = sum(n * self._of_pass(one) for one, n in work.passes.items())
        found += sum(n * self.starts[kind] for kind, n in work.calls.items())
        return found + sum(n * self._of_dense(one) for one, n in work.dense.items())

    def _of_pass(self, one: Pass) -> float:
        kind = one.kind if (one.network.family, one.kind) in self.passes else _INSTEAD[one.kind]
        features = _features(one.network.layers, one.network.flops, one.network.activations, one.network.parameters)
        return float(features(one.examples, one.vectors) @ self.passes[one.network.family, kind])

    def _of_dense(self, one: Dense) -> float:
        return self.dense[one.kind] * one.operations


def _features(layers: float, flops: float, activations: float, parameters: float):
    return lambda examples, vectors: np.array(
        [layers, flops * examples, activations * examples, parameters * vectors], dtype=float
    )


def measured(folder: Path) -> Throughput:
    """The device whose measurements are in a folder; raises InputError for one that lacks some."""
    path = folder / "measurements.csv"
    if not path.is_file():
        raise InputError(f"{path} is missing; make it: python -m benchmarks.throughput --output {folder}")
    table = pandas.read_csv(path)
    by_kind = {kind: rows for kind, rows in table.groupby("kind")}
    missing = [kind for kind in (*OPERATIONS, *DENSE, *STARTS) if kind not in by_kind]
    if missing or list(table.columns) != COLUMNS:
        raise InputError(
            f"{path} lacks {', '.join(missing) or 'columns'}; measure anew: python -m benchmarks.throughput "
            f"--output {folder}"
        )
    passes = {
        (family, kind): _fitted(rows)
        for kind in OPERATIONS
        for family, rows in by_kind[kind].groupby("family")
        if family in FAMILIES
    }
    dense = {kind: _constant(by_kind[kind], kind) for kind in DENSE}
    starts = {kind: float(by_kind[kind]["seconds"].iloc[0]) for kind in STARTS}
    idle = float(by_kind["job"]["memory_mib"].iloc[0]) * 2**20
    machine = read_record(folder / "record.json")
    is_gpu = str(machine["device"]).startswith("cuda")
    said = f"measured, {path}"
    return Throughput(folder.name.removeprefix(PREFIX), passes, dense, starts, idle, machine["memory"], said, is_gpu)


def _fitted(rows: pandas.DataFrame) -> np.ndarray:
    """The constants (4,) of least relative error, none negative."""
    features = np.stack(
        [
            _features(row.layers, row.flops, row.activations, row.parameters)(row.examples, row.vectors)
            for row in rows.itertuples()
        ]
    )
    scaled = features / rows["seconds"].to_numpy()[:, None]
    units = np.maximum(scaled.max(0), np.finfo(float).tiny)
    found, _ = nnls(scaled / units, np.ones(len(rows)))
    return found / units


def _constant(rows: pandas.DataFrame, kind: str) -> float:
    """Seconds an operation: of the largest that was measured, since small ones take no time that counts."""
    row = rows.loc[(rows["parameters"] * rows["examples"]).idxmax()]
    return float(row["seconds"] / Dense(kind, row["parameters"], row["examples"]).operations)


def by_data_sheet(name: str, host: Throughput) -> Throughput:
    """A GPU by its published peaks; what runs on its host takes as long as on one that was measured."""
    sheet = GPUS[name]
    passes: dict[tuple[str, str], np.ndarray] = {}
    for kind, operations in OPERATIONS.items():
        peak, size = (sheet.float64, 8) if kind in _DOUBLE else (sheet.float32, 4)
        bytes_a_second = _EFFICIENCY * sheet.bandwidth
        # Each number is written once and read once by every pass of the kind.
        moved = 2 * size * operations / bytes_a_second
        found = np.array([_LAUNCH * operations, operations / (_EFFICIENCY * peak), moved, moved])
        passes |= {(family, kind): found for family in FAMILIES}
    dense = {kind: 1 / (_OF_DECOMPOSITIONS * sheet.float64) for kind in DENSE_OPERATIONS}
    dense["product"] = 1 / (_EFFICIENCY * sheet.float64)
    dense["basis"] = 2 / (_EFFICIENCY * sheet.bandwidth)  # 4 bytes, 2 operations on each while it is read
    starts = {**host.starts, "job": host.starts["job"] + _START_OF_CUDA}
    peaks = (
        f"{sheet.float32 / 1e12:g} and {sheet.float64 / 1e12:g} TFLOP/s float32 and 64, {sheet.bandwidth / 1e12:g} TB/s"
    )
    said = (
        f"an ESTIMATE from published peaks: {peaks}, {_EFFICIENCY:.0%} of them reached, by decompositions "
        f"{_OF_DECOMPOSITIONS:.0%}; not measured"
    )
    return Throughput(name, passes, dense, starts, host.idle, sheet.memory, said, True)


def find_device(name: str | None, folder: Path) -> Throughput:
    """A device by its name: one with measurements below `folder`, or one of GPUS; by default the first measured.

    Raises InputError, naming those that are known, for any other, and where nothing has been measured.
    """
    folders = sorted(path for path in folder.glob(f"{PREFIX}*") if path.is_dir())
    names = [path.name.removeprefix(PREFIX) for path in folders]
    if not folders:
        raise InputError(
            f"no measurements in {folder}; run in the repository's folder, give --workflow FOLDER, or measure this "
            f"machine: python -m benchmarks.throughput --output {folder / PREFIX}NAME"
        )
    if name is None or name in names:
        return measured(folders[names.index(name or names[0])])
    if name not in GPUS:
        known = [*names, *GPUS]
        raise InputError(f"device {name!r} is unknown; allowed: {', '.join(known)}{nearest(name, known)}")
    return by_data_sheet(name, measured(next((p for p in folders if "-cpu-" in p.name), folders[0])))
