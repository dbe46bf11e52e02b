"""What made a result: versions, device, commit, time and memory, for run records."""

import functools
import hashlib
import os
import platform
import resource
import shlex
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from hessketch import ledger
from hessketch.extensions import extension_digests
from hessketch.progress import notes

_PACKAGES = ("hessketch", "torch", "numpy", "scipy", "pandas", "safetensors")
_PACKAGE = Path(__file__).resolve().parent
_LONGEST_COMMAND = 2000


def _git(*arguments: str) -> str | None:
    command = ["git", "--no-optional-locks", *arguments]  # many jobs ask at once, beside a user who works with git
    try:
        done = subprocess.run(command, cwd=_PACKAGE, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


@functools.cache
def source_version() -> Mapping[str, Any]:
    """Commit of the source tree and whether it has uncommitted changes (None where git does not know it)."""
    status = _git("status", "--porcelain", "--untracked-files=no")
    return {
        "commit": _git("rev-parse", "HEAD") or os.environ.get("HESSKETCH_COMMIT"),  # a copy without .git is told
        "uncommitted_changes": None if status is None else bool(status),
    }


@functools.cache
def _sources() -> dict[str, bytes]:
    """Path in the package to content, as this process first saw it: a long job is not of the code it ends beside."""
    return {path.relative_to(_PACKAGE).as_posix(): path.read_bytes() for path in sorted(_PACKAGE.rglob("*.py"))}


def code_digest() -> str:
    """Digest of this package's source files, and of extensions: what other code began is not continued."""
    digests = [_package_digest(), *extension_digests().values()]
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


@functools.cache
def _package_digest() -> str:
    digest = hashlib.sha256()
    for name, content in _sources().items():
        digest.update(name.encode() + b"\0" + content)
    return digest.hexdigest()


@functools.cache
def code_files() -> Mapping[str, str]:
    """The first 48 bits of the SHA-256 of each of this package's source files, by path in it."""
    return {name: hashlib.sha256(content).hexdigest()[:12] for name, content in _sources().items()}


def imported_files() -> dict[str, str]:
    """Those of `code_files` that this process has imported: the code that a result can depend on."""
    known = code_files()
    files = (getattr(module, "__file__", None) for name, module in list(sys.modules.items()) if _is_own(name))
    names = (Path(file).resolve().relative_to(_PACKAGE).as_posix() for file in files if file)
    return {name: known[name] for name in sorted(names) if name in known}


def _is_own(module: str) -> bool:
    return module == "hessketch" or module.startswith("hessketch.")


def _told(word: str) -> str:
    """A word of a command without folders of this machine: `--output=/scratch/me/run` as `--output=.../run`."""
    flag, equals, value = word.partition("=")
    if equals and os.path.isabs(value):
        return f"{flag}={_told(value)}"
    return (ledger.place(word) or ledger.FAR + os.path.basename(word)) if os.path.isabs(word) else word


def command_line() -> str:
    """How this process was called; a long command is cut."""
    script, *words = sys.argv or [""]
    called = ["-m", "hessketch"] if Path(script).resolve() == _PACKAGE / "__main__.py" else [_told(script)]
    text = shlex.join(["python", *called, *map(_told, words)])
    return text if len(text) <= _LONGEST_COMMAND else f"{text[:_LONGEST_COMMAND]} ..."


def _script() -> dict[str, str]:
    """Path and digest of the script that this process runs; empty where it is of this package, or none."""
    path = Path(sys.argv[0] if sys.argv else "")
    if path.suffix != ".py" or not path.is_file() or path.resolve().is_relative_to(_PACKAGE):
        return {}
    return {ledger.told_from(path, "."): ledger.file_digest(path)}


def versions(packages: Iterable[str] = _PACKAGES) -> dict[str, str | None]:
    """Version of each package; None of one that is not installed."""
    found: dict[str, str | None] = {}
    for name in packages:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found


def made_by() -> dict[str, Any]:
    """When, by which command, script, extensions and code this process makes a result."""
    extensions = {ledger.told_from(path, "."): digest for path, digest in extension_digests().items()}
    return {
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command_line(),
        "script": _script(),
        **({"extensions": extensions} if extensions else {}),
        **source_version(),
        "python": platform.python_version(),
        "code": {"package": code_digest(), "files": imported_files()},
    }


class Stopwatch:
    """Wall time since its making, and the peak memory of the process (and of the device) so far."""

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self._notes = len(notes())

    def seconds(self) -> float:
        return time.perf_counter() - self._start

    def cost(self) -> dict[str, Any]:
        """wall_seconds, peak_memory_mib (resident, host), on CUDA peak_device_memory_mib, and `notes` if there are any.

        Notes are what `progress.note` was told meanwhile, such as that a batch was halved for want of memory.
        """
        import torch

        cost = {
            "wall_seconds": round(self.seconds(), 3),
            "peak_memory_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
        }
        if torch.cuda.is_available() and torch.cuda.is_initialized():
            cost["peak_device_memory_mib"] = round(torch.cuda.max_memory_allocated() / 2**20, 1)
        said = list(dict.fromkeys(notes(self._notes)))
        return {**cost, "notes": said} if said else cost


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
        "source": dict(source_version()),
        "host_cpus": os.cpu_count(),
    }
