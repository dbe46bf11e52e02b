"""Weights kept along one federated training, in one file: how many there will be is not known beforehand."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor

from hessketch.checkpoints import Architecture
from hessketch.errors import InputError
from hessketch.records import read_tensors, write_tensors

Checkpoint = tuple[dict[str, Any], Mapping[str, Tensor]]
"""Facts (kind `round` or `loss`, round, train_loss, target_loss) and a network's state_dict."""


def write_checkpoints(path: str | Path, architecture: Architecture, checkpoints: Sequence[Checkpoint]) -> None:
    """Writes all checkpoints atomically, with the architecture of the network they belong to."""
    tensors = {f"{i}/{name}": t for i, (_, state) in enumerate(checkpoints) for name, t in state.items()}
    facts = [facts for facts, _ in checkpoints]
    write_tensors(tensors, path, {"architecture": asdict(architecture), "checkpoints": facts})


def read_checkpoints(path: str | Path) -> tuple[Architecture, list[Checkpoint]]:
    """What `write_checkpoints` wrote; raises InputError for another file."""
    tensors, metadata = read_tensors(path)
    if "checkpoints" not in metadata:
        raise InputError(f"{path}: no checkpoints of a federated training; give its checkpoints.safetensors")
    architecture = Architecture.from_metadata(metadata["architecture"])
    states: list[dict[str, Tensor]] = [{} for _ in metadata["checkpoints"]]
    for name, tensor in tensors.items():
        number, _, own = name.partition("/")
        states[int(number)][own] = tensor
    return architecture, list(zip(metadata["checkpoints"], states, strict=True))
