"""Trains one network; a killed training continues from its last saved epoch."""

import argparse
from pathlib import Path

from hessketch.cli import add_device, add_save_every, add_settings, device_from, run_job, settings_from
from hessketch.training.settings import TrainingSettings


def train(arguments: argparse.Namespace, progress) -> None:
    from hessketch.data.of_run import examples_of_run
    from hessketch.data.prepared import read_prepared
    from hessketch.runs import Run
    from hessketch.training.job import train_run

    run = Run.from_path(arguments.run)
    settings = settings_from(arguments, TrainingSettings, learning_rate=run.learning_rate)
    prepared = read_prepared(arguments.data)
    train_run(
        run,
        examples_of_run(run, prepared, "train", run.examples_per_class),
        examples_of_run(run, prepared, "test", None),
        settings,
        arguments.output,
        device=device_from(arguments),
        save_every_seconds=arguments.save_every,
        checkpoint_epochs=arguments.checkpoint_epochs,
        progress=progress,
    )


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("run", help="identity of the run: dataset/noise0/n100/network-norm-w1/loss/sgd/lr0.1/seed0")
parser.add_argument("--data", type=Path, required=True, help="prepared data, from prepare_data.py")
parser.add_argument("--output", type=Path, required=True, help="folder to write into")
parser.add_argument("--checkpoint-epochs", type=int, nargs="*", default=[], help="epochs whose weights are kept")
parser.add_argument("--log", help="log file")
add_settings(parser, TrainingSettings, skip=("learning_rate",))
add_save_every(parser)
add_device(parser)

if __name__ == "__main__":
    arguments = parser.parse_args()
    run_job(lambda progress: train(arguments, progress), f"train {arguments.run}", arguments.log)
