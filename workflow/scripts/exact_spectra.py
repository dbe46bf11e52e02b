"""Forms Hessian, GGN and second moment of the output gradients along trainings and finds all their eigenvalues."""

import argparse
from pathlib import Path

from hessketch.cli import add_device, add_memory, add_settings, device_from, memory_from, run_job, settings_from
from hessketch.landscape.spectra_job import SpectraSettings


def measure(arguments: argparse.Namespace, progress) -> None:
    from hessketch.data.followed_runs import Followed, read_followed
    from hessketch.data.prepared import read_prepared
    from hessketch.landscape.spectra_job import spectra_of_runs
    from hessketch.runs import Run

    prepared = read_prepared(arguments.data)

    def followed(run: Run) -> Followed:
        return read_followed(arguments.trajectories / run.path, run, prepared, None)

    device = device_from(arguments)
    spectra_of_runs(
        [Run.from_path(path) for path in arguments.runs],
        followed,
        settings_from(arguments, SpectraSettings),
        arguments.output,
        device=device,
        memory=memory_from(arguments, device),
        progress=progress,
    )


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("runs", nargs="+", help="identities: dataset/noise0/n100/network-norm-w1/loss/sgd-b50/lr0.1/seed0")
parser.add_argument("--trajectories", type=Path, required=True, help="folder of all runs, from train_trajectories.py")
parser.add_argument("--data", type=Path, required=True, help="prepared data, from prepare_data.py")
parser.add_argument("--output", type=Path, required=True, help="folder to write the tables into")
parser.add_argument("--log", help="log file")
add_settings(parser, SpectraSettings)
add_memory(parser)
add_device(parser)

if __name__ == "__main__":
    arguments = parser.parse_args()
    run_job(lambda progress: measure(arguments, progress), f"exact spectra {arguments.runs[0]}", arguments.log)
