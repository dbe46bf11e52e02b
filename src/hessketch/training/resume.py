"""The state of an interrupted training, written so that resuming gives the same weights bit for bit on a CPU."""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hessketch.errors import InputError
from hessketch.records import read_tensors, write_tensors


class Saving:
    """Keeps the state of a training in a file, at most every so many seconds; without a file nowhere."""

    def __init__(
        self,
        file: Path | None,
        seconds: float,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        identity: Mapping[str, Any],
    ):
        self._file, self._seconds, self._last = file, seconds, time.monotonic()
        self._model, self._optimizer, self._identity = model, optimizer, fingerprint(identity)

    def resume(self) -> list[dict[str, Any]]:
        """Restores what is kept and returns the history so far; an empty list where there is nothing to resume."""
        return [] if self._file is None else load_state(self._file, self._model, self._optimizer, self._identity)

    def save_if_due(self, history: list[dict[str, Any]]) -> None:
        """Saves the state if it is time."""
        if self._file is not None and time.monotonic() - self._last >= self._seconds:
            save_state(self._file, self._model, self._optimizer, history, self._identity)
            self._last = time.monotonic()


def fingerprint(identity: Mapping[str, Any]) -> str:
    """Text that two trainings share only if one may continue the other."""
    return json.dumps(identity, sort_keys=True, default=str)


def save_state(
    path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, history: list[dict[str, Any]], identity: str
) -> None:
    """Writes weights, buffers, momentum and history after a whole epoch.

    No random state is kept: each epoch's order follows from the seed and the epoch's number alone.
    """
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    for name, parameter in model.named_parameters():
        buffer = optimizer.state.get(parameter, {}).get("momentum_buffer")
        if buffer is not None:
            tensors[f"momentum.{name}"] = buffer
    write_tensors(tensors, path, {"history": history, "identity": identity})


def load_state(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, identity: str) -> list[dict[str, Any]]:
    """Restores what `save_state` wrote and returns the history so far; an empty list where there is nothing to resume.

    A damaged state, or one of another training, is set aside: starting anew is always right.
    """
    if not path.is_file():
        return []
    try:
        tensors, metadata = read_tensors(path)
    except InputError:
        path.unlink()
        return []
    if metadata.get("identity") != identity:
        return []
    model.load_state_dict({n.removeprefix("model."): t for n, t in tensors.items() if n.startswith("model.")})
    for name, parameter in model.named_parameters():
        if f"momentum.{name}" in tensors:
            # In the parameter's memory format too: the update of another one may round otherwise.
            buffer = torch.empty_like(parameter, requires_grad=False).copy_(tensors[f"momentum.{name}"])
            optimizer.state[parameter]["momentum_buffer"] = buffer
    history: list[dict[str, Any]] = metadata["history"]
    return history
