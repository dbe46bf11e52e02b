"""How much memory is free, how much an autograd graph holds, and what to do when there is too little."""

import os
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

# Files of the memory limit and use of a control group (a container, a cluster job): version 2, then 1.
_CGROUPS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)


def free_memory(device: torch.device | str) -> int:
    """Bytes that a program can still take on a device; on the host within the limit of its control group."""
    device = torch.device(device)
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        # What torch's allocator holds without using it is ours as well.
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return min([_available(), *_cgroup_rooms()])


def _available() -> int:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2  # no /proc (macOS): half of all there is


def _cgroup_rooms() -> Iterable[int]:
    for limit, used in _CGROUPS:
        try:
            yield max(int(Path(limit).read_text()) - int(Path(used).read_text()), 0)
        except (OSError, ValueError):  # no such group, or 'max': no limit
            continue


def storage_bytes(tensors: Iterable[Tensor], besides: Iterable[Tensor] = ()) -> int:
    """Bytes of the distinct storages of `tensors`, those of `besides` left out."""
    known = {t.untyped_storage().data_ptr() for t in besides}
    sizes = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    return sum(size for pointer, size in sizes.items() if pointer not in known)


def saved_tensors(roots: Iterable[torch.autograd.graph.Node]) -> list[Tensor]:
    """Every tensor that the graph below `roots` has saved for differentiation."""
    found, seen, stack = [], set(), [node for node in roots if node is not None]
    while stack:
        node = stack.pop()
        if node in seen:
            continue
        seen.add(node)
        stack += [below for below, _ in node.next_functions if below is not None]
        for name in dir(node):
            if name.startswith("_saved_") or name == "saved_tensors":
                value = getattr(node, name)
                values = value if isinstance(value, list | tuple) else [value]
                found += [v for v in values if isinstance(v, Tensor)]
    return found


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether torch failed for want of memory, on a GPU or on the host."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
