"""Which GPU a process computes on where several processes share a machine: leases by file locks.

A scheduler such as Snakemake's counts GPUs but names none, so each process takes a lease before CUDA starts. A lease is
a set of advisory locks (flock), which the kernel releases with the process, however it ends: nothing is left to clean
up. A process has its GPUs alone, or one of the `places` of a GPU that it shares with others of this user.

Nothing waits forever: who wants several GPUs, or a whole one among shared ones, claims them in its turn, one process at
a time; a claimed GPU takes no further jobs, and those on it end. Only the process whose turn it is may hold some of
what it needs while it waits for claims of others, so that no two wait for each other.
"""

import fcntl
import logging
import os
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from hessketch.errors import InputError
from hessketch.gpus import Gpu, visible_gpus

_LOG = logging.getLogger("hessketch")  # a job's log shows it
_LONGEST_PAUSE = 2.0  # seconds between looks at what others hold
_held: list["_Lock"] = []  # by this process, until it ends
_leased: list[Gpu] = []
_before: list[str | None] = []  # CUDA_VISIBLE_DEVICES without the lease

Found = TypeVar("Found")


class _Lock:
    """An advisory lock on a file that says who holds it."""

    def __init__(self, folder: Path, name: str):
        # MIG UUIDs of old drivers hold slashes.
        self._file = os.open(folder / name.replace("/", "_"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def take(self, shared: bool = False, wait: bool = False) -> bool:
        try:
            fcntl.flock(self._file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            return False
        return True

    def signed(self) -> "_Lock":
        words = [Path(sys.argv[0]).name, *sys.argv[1:]]
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, f"process {os.getpid()} ({' '.join(words)[:120]})".encode(), 0)
        return self

    def holder(self) -> str:
        return os.pread(self._file, 200, 0).decode(errors="replace")

    def release(self) -> None:
        os.close(self._file)


def lease_gpus(count: int = 1, places: int = 1) -> list[Gpu]:
    """The GPUs that this process computes on from now on; waits, and says for whom, while none is free.

    Sets CUDA_VISIBLE_DEVICES to them: call it before CUDA starts. With `places` above 1 the process shares one GPU with
    up to places - 1 others that said so too, the least used of those that this process may use. What a scheduler has
    assigned is respected (`visible_gpus`); a SLURM job that was given just as many GPUs takes no lease, since the
    scheduler alone knows who shares them. Empty where there is no GPU, and in a process that torchrun started: its
    launcher has the lease. A second call gives the lease of the first.

    Raises InputError if there are fewer GPUs than asked for.
    """
    gpus = visible_gpus()
    if _leased or not gpus or "LOCAL_RANK" in os.environ:
        return list(_leased)
    if count > len(gpus):
        raise InputError(f"{count} GPUs asked for, {len(gpus)} are there; ask for at most {len(gpus)}")
    if count == len(gpus) and "SLURM_JOB_ID" in os.environ:
        return gpus
    folder = _lock_folder()
    with _turn(folder, gpus):
        locks = _share(folder, gpus, places) if count == 1 and places > 1 else _claims(folder, gpus, count)
    for gpu in locks if count > 1 or places == 1 else ():
        _empty(folder, gpu, locks[gpu])
    _held.extend(lock for of_gpu in locks.values() for lock in of_gpu)
    _leased.extend(locks)
    _before.append(os.environ.get("CUDA_VISIBLE_DEVICES"))
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(gpu.uuid for gpu in locks)
    _LOG.warning("on %s%s", ", ".join(map(str, locks)), f", shared by up to {places} jobs" if places > 1 else "")
    return list(_leased)


def release_gpus() -> None:
    """Gives the lease back: for a process that finds it cannot use a GPU."""
    for lock in _held:
        lock.release()
    for before in _before:
        if before is None:
            os.environ.pop("CUDA_VISIBLE_DEVICES", None)
        else:
            os.environ["CUDA_VISIBLE_DEVICES"] = before
    _held.clear()
    _leased.clear()
    _before.clear()


def _lock_folder() -> Path:
    """This user's folder of locks on this machine. Raises InputError for one that others could write to."""
    folder = Path(tempfile.gettempdir()) / f"hessketch-gpus-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    found = os.lstat(folder)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise InputError(f"{folder}: must be a folder that you alone can write to; remove it, or set TMPDIR")
    return folder


@contextmanager
def _turn(folder: Path, gpus: Sequence[Gpu]) -> Iterator[None]:
    """One process at a time chooses; the kernel lets those that wait go on in their order."""
    turn = _Lock(folder, "turn")
    if not turn.take():
        _LOG.warning("waiting for a GPU behind another job; %s", _holders(folder, gpus))
        turn.take(wait=True)
    try:
        yield
    finally:
        turn.release()


def _wait_for(look: Callable[[], Found], folder: Path, gpus: Sequence[Gpu]) -> Found:
    found, pause = look(), 0.05
    if not found:
        _LOG.warning("waiting for a GPU: %s", _holders(folder, gpus))
    while not found:
        time.sleep(pause)
        found, pause = look(), min(2 * pause, _LONGEST_PAUSE)
    return found


def _holders(folder: Path, gpus: Sequence[Gpu]) -> str:
    """'GPU 0 is held by process 12 (train.py ...)', for each GPU that anyone holds."""
    lines = []
    for gpu in gpus:
        names = sorted(path.name for path in folder.glob(f"{gpu.uuid.replace('/', '_')}.*") if path.suffix != ".use")
        locks = [_Lock(folder, name) for name in names]
        holders = [lock.holder() for lock in locks if not lock.take()]
        holders = [holder for holder in holders if not holder.startswith(f"process {os.getpid()} ")]
        for lock in locks:
            lock.release()
        lines += [f"GPU {gpu.index} is held by {' and '.join(holders)}"] if holders else []
    return "; ".join(lines) or "its holder is just leaving"


def _share(folder: Path, gpus: Sequence[Gpu], places: int) -> dict[Gpu, list[_Lock]]:
    """A place on the GPU with most free ones that nobody has claimed."""

    def look() -> dict[Gpu, list[_Lock]]:
        free = {gpu: _free_places(folder, gpu, places) for gpu in gpus}
        best = max(gpus, key=lambda gpu: len(free[gpu]))  # the first of equals
        for gpu, locks in free.items():
            for lock in locks[1 if gpu == best else 0 :]:
                lock.release()
        if not free[best]:
            return {}
        use = _Lock(folder, f"{best.uuid}.use")
        use.take(shared=True, wait=True)  # held against us by none but one that is just ending: the GPU is unclaimed
        return {best: [free[best][0].signed(), use]}

    return _wait_for(look, folder, gpus)


def _free_places(folder: Path, gpu: Gpu, places: int) -> list[_Lock]:
    """Locks on the free places of a GPU, taken; none of a claimed one."""
    claim = _Lock(folder, f"{gpu.uuid}.claim")
    unclaimed = claim.take()
    claim.release()
    locks = [_Lock(folder, f"{gpu.uuid}.place{i}") for i in range(places)] if unclaimed else []
    taken = [lock.take() for lock in locks]
    for lock, is_ours in zip(locks, taken, strict=True):
        if not is_ours:
            lock.release()
    return [lock for lock, is_ours in zip(locks, taken, strict=True) if is_ours]


def _claims(folder: Path, gpus: Sequence[Gpu], count: int) -> dict[Gpu, list[_Lock]]:
    """Claims on so many GPUs, those first that nobody uses."""
    claims: dict[Gpu, list[_Lock]] = {}

    def look() -> bool:
        for gpu in sorted(gpus, key=lambda gpu: _is_used(folder, gpu)):
            if len(claims) < count and gpu not in claims:
                lock = _Lock(folder, f"{gpu.uuid}.claim")
                if lock.take():
                    claims[gpu] = [lock.signed()]
                else:
                    lock.release()
        return len(claims) == count

    _wait_for(look, folder, gpus)
    return claims


def _is_used(folder: Path, gpu: Gpu) -> bool:
    use = _Lock(folder, f"{gpu.uuid}.use")
    is_free = use.take()
    use.release()
    return not is_free


def _empty(folder: Path, gpu: Gpu, locks: list[_Lock]) -> None:
    """Waits until those that share a claimed GPU have left it."""
    use = _Lock(folder, f"{gpu.uuid}.use")
    _wait_for(use.take, folder, [gpu])
    locks.append(use)
