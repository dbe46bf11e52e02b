"""The NVIDIA GPUs that this process may use, asked of the driver's own tool: without importing torch."""

import functools
import os
import re
import shutil
import subprocess
from dataclasses import dataclass

_BOARD = re.compile(r"GPU (\d+): (.+) \(UUID: ([^)\s]+)\)")
_INSTANCE = re.compile(r"\s+MIG (.+?)\s+Device\s+\d+: \(UUID: ([^)\s]+)\)")


@dataclass(frozen=True)
class Gpu:
    """A GPU, or one instance of a GPU that its administrator has divided (MIG)."""

    index: int  # of the board, as nvidia-smi counts
    name: str
    uuid: str

    def __str__(self) -> str:
        return f"GPU {self.index} ({self.name}, {self.uuid})"


def visible_gpus() -> list[Gpu]:
    """The GPUs of this machine that CUDA_VISIBLE_DEVICES leaves to this process; empty where there is no driver.

    A scheduler (or the user) assigns GPUs by that variable, as indices or UUIDs; nvidia-smi lists all whatever it says.
    Indices are taken in nvidia-smi's order. As CUDA does, what follows an entry that names no GPU is ignored.
    """
    path, assigned = shutil.which("nvidia-smi"), os.environ.get("CUDA_VISIBLE_DEVICES")
    if assigned == "" or path is None:
        return []
    gpus = _listed(path)
    if assigned is None:
        return gpus
    chosen: list[Gpu] = []
    for entry in assigned.split(","):
        found = next((gpu for gpu in gpus if _names(entry.strip(), gpu)), None)
        if found is None:
            break
        chosen += [] if found in chosen else [found]
    return chosen


def _names(entry: str, gpu: Gpu) -> bool:
    if entry.isdigit():
        return int(entry) == gpu.index
    return entry.startswith(("GPU-", "MIG-")) and gpu.uuid.startswith(entry)  # CUDA takes a beginning for the whole


@functools.cache
def _listed(nvidia_smi: str) -> list[Gpu]:
    """Every GPU of the machine, of a divided one its instances. The tool is called once: it may take seconds."""
    try:
        done = subprocess.run([nvidia_smi, "-L"], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return []
    gpus: list[Gpu] = []
    for line in done.stdout.splitlines() if done.returncode == 0 else ():
        if board := _BOARD.match(line):
            gpus.append(Gpu(int(board[1]), board[2], board[3]))
        elif (instance := _INSTANCE.match(line)) and gpus:
            whole = gpus[-1]
            if not whole.uuid.startswith("MIG-"):
                gpus.pop()  # a divided GPU is used through its instances alone
            gpus.append(Gpu(whole.index, f"{whole.name.partition(' MIG ')[0]} MIG {instance[1]}", instance[2]))
    return gpus
