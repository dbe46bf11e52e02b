"""Train one network and write its weights, history and record.

A killed training continues from its last saved epoch when the same command is given again.

example:
  python -m hessketch train --dataset fashion_mnist --data-folder data --examples-per-class 136 \\
      --network resnet18 --width 0.25 --epochs 30 --learning-rate 0.05 --output my_run
"""

import argparse

from hessketch.cli import (
    add_device,
    add_save_every,
    add_settings,
    device_from,
    output_folder,
    settings_from,
    whole_number,
)
from hessketch.curvature.losses import LOSSES
from hessketch.networks.layers import NORMS
from hessketch.training.settings import TrainingSettings

DATASETS_HELP = (
    "digits, mnist, fashion_mnist, cifar10, cifar100, clusters-k10-d50-s4, or a part of one: cifar10-classes3+5, "
    "mnist-14x14, cifar10-grey16x16"
)


def add_data(parser: argparse.ArgumentParser) -> None:
    """Flags that say which examples."""
    parser.add_argument("--dataset", required=True, help=DATASETS_HELP)
    parser.add_argument("--data-folder", default="data", help="folder of the raw files (default: data)")
    parser.add_argument("--download", action="store_true", help="download what the folder lacks")
    parser.add_argument("--examples-per-class", type=whole_number(1), help="size of the balanced subset (default: all)")
    parser.add_argument("--seed", type=whole_number(0), default=0, help="seed of everything random (default: 0)")


def add_network(parser: argparse.ArgumentParser) -> None:
    """Flags that say which network, loss and label noise."""
    parser.add_argument("--label-noise", type=float, default=0.0, help="fraction of wrong training labels (default: 0)")
    parser.add_argument(
        "--network",
        required=True,
        help="vgg11, resnet18, resnet18_smooth, 3c3d, allcnnc, mlp, mlp_tanh, or module:function of your own that "
        "returns a torch module",
    )
    parser.add_argument("--norm", default="batch", choices=NORMS, help="(default: batch)")
    parser.add_argument("--width", type=float, default=1.0, help="multiplier of the hidden widths (default: 1)")
    parser.add_argument("--loss", default="cross_entropy", choices=list(LOSSES), help="(default: cross_entropy)")


def run_and_examples(arguments: argparse.Namespace, trainer: str):
    """The Run that the flags of `add_data` and `add_network` ask for, its training and its test examples."""
    from hessketch.data.of_run import examples_of_run
    from hessketch.data.prepared import prepare_dataset
    from hessketch.runs import Run

    prepared = prepare_dataset(arguments.dataset, arguments.data_folder, download=arguments.download)
    run = Run(
        dataset=arguments.dataset,
        label_noise=arguments.label_noise,
        examples_per_class=arguments.examples_per_class,
        network=arguments.network,
        norm=arguments.norm,
        width=arguments.width,
        loss=arguments.loss,
        trainer=trainer,
        learning_rate=arguments.learning_rate,
        seed=arguments.seed,
    )
    train = examples_of_run(run, prepared, "train", arguments.examples_per_class)
    return run, train, examples_of_run(run, prepared, "test", None)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_data(parser)
    add_network(parser)
    parser.add_argument("--output", type=output_folder, required=True, help="folder to write into")
    add_settings(parser, TrainingSettings)
    add_save_every(parser)
    add_device(parser)


def run(arguments: argparse.Namespace, progress) -> None:
    from hessketch.training.job import train_run

    settings = settings_from(arguments, TrainingSettings)
    identity, train, test = run_and_examples(arguments, "sgd")
    train_run(
        identity,
        train,
        test,
        settings,
        arguments.output,
        device=device_from(arguments),
        save_every_seconds=arguments.save_every,
        progress=progress,
    )
    print(f"weights: {arguments.output / 'model.safetensors'}\nrecord:  {arguments.output / 'record.json'}")
