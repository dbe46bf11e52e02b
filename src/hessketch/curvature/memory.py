"""How much memory an autograd graph holds, and whether torch failed for want of it."""

from collections.abc import Iterable

import torch
from torch import Tensor


def storage_bytes(tensors: Iterable[Tensor], besides: Iterable[Tensor] = ()) -> int:
    """Bytes of the distinct storages of `tensors`, those of `besides` left out."""
    known = {t.untyped_storage().data_ptr() for t in besides}
    sizes = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    return sum(size for pointer, size in sizes.items() if pointer not in known)


def saved_tensors(roots: Iterable[torch.autograd.graph.Node | None]) -> list[Tensor]:
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
