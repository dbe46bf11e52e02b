"""One computation over several processes, as torchrun starts them."""

import ctypes
import os
import signal
import sys
from typing import TYPE_CHECKING

from hessketch.gpus import visible_gpus

if TYPE_CHECKING:
    import torch
    from torch.distributed import ProcessGroup


def spread_over_processes(count: int, device: str) -> bool:
    """Runs the script that is running as `count` processes of one group and waits for them; whether it did.

    Where there are GPUs, and `device` is not 'cpu', each gets one: this process leases them and holds them. It starts
    none for a count of one, and in a process of such a group. A failure ends all, with status 1: who failed has said
    why.
    """
    if count < 2 or in_group():
        return False
    if device != "cpu" and visible_gpus():
        from hessketch.gpu_leases import lease_gpus

        lease_gpus(count)
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=count,
        max_restarts=0,
        run_id=str(os.getpid()),
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
    )
    try:
        elastic_launch(config, sys.executable)(*sys.argv)
    except SignalException as signalled:
        raise KeyboardInterrupt from signalled
    except ChildFailedError as failed:
        sys.exit(f"process {failed.get_first_failure()[0]} of {count} failed; what it said stands above or in the log")
    return True


def in_group() -> bool:
    """Whether torchrun, or `spread_over_processes`, started this process among others."""
    return "LOCAL_RANK" in os.environ


def processes_here() -> int:
    """How many processes of this one's group run on this machine; one for a process on its own."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", 1))


def is_first_process() -> bool:
    """Whether this is the process that speaks for its group; a process on its own does."""
    return int(os.environ.get("RANK", 0)) == 0


def join_processes(device: "torch.device") -> "ProcessGroup | None":
    """The group of all processes that torchrun started with this one; None for a process on its own.

    Processes with a GPU each talk by nccl, others by gloo. A process of a group ends with its launcher.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) < 2:
        return None
    import torch
    from torch import distributed

    _end_with_parent()
    own_gpu = device.type == "cuda" and torch.cuda.device_count() >= processes_here()
    distributed.init_process_group("nccl" if own_gpu else "gloo")
    return distributed.group.WORLD


def leave_processes(group: "ProcessGroup | None") -> bool:
    """Ends the group once all are done; whether this is the process that speaks for it."""
    if group is None:
        return True
    from torch import distributed

    speaks = distributed.get_rank(group) == 0
    distributed.barrier(group)
    distributed.destroy_process_group()
    return speaks


def _end_with_parent() -> None:
    """A killed launcher leaves its GPUs to others: its processes must not go on there. Linux alone can say so."""
    if sys.platform.startswith("linux"):
        set_parent_death_signal = 1  # PR_SET_PDEATHSIG of prctl.h
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)
