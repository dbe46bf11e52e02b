"""Trains networks by clients and a server: several runs that differ in their rate and seed, or one.

A killed job keeps the runs that were finished and continues each other one from its last saved round.
"""

import argparse
from pathlib import Path

from hessketch.cli import add_device, add_save_every, add_settings, device_from, run_job, settings_from
from hessketch.federated.settings import FederatedSettings


def federate(arguments: argparse.Namespace, progress) -> None:
    from hessketch.data.of_run import examples_of_run
    from hessketch.data.prepared import read_prepared
    from hessketch.federated.job import federate_runs
    from hessketch.runs import Run

    prepared = read_prepared(arguments.data)
    federate_runs(
        [Run.from_path(path) for path in arguments.runs],
        lambda run: (
            examples_of_run(run, prepared, "train", run.examples_per_class),
            examples_of_run(run, prepared, "test", None),
        ),
        settings_from(arguments, FederatedSettings),
        lambda run: arguments.output / run.path,
        device=device_from(arguments),
        checkpoint_rounds=arguments.checkpoint_rounds,
        checkpoint_losses=arguments.checkpoint_losses,
        save_every_seconds=arguments.save_every,
        progress=progress,
    )


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument(
    "runs", nargs="+", help="identities: dataset/noise0/n100/network-norm-w1/loss/top_r-x10/lr0.1/seed0"
)
parser.add_argument("--data", type=Path, required=True, help="prepared data, from prepare_data.py")
parser.add_argument("--output", type=Path, required=True, help="folder of all runs; each writes into its own below it")
parser.add_argument("--checkpoint-rounds", type=int, nargs="*", default=[], help="rounds after which weights are kept")
parser.add_argument("--checkpoint-losses", type=float, nargs="*", default=[], help="training losses at which they are")
parser.add_argument("--log", help="log file")
add_settings(parser, FederatedSettings, skip=("learning_rate",))
add_save_every(parser)
add_device(parser)

if __name__ == "__main__":
    arguments = parser.parse_args()
    run_job(lambda progress: federate(arguments, progress), f"federate {arguments.runs[0]}", arguments.log)
