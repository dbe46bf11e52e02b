"""Small federated trainings to files."""

import torch
from small_federations import examples

from hessketch.federated.job import federate_runs
from hessketch.federated.settings import FederatedSettings
from hessketch.records import read_table, read_tensors
from hessketch.runs import Run
from hessketch.trajectories import read_trajectory

RUN = Run("digits", 0.0, 8, "mlp", "none", 0.02, "cross_entropy", "count_sketch-x3", 0.3, 0)
SETTINGS = FederatedSettings(clients=5, rounds=8, local_steps=2)
SPLITS = examples(33, 1, torch.float32), examples(21, 2, torch.float32)
P = 16 * 5 + 5 + 5 * 5 + 5 + 5 * 3 + 3


def federate(folder, runs=(RUN,), settings=SETTINGS, splits=SPLITS, **options):
    """Records of runs, each in a folder named after its trainer, norm and seed."""
    return federate_runs(
        list(runs), lambda _: splits, settings, lambda run: place(folder, run), device=torch.device("cpu"), **options
    )


def place(folder, run=RUN):
    return folder / f"{run.trainer}-{run.norm}-{run.seed}"


def results(folder, run=RUN):
    """Everything of a run that must not depend on when it was killed."""
    output = place(folder, run)
    return (
        read_tensors(output / "model.safetensors")[0],
        read_table(output / "rounds.parquet").drop(columns="seconds"),
        read_trajectory(output / "checkpoints.safetensors"),
    )


def assert_same_results(found, expected):
    """To the last bit."""
    assert_same_weights(found[0], expected[0])
    assert found[1].equals(expected[1])
    (architecture, kept), (other, others) = found[2], expected[2]
    assert architecture == other and [facts for facts, _ in kept] == [facts for facts, _ in others]
    for (_, state), (_, wanted) in zip(kept, others, strict=True):
        assert_same_weights(state, wanted)


def assert_same_weights(found, expected):
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
