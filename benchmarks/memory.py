"""Peak memory of one candidate: on a GPU as torch counts it, on a CPU (with Linux) of a process of its own.

`python -m benchmarks.memory '<arguments as JSON>'` is that process; `of_process` starts it.
"""

import gc
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.peers import CANDIDATES, Batch, Maker
from benchmarks.problems import timed, unit_vector

_MIB = 2**20


def on_device(make: Maker, model: nn.Module, batches: Sequence[Batch], vector: Tensor) -> float:
    """MiB on the GPU above model, data and vector: what is kept between products and what one product adds."""
    gc.collect()
    before = torch.cuda.memory_allocated(vector.device)
    torch.cuda.reset_peak_memory_stats(vector.device)
    product = make(model, batches)
    for _ in range(2):
        product(vector)
    return (torch.cuda.max_memory_allocated(vector.device) - before) / _MIB


def of_process(network: str, width: float, examples: int, batch: int, operator: str, candidate: str) -> float:
    """MiB of resident memory that a process needs above the one that holds model, data and vector."""
    words = json.dumps([network, width, examples, batch, operator, candidate])
    done = subprocess.run([sys.executable, "-m", __name__, words], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{candidate}, {operator} of {network}: {done.stderr.strip().splitlines()[-1]}")
    return float(done.stdout)


def _resident(field: str) -> float:
    """MiB of this process by the kernel's count: `VmRSS` now, `VmHWM` at its highest since it was reset."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def _main() -> None:
    network, width, examples, batch, operator, name = json.loads(sys.argv[1])
    torch.set_num_threads(1)
    problem = timed(network, width, examples, batch, torch.device("cpu"))
    candidate = next(c for c in CANDIDATES if c.name == name)
    vector = unit_vector(problem.parameters, torch.device("cpu"))
    gc.collect()
    before = _resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark
    product = candidate.makers[operator](problem.model, problem.batches)
    for _ in range(2):
        product(vector)
    print(_resident("VmHWM") - before)


if __name__ == "__main__":
    _main()
