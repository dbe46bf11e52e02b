"""One computation over several processes, as torchrun starts them."""

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


def join_processes() -> "ProcessGroup | None":
    """The group of all processes that torchrun started with this one; None for a process on its own.

    Processes with a GPU each talk by nccl, others by gloo.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) < 2:
        return None
    import torch
    from torch import distributed

    local = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    own_gpu = torch.cuda.is_available() and torch.cuda.device_count() >= local
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
