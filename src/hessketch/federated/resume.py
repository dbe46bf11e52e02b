"""The state of an interrupted federated training, error memories included: resumed bit for bit the same on a CPU."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from hessketch.errors import InputError
from hessketch.federated.simulation import Simulation
from hessketch.records import read_tensors, write_tensors


class State(NamedTuple):
    """What a training was after a whole round."""

    tensors: Mapping[str, Tensor]  # of Simulation.state, as are the numbers
    numbers: Mapping[str, Any]
    rows: list[dict[str, Any]]
    checkpoints: int  # how many were kept by then


def save_state(path: Path, simulation: Simulation, rows: list[dict[str, Any]], checkpoints: int, identity: str) -> None:
    """Writes everything after a whole round. No random state is kept: all draws follow from seed and round."""
    tensors, numbers = simulation.state()
    facts = {"identity": identity, "numbers": numbers, "rows": rows, "checkpoints": checkpoints}
    write_tensors(tensors, path, facts)


def read_state(path: Path, identity: str) -> State | None:
    """The state of the training of that identity; None where there is none to resume.

    A damaged state, or one of another training, is not used: starting anew is always right.
    """
    if not path.is_file():
        return None
    try:
        tensors, metadata = read_tensors(path)
    except InputError:
        return None
    if metadata.get("identity") != identity:
        return None
    return State(tensors, metadata["numbers"], metadata["rows"], metadata["checkpoints"])
