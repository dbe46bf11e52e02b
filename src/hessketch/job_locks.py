"""Which process is at a job: a workflow that was killed leaves its jobs running, and none may begin beside them."""

import contextlib
import os
import shlex
import socket
from collections.abc import Iterable, Iterator
from pathlib import Path

from hessketch.errors import InputError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


@contextlib.contextmanager
def alone_at(log: str | Path | None) -> Iterator[None]:
    """While it is open no other process can be at the job of that log; raises InputError where one is.

    The lock lies beside the log. It ends with the process, however that ends; a disk without locks has none.
    """
    if log is None or fcntl is None:
        yield
        return
    path = Path(f"{log}.lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    file = _taken(path)
    if file is None:
        raise InputError(f"another process is at this job; to end it: {_ending(path)}; then the same command again")
    with file:
        with contextlib.suppress(OSError):  # a full disk is not worth the job: the lock holds without words
            file.truncate(0)
            file.write(" ".join([socket.gethostname(), str(os.getpid()), os.environ.get("SLURM_JOB_ID", "")]).encode())
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def commands_to_end(logs: Iterable[str | Path]) -> list[str]:
    """The commands that end the processes that are at the jobs of these logs."""
    paths = [Path(f"{log}.lock") for log in logs]
    return [_ending(path) for path in paths if path.is_file() and _held(path)]


def _held(path: Path) -> bool:
    try:
        with open(path, "r+") as file:  # to be written: a network disk locks no other for one process alone
            return fcntl is not None and _is_locked(file)
    except FileNotFoundError:  # its job has ended meanwhile
        return False


def _taken(path: Path):
    """The file at a path, open and locked by this process; None where another has locked it."""
    while True:
        # Unbuffered: what a full disk did not take would be written again, and fail, when the job closes the file.
        file = open(path, "a+b", buffering=0)  # noqa: SIM115 (lives as long as the lock)
        if _is_locked(file):
            file.close()
            return None
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        file.close()  # its last holder has removed it meanwhile: a lock on it would keep nobody out


def _is_locked(file) -> bool:
    """Whether another process has locked the file; if not, this one has from now on."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # no locks on this disk
        pass
    return False


def _ending(path: Path) -> str:
    words = path.read_text().split(" ") if path.is_file() else []
    if len(words) < 3:
        return f"fuser -k {shlex.quote(str(path))}"
    host, process, cluster_job = words
    if host == socket.gethostname():
        return f"kill {process}"
    return f"scancel {cluster_job}" if cluster_job else f"ssh {host} kill {process}"
