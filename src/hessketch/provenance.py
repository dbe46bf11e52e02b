"""What made a result: versions, device, commit, time and memory, for run records."""

import functools
import hashlib
import os
import platform
import resource
import subprocess
import time
from importlib import metadata
from pathlib import Path
from typing import Any

_PACKAGES = ("hessketch", "torch", "numpy", "scipy", "pandas", "safetensors")


def _git(*arguments: str) -> str | None:
    folder = Path(__file__).resolve().parent
    try:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def source_version() -> dict[str, Any]:
    """Commit of the source tree and whether it has uncommitted changes (None where git does not know it)."""
    status = _git("status", "--porcelain", "--untracked-files=no")
    return {
        "commit": _git("rev-parse", "HEAD"),
        "uncommitted_changes": None if status is None else bool(status),
    }


@functools.cache
def code_digest() -> str:
    """Digest of this package's source files: what other code began is not continued."""
    folder = Path(__file__).resolve().parent
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(str(path.relative_to(folder)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


class Stopwatch:
    """Wall time since its making, and the peak memory of the process (and of the device) so far."""

    def __init__(self) -> None:
        self._start = time.perf_counter()

    def seconds(self) -> float:
        return time.perf_counter() - self._start

    def cost(self) -> dict[str, float]:
        """wall_seconds, peak_memory_mib (resident, host) and, on CUDA, peak_device_memory_mib."""
        import torch

        cost = {
            "wall_seconds": round(self.seconds(), 3),
            "peak_memory_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
        }
        if torch.cuda.is_available() and torch.cuda.is_initialized():
            cost["peak_device_memory_mib"] = round(torch.cuda.max_memory_allocated() / 2**20, 1)
        return cost


def environment(device: "object") -> dict[str, Any]:
    """Versions, device and source of this process, for a run record."""
    import torch

    kind = torch.device(str(device))
    return {
        "python": platform.python_version(),
        "packages": {name: metadata.version(name) for name in _PACKAGES},
        "device": str(kind),
        "device_name": torch.cuda.get_device_name(kind) if kind.type == "cuda" else platform.machine(),
        "threads": torch.get_num_threads(),
        "deterministic_algorithms": torch.are_deterministic_algorithms_enabled(),
        "tf32": torch.backends.cuda.matmul.allow_tf32,
        "source": source_version(),
        "host_cpus": os.cpu_count(),
    }
