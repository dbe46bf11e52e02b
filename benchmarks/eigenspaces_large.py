"""Time and peak memory of 200 eigenpairs of half a million parameters, each method in a process of its own.

`python -m benchmarks.eigenspaces_large '<arguments as JSON>'` is that process; `measure` starts it.
"""

import gc
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks.eigenspaces_accuracy import products_for
from benchmarks.eigenspaces_methods import BEST_PEER, TOGETHER, Found, Method, available, sketched
from benchmarks.eigenspaces_problems import Network, network
from hessketch.curvature.measurement_files import MeasurementFiles
from hessketch.linalg.vectors import Operator
from hessketch.networks.registry import build_network
from hessketch.progress import Progress

PART = "half a million parameters"
REFERENCE = "lanczos"  # whose pairs have residuals far below the others' errors
_NETWORK, _STEPS, _IMAGES_PER_CLASS = "mlp_tanh", 100, 20
_STREAMED = "sketched, 2 passes, streamed to disk"
_BUDGET = 2**30  # bytes of memory that it is given, the eigenvectors among them
_SAMPLED = 0.02  # seconds between looks at the memory


def _streamed(operator: Operator, pairs: int, products: int, seed: int) -> Found:
    with tempfile.TemporaryDirectory() as folder:
        store = MeasurementFiles(folder, "benchmark")
        return sketched(operator, pairs, products, seed, passes=2, store=store, memory=_BUDGET)


_TAKEN = ("lanczos", "block_krylov", "sketched, 2 passes", BEST_PEER)
METHODS = (*(m for m in available() if m.name in _TAKEN), Method(_STREAMED, _streamed))


def measure(pairs: int, width: float, progress: Progress) -> list[dict]:
    """Rows of the long table: CPU seconds, memory over that of the products, and errors against the reference."""
    report = progress.stage(PART)
    answers = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.pt"
        made = network(_NETWORK, width, _STEPS, _IMAGES_PER_CLASS)
        torch.save({"state": made.model.state_dict(), "batches": list(made.batches)}, path)
        for done, method in enumerate(METHODS, start=1):
            words = json.dumps([str(path), width, pairs, method.name])
            ran = subprocess.run([sys.executable, "-m", __name__, words], capture_output=True, text=True)
            if ran.returncode:
                raise RuntimeError(f"{method.name}: {ran.stderr.strip().splitlines()[-1]}")
            answers[method.name] = json.loads(ran.stdout)
            report(done, len(METHODS))
    return [row for name, answer in answers.items() for row in _rows(name, answer, answers, pairs)]


def _rows(name: str, answer: dict, answers: dict[str, dict], pairs: int) -> list[dict]:
    exact, peer = np.abs(answers[REFERENCE]["values"]), answers.get(BEST_PEER)
    shared = {"part": PART, "problem": f"p={answer['p']}", "method": name, "pairs": pairs}
    quantities = {q: answer[q] for q in ("seconds", "products seconds", "anonymous MiB", "resident MiB")}
    quantities["seconds over products alone"] = answer["seconds"] - answer["products seconds"]
    if peer is not None:
        quantities["times faster than the peer"] = peer["seconds"] / answer["seconds"]
        quantities["share of the peer's memory"] = answer["anonymous MiB"] / peer["anonymous MiB"]
    rows = [{**shared, "quantity": quantity, "value": value} for quantity, value in quantities.items()]
    for k in (pairs // 2, pairs):
        found = np.abs(answer["values"][:k])
        errors = np.abs(found - exact[:k]) / exact[:k] if len(found) == k else np.full(k, np.inf)
        for quantity, value in (("largest", errors.max()), ("median", np.median(errors))):
            rows.append({**shared, "pairs": k, "quantity": f"{quantity} relative error", "value": float(value)})
    return rows


class _Memory:
    """The largest anonymous memory (not files mapped into it, which the kernel takes back) while it is watched."""

    def __enter__(self) -> "_Memory":
        self.start = self.peak = _resident("RssAnon")
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._ended.wait(_SAMPLED):
            self.peak = max(self.peak, _resident("RssAnon"))

    def __exit__(self, *_) -> None:
        self._ended.set()
        self._thread.join()


def _resident(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def _main() -> None:
    path, width, pairs, name = json.loads(sys.argv[1])
    torch.set_num_threads(1)
    saved = torch.load(path, weights_only=True)
    inputs, _ = saved["batches"][0]
    model = build_network(_NETWORK, input_shape=tuple(inputs.shape[1:]), classes=10, width=width, norm="none")
    model.load_state_dict(saved["state"])
    operator = Network(model.eval(), saved["batches"]).operator()
    solve = next(m.solve for m in METHODS if m.name == name)
    count = products_for(pairs)
    alone = _products_seconds(operator, count)
    gc.collect()
    before = _resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark
    with _Memory() as memory:
        start = time.process_time()
        found = solve(operator, pairs, count, 0)
        seconds = time.process_time() - start
    answer = {"p": operator.shape[0], "seconds": seconds, "products seconds": alone, "values": found.values.tolist()}
    answer |= {"anonymous MiB": memory.peak - memory.start, "resident MiB": _resident("VmHWM") - before}
    print(json.dumps(answer))


def _products_seconds(operator: Operator, count: int) -> float:
    """Of so many products, from a few of them: all methods call the same."""
    block = torch.ones(operator.shape[0], TOGETHER, dtype=operator.dtype)
    operator @ block
    start = time.process_time()
    for _ in range(2):
        operator @ block
    return (time.process_time() - start) / (2 * TOGETHER) * count


if __name__ == "__main__":
    _main()
