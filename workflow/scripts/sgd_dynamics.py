"""Measures eigenvalues, eigenspaces, loss changes and the generalisation bound along trainings."""

import argparse
from pathlib import Path

from hessketch.cli import (
    add_device,
    add_memory,
    add_settings,
    add_test_size,
    device_from,
    memory_from,
    per_class,
    run_job,
    settings_from,
)
from hessketch.dynamics.generalization_bound import SIGMAS
from hessketch.dynamics.job import DynamicsSettings
from hessketch.errors import InputError


def followed_along(arguments: argparse.Namespace, runs: list):
    """Whether a run is measured at each of its checkpoints; raises InputError for a number that no run has."""
    if "follow" not in arguments:
        return lambda run: True
    sizes = {run.examples_per_class for run in runs}
    if arguments.follow not in sizes:
        known = ", ".join("all" if size is None else str(size) for size in sorted(sizes, key=lambda size: size or 0))
        given = "all" if arguments.follow is None else arguments.follow
        raise InputError(f"--follow {given}: no run has so many examples a class; allowed: {known}; or leave it out")
    return lambda run: run.examples_per_class == arguments.follow


def measure(arguments: argparse.Namespace, progress) -> None:
    from hessketch.data.followed_runs import Followed, read_followed
    from hessketch.data.prepared import read_prepared
    from hessketch.dynamics.job import measure_runs
    from hessketch.runs import Run

    runs = [Run.from_path(path) for path in arguments.runs]
    along = followed_along(arguments, runs)
    prepared = read_prepared(arguments.data)

    def followed(run: Run) -> Followed:
        return read_followed(arguments.trajectories / run.path, run, prepared, arguments.test_examples_per_class)

    device = device_from(arguments)
    measure_runs(
        runs,
        followed,
        settings_from(arguments, DynamicsSettings),
        arguments.sigmas,
        arguments.output,
        along=along,
        device=device,
        memory=memory_from(arguments, device),
        progress=progress,
    )


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("runs", nargs="+", help="identities: dataset/noise0/n100/network-norm-w1/loss/sgd-b50/lr0.1/seed0")
parser.add_argument("--trajectories", type=Path, required=True, help="folder of all runs, from train_trajectories.py")
parser.add_argument("--data", type=Path, required=True, help="prepared data, from prepare_data.py")
parser.add_argument("--output", type=Path, required=True, help="folder to write the tables into")
parser.add_argument(
    "--follow",
    type=per_class,
    metavar="N",
    default=argparse.SUPPRESS,  # None is the word all
    help="runs of so many examples a class, or 'all', are measured at each checkpoint, others at the last "
    "(default: every run at each)",
)
parser.add_argument(
    "--sigmas",
    type=float,
    nargs="+",
    default=SIGMAS,
    help=f"priors, in initial scales of the layers (default: {' '.join(map(str, SIGMAS))})",
)
add_test_size(parser)
parser.add_argument("--log", help="log file")
add_settings(parser, DynamicsSettings)
add_memory(parser)
add_device(parser)

if __name__ == "__main__":
    arguments = parser.parse_args()
    run_job(lambda progress: measure(arguments, progress), f"sgd dynamics {arguments.runs[0]}", arguments.log)
