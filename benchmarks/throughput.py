"""How fast this machine does what the pipeline's jobs consist of: `python -m benchmarks.throughput --output FOLDER`.

One row of measurements.csv a measurement: seconds of one call by its kind and size, for `python -m hessketch plan`,
which fits what lies between. On a CPU seconds are CPU time of one thread, as jobs of the pipeline have it.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import nbformat
import pandas as pd
import torch

from benchmarks.machine import record
from benchmarks.throughput_passes import CASES, Case, passes_of
from hessketch.eigenspaces.metric_study import PAIRS, random_angles
from hessketch.eigenspaces.overlaps import Weights, mask_tables
from hessketch.eigenspaces.settings import RATIOS
from hessketch.linalg.basis import Basis
from hessketch.linalg.dense_eigenpairs import dense_eigenpairs
from hessketch.linalg.grassmannian import similarities
from hessketch.planning.throughput import COLUMNS, DENSE, STARTS
from hessketch.records import read_table, write_atomically, write_record, write_table

_LEAST_SECONDS, _MOST_CALLS = 0.1, 7
_LONG = 1.0  # seconds of a call whose preparations do not count
# What a job of each kind does before and besides its own work, as a program.
PROGRAMS = {
    "job": "import hessketch.curvature.job, hessketch.training.job, hessketch.data.prepared, hessketch.linalg.methods\n"
    "from hessketch.devices import prepare_device; prepare_device('cpu')",
    "table": "import hessketch.studies.full_spectrum, hessketch.cli",
    "figure": "import matplotlib; matplotlib.use('Agg'); import hessketch.figures.curves, hessketch.cli\n"
    "import matplotlib.pyplot as p; f, a = p.subplots(1, 3, figsize=(12, 4))\n"
    "[x.plot(range(99)) for x in a]; [x.set_yscale('log') for x in a]\n"
    "import tempfile; d = tempfile.mkdtemp(); [f.savefig(d + '/f.' + e) for e in ('pdf', 'png')]",
}
_CELLS = ["import hessketch.figures.curves, pandas, matplotlib.pyplot as p"] + ["p.plot(range(99)); p.show()"] * 6


def seconds_of(call: Callable[[], object], device: torch.device) -> float:
    """Least seconds of some calls, since others on the machine only add to it.

    The first, which makes what is made once, counts only where it is long.
    """
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    taken: list[float] = []
    while len(taken) < 3 or (len(taken) < _MOST_CALLS and sum(taken) < _LEAST_SECONDS):
        _synchronise(device)
        start = clock()
        call()
        _synchronise(device)
        taken.append(clock() - start)
        if taken[0] > _LONG:
            return taken[0]
    return min(taken[1:])


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def measured_passes(case: Case, device: torch.device) -> Iterator[dict[str, Any]]:
    """A row for each kind of pass through the network of a case."""
    for kind, calls, examples, vectors, call in passes_of(case, device):
        seconds = seconds_of(call, device) / calls
        yield {"kind": kind, **asdict(case.size), "examples": examples, "vectors": vectors, "seconds": seconds}


def measured_dense(device: torch.device) -> Iterator[dict[str, Any]]:
    """Dense linear algebra in float64, and projections out of a basis in float32."""
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(device)

    for p in (250, 500, 1000, 2000):
        matrix = random(p, p)
        matrix, rows = matrix + matrix.T, random(p // 2, p)
        calls = {
            "eigh": lambda matrix=matrix: torch.linalg.eigh(matrix),
            "tridiagonal": lambda matrix=matrix, p=p: dense_eigenpairs(matrix, p // 20),
            "svd": lambda rows=rows: torch.linalg.svd(rows, full_matrices=False),
            "product": lambda matrix=matrix: matrix @ matrix,
        }
        for kind, call in calls.items():
            rank = p // 2 if kind == "svd" else p
            yield {"kind": kind, "parameters": p, "examples": rank, "seconds": seconds_of(call, device)}
    for p, count in ((1000, 200), (50_000, 80), (1_000_000, 40)):
        basis, vector = Basis(p, torch.float32, device), random(p).float()
        for _ in range(count):
            basis.append(vector)
        seconds = seconds_of(lambda basis=basis, vector=vector: basis.project_out(vector), device)
        yield {"kind": "basis", "parameters": p, "examples": count, "seconds": seconds}


def measured_starts() -> Iterator[dict[str, Any]]:
    """CPU seconds and memory of programs that do nothing but what all jobs of a kind do."""
    for kind, program in PROGRAMS.items():
        yield {"kind": kind, **_of_process([sys.executable, "-c", program])}
    with tempfile.TemporaryDirectory() as folder:
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in _CELLS])
        nbformat.write(notebook, Path(folder) / "cells.ipynb")
        words = [sys.executable, "-m", "jupyter", "nbconvert", f"{folder}/cells.ipynb", "--to", "html", "--execute"]
        yield {"kind": "notebook", **_of_process(words)}


def measured_calls() -> Iterator[dict[str, Any]]:
    """What takes as long whatever the size of a network: see `planning.work.CALLS`."""
    cpu = torch.device("cpu")
    table = pd.DataFrame({f"column{i}": range(100) for i in range(20)})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "table.parquet"
        seconds = seconds_of(lambda: (write_table(table, path), read_table(path)), cpu)
        yield {"kind": "file", "seconds": seconds}
    p, layers = 3000, {f"layer{i}": 250 for i in range(12)}
    vectors = torch.linalg.qr(torch.randn(p, 60, generator=torch.Generator().manual_seed(0))).Q
    weights = Weights(vectors[:, 0], layers, torch.ones(p, dtype=torch.bool))
    generator = torch.Generator().manual_seed(0)
    seconds = seconds_of(lambda: similarities(random_angles(PAIRS[0], 64, 6, generator)), cpu)
    yield {"kind": "angles", "seconds": seconds}
    yield {"kind": "masks", "seconds": seconds_of(lambda: mask_tables(vectors, weights, RATIOS), cpu)}


def _of_process(words: list[str]) -> dict[str, float]:
    found = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        found.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return {"seconds": min(found), "memory_mib": after.ru_maxrss / 1024}


def measure(device: torch.device) -> pd.DataFrame:
    """All measurements, with COLUMNS."""
    rows = [*measured_starts(), *measured_dense(device)]
    rows += measured_calls()
    assert {row["kind"] for row in rows} == {*STARTS, *DENSE}
    for number, case in enumerate(CASES, start=1):
        print(f"{number} of {len(CASES)}: {case.size.label}, {case.examples} examples", flush=True)
        rows += measured_passes(case, device)
    return pd.DataFrame(rows).reindex(columns=COLUMNS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder of the results, throughput-NAME")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    if device.type == "cpu":
        torch.set_num_threads(1)
    table = measure(device)
    clock = "CPU time, one thread" if device.type == "cpu" else "wall time"
    write_atomically(arguments.output / "measurements.csv", lambda path: table.to_csv(path, index=False))
    facts = {**record(device, {"clock": clock}), "memory": _memory_of(device)}
    write_record(facts, arguments.output / "record.json")


def _memory_of(device: torch.device) -> int:
    """Bytes of the device's memory."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


if __name__ == "__main__":
    main()
