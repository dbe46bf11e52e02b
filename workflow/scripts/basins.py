"""Measures straight lines and found paths between the ends of trainings by large and by small batches.

The runs are those of one or more seeds by large batches alone (sgd-b250), by small ones alone (sgd-b10), and by large
ones with small ones later (sgd-b250-b10), all finished with their last weights kept.
"""

import argparse
from pathlib import Path

from hessketch.cli import (
    add_device,
    add_memory,
    add_save_every,
    add_settings,
    add_test_size,
    device_from,
    memory_from,
    run_job,
    settings_from,
)
from hessketch.landscape.basins_job import BasinSettings
from hessketch.landscape.paths import PathSettings


def measure(arguments: argparse.Namespace, progress) -> None:
    from hessketch.data.of_run import examples_of_run
    from hessketch.data.prepared import read_prepared
    from hessketch.landscape.basins_job import measure_basins
    from hessketch.landscape.ends import Solution, read_solution
    from hessketch.runs import Run

    prepared = read_prepared(arguments.data)

    def solution_of(run: Run) -> Solution:
        return read_solution(
            arguments.trajectories / run.path,
            run,
            examples_of_run(run, prepared, "train", run.examples_per_class),
            examples_of_run(run, prepared, "test", arguments.test_examples_per_class),
        )

    device = device_from(arguments)
    measure_basins(
        [Run.from_path(path) for path in arguments.runs],
        solution_of,
        settings_from(arguments, BasinSettings),
        settings_from(arguments, PathSettings),
        arguments.output,
        device=device,
        memory=memory_from(arguments, device),
        save_every_seconds=arguments.save_every,
        progress=progress,
    )


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("runs", nargs="+", help="identities: dataset/noise0/nall/network-norm-w1/loss/sgd-b250/lr0.1/seed0")
parser.add_argument("--trajectories", type=Path, required=True, help="folder of all runs, from train_trajectories.py")
parser.add_argument("--data", type=Path, required=True, help="prepared data, from prepare_data.py")
parser.add_argument("--output", type=Path, required=True, help="folder to write the tables into")
add_test_size(parser)
parser.add_argument("--log", help="log file")
add_settings(parser, BasinSettings)
add_settings(parser, PathSettings)
add_save_every(parser)
add_memory(parser)
add_device(parser)

if __name__ == "__main__":
    arguments = parser.parse_args()
    run_job(lambda progress: measure(arguments, progress), f"basins {arguments.runs[0]}", arguments.log)
