"""A trained network as one safetensors file: weights, buffers and what is needed to build it again."""

import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import nn

from hessketch.errors import InputError
from hessketch.records import read_metadata, read_tensors, write_tensors


@dataclass(frozen=True)
class Architecture:
    """What `networks.build_network` needs to rebuild a network."""

    network: str
    input_shape: tuple[int, ...]
    classes: int  # outputs: one a class, or one for two classes
    width: float = 1.0
    norm: str = "batch"

    @classmethod
    def from_metadata(cls, stored: Mapping[str, Any]) -> "Architecture":
        """What `asdict` made of one and JSON kept, lists in place of tuples.

        Raises InputError for a network that is a function to import: a file must not choose which code runs.
        """
        if ":" in stored["network"]:
            raise InputError(
                f"holds {stored['network']!r}, a network of someone's own code, which a file cannot ask to run; if you "
                f"trust it, add --network {shlex.quote(stored['network'])} --norm {shlex.quote(str(stored['norm']))} "
                f"--width {float(stored['width']):g}"
            )
        return cls(**{**stored, "input_shape": tuple(stored["input_shape"])})


def parameter_order(model: nn.Module) -> dict[str, list[int]]:
    """Name to shape of each parameter, in the order in which flat vectors hold them."""
    return {name: list(parameter.shape) for name, parameter in model.named_parameters()}


def save_model(model: nn.Module, architecture: Architecture, path: str | Path, **metadata: Any) -> None:
    """Writes weights and buffers atomically, with the architecture and any JSON-able metadata."""
    write_tensors(model.state_dict(), path, {"architecture": asdict(architecture), **metadata})


def read_architecture(path: str | Path) -> Architecture:
    """The architecture that a checkpoint names; raises InputError for a file that names none, or code to import."""
    metadata = read_metadata(path)
    if "architecture" not in metadata:
        raise InputError(f"{path}: does not say which network it holds; name the network, its width and norm")
    try:
        return Architecture.from_metadata(metadata["architecture"])
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def load_weights(model: nn.Module, path: str | Path) -> dict[str, Any]:
    """Fills `model` with a checkpoint's tensors and returns its metadata.

    Raises InputError naming the first differences when the checkpoint is of another network.
    """
    tensors, metadata = read_tensors(path)
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    problems = [f"{n} is missing" for n in expected if n not in found]
    problems += [f"{n} is not part of this network" for n in found if n not in expected]
    problems += [
        f"{n} has shape {found[n]}, this network needs {expected[n]}"
        for n in expected
        if n in found and found[n] != expected[n]
    ]
    if problems:
        more = f" (and {len(problems) - 3} more)" if len(problems) > 3 else ""
        raise InputError(f"{path}: a checkpoint of another network: {'; '.join(problems[:3])}{more}")
    model.load_state_dict(tensors)
    return metadata
