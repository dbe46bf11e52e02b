"""Flower's simulation engine in a process of its own, so that its rounds can be timed in turns with others."""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.client_rounds import Task

DISTRIBUTIONS = ("flwr", "ray")
_START = "from benchmarks.flower_app import main; main()"  # by name: what is imported is not sent to workers whole
_VERSIONS = f"from importlib.metadata import version; print(*map(version, {DISTRIBUTIONS}))"


def versions(python: str) -> dict[str, str] | None:
    """Versions of Flower and Ray that an interpreter finds, None where it finds none."""
    done = subprocess.run([python, "-c", _VERSIONS], capture_output=True, text=True)
    return dict(zip(DISTRIBUTIONS, done.stdout.split(), strict=True)) if done.returncode == 0 else None


class FlowerSimulation:
    """A simulation that waits for `round()`, `rounds` times; a context, at whose end its processes end too."""

    def __init__(self, task: Task, rounds: int, workers: int, python: str = sys.executable):
        self._folder = tempfile.TemporaryDirectory(prefix="flower-", ignore_cleanup_errors=True)
        folder = Path(self._folder.name)
        self._weights, self._log = folder / "weights.pt", open(folder / "log", "w+")  # noqa: SIM115 (closed in __exit__)
        self._process = subprocess.Popen(
            [python, "-c", _START, json.dumps([task.facts, rounds, workers, str(self._weights)])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env=os.environ | _settings(folder),
        )
        self.cpu_seconds: list[float] = []
        """Of all its processes, a round."""

    def round(self) -> None:
        """Raises RuntimeError, with the end of the log, where the simulation has stopped."""
        try:
            self._process.stdin.write("round\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            self._log.seek(0)
            raise RuntimeError(f"Flower's simulation stopped: {self._log.read()[-2000:]}")
        self.cpu_seconds.append(float(line))

    @property
    def weights(self) -> Tensor:
        """Weights (p,) after the last round."""
        return torch.load(self._weights, weights_only=True)

    def __enter__(self) -> "FlowerSimulation":
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(BrokenPipeError):  # a line that the ended process did not read
            self._process.stdin.close()
        try:
            self._process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self._process.kill()  # Ray's own processes end with the one that started them
            self._process.wait()
        self._process.stdout.close()
        self._log.close()
        self._folder.cleanup()


def _settings(folder: Path) -> dict[str, str]:
    """Environment: where modules are, nothing reported to anybody, nothing left in the home folder."""
    here = str(Path(__file__).resolve().parents[1])
    path = os.pathsep.join([here, *filter(None, [os.environ.get("PYTHONPATH")])])
    quiet = {"FLWR_TELEMETRY_ENABLED": "0", "RAY_USAGE_STATS_ENABLED": "0"}
    return {"PYTHONPATH": path, "FLWR_HOME": str(folder), "CUBLAS_WORKSPACE_CONFIG": ":4096:8", **quiet}


def cpu_seconds(process: int) -> float:
    """CPU time so far of a process and all that descend from it and still run, as Linux counts it; else NaN."""
    seconds, parents = {}, {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:  # it has ended meanwhile
            continue
        number = int(stat.parent.name)
        parents[number] = int(fields[1])
        seconds[number] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return sum(s for n, s in seconds.items() if _descends(n, process, parents)) if seconds else float("nan")


def _descends(number: int, ancestor: int, parents: dict[int, int]) -> bool:
    while number != ancestor and number in parents:
        number = parents[number]
    return number == ancestor
