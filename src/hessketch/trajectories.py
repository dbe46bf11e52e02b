"""A trajectory: the weights that one training kept on its way, in one file, each with what is known of it."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor

from hessketch.checkpoints import Architecture
from hessketch.errors import InputError
from hessketch.records import read_tensors, write_tensors

Checkpoint = tuple[dict[str, Any], Mapping[str, Tensor]]
"""Facts and a network's state_dict. Facts of a training by SGD: step (0: the initial weights), epoch (examples seen
over n), loss and accuracy on train and test; of a federation: kind (`round` or `loss`), round, train_loss,
target_loss."""


def write_trajectory(path: str | Path, architecture: Architecture, checkpoints: Sequence[Checkpoint]) -> None:
    """Writes all checkpoints atomically, with the architecture of the network they belong to."""
    tensors = {f"{i}/{name}": t for i, (_, state) in enumerate(checkpoints) for name, t in state.items()}
    facts = [facts for facts, _ in checkpoints]
    write_tensors(tensors, path, {"architecture": asdict(architecture), "checkpoints": facts})


def read_trajectory(path: str | Path) -> tuple[Architecture, list[Checkpoint]]:
    """What `write_trajectory` wrote; raises InputError for another file."""
    tensors, metadata = read_tensors(path)
    if "checkpoints" not in metadata:
        raise InputError(
            f"{path}: no weights kept along a training; give its trajectory.safetensors, or the "
            "checkpoints.safetensors of a federated run"
        )
    architecture = Architecture.from_metadata(metadata["architecture"])
    states: list[dict[str, Tensor]] = [{} for _ in metadata["checkpoints"]]
    for name, tensor in tensors.items():
        number, _, own = name.partition("/")
        states[int(number)][own] = tensor
    return architecture, list(zip(metadata["checkpoints"], states, strict=True))
