"""Trains networks by SGD and keeps their weights along the way: several runs, one after the other.

A run's path names its learning rate and the examples in a step (sgd-b50, sgd-full; sgd-b250-b10 takes 250 until
--switch-step and 10 from then on). A killed job keeps the runs that
were finished and continues the one that was under way from its last saved step.
"""

import argparse
from pathlib import Path

from hessketch.cli import (
    add_device,
    add_save_every,
    add_settings,
    add_test_size,
    device_from,
    run_job,
    settings_from,
    whole_number,
)
from hessketch.errors import InputError
from hessketch.training.trajectory import TrajectorySettings, steps_of_epochs


def train(arguments: argparse.Namespace, progress) -> None:
    from dataclasses import replace

    from hessketch.data.of_run import examples_of_run
    from hessketch.data.prepared import read_prepared
    from hessketch.runs import Run
    from hessketch.trainers import Trainer
    from hessketch.training.trajectories import follow_runs

    prepared = read_prepared(arguments.data)
    steps = TrajectorySettings.steps if arguments.steps is None else arguments.steps
    given = settings_from(arguments, TrajectorySettings, steps=steps)

    def settings_of(run, examples):
        if arguments.epochs is None:
            return given, arguments.keep
        trainer = Trainer.parse(run.trainer)
        if trainer.later_batch_size is not None:
            raise InputError(f"{run.path}: --epochs given; allowed for a trainer that switches: --steps")
        size = trainer.batch_size
        steps, *kept = (steps_of_epochs(e, len(examples), size) for e in (arguments.epochs, *arguments.keep))
        return replace(given, steps=steps), kept

    follow_runs(
        [Run.from_path(path) for path in arguments.runs],
        lambda run: (
            examples_of_run(run, prepared, "train", run.examples_per_class),
            examples_of_run(run, prepared, "test", arguments.test_examples_per_class),
        ),
        settings_of,
        lambda run: arguments.output / run.path,
        device=device_from(arguments),
        save_every_seconds=arguments.save_every,
        progress=progress,
    )


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("runs", nargs="+", help="identities: dataset/noise0/n100/network-norm-w1/loss/sgd-b50/lr0.1/seed0")
parser.add_argument("--data", type=Path, required=True, help="prepared data, from prepare_data.py")
parser.add_argument("--output", type=Path, required=True, help="folder of all runs; each writes into its own below it")
length = parser.add_mutually_exclusive_group()
length.add_argument("--steps", type=whole_number(1), help=f"steps of SGD (default: {TrajectorySettings.steps})")
length.add_argument("--epochs", type=whole_number(1), help="passes over the examples, in place of --steps")
parser.add_argument(
    "--keep", type=whole_number(0), nargs="+", required=True, help="steps (or epochs) after which weights are kept"
)
add_test_size(parser)
parser.add_argument("--log", help="log file")
add_settings(parser, TrajectorySettings, skip=("learning_rate", "batch_size", "steps", "later_batch_size"))
add_save_every(parser)
add_device(parser)

if __name__ == "__main__":
    arguments = parser.parse_args()
    run_job(lambda progress: train(arguments, progress), f"trajectories {arguments.runs[0]}", arguments.log)
