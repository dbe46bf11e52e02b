"""Train one network over many clients that send little, and write its weights, rounds and record.

A killed training continues from its last saved round when the same command is given again. Over several processes or
GPUs, each with its share of the clients: torchrun --nproc-per-node 4 -m hessketch federate ...

examples:
  python -m hessketch federate --dataset digits --examples-per-class 100 --network mlp --norm none --width 0.0625 \\
      --method count_sketch --reduction 10 --clients 20 --rounds 60 --learning-rate 0.3 --output my_federation
  python -m hessketch spectrum --checkpoint my_federation/model.safetensors --dataset digits --output my_spectrum
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
from hessketch.commands.train import add_data, add_network, run_and_examples
from hessketch.federated.settings import FederatedSettings
from hessketch.trainers import federated_methods


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_data(parser)
    add_network(parser)
    parser.add_argument(
        "--method",
        choices=federated_methods(),
        default="count_sketch",
        help="how updates are sent (default: count_sketch)",
    )
    parser.add_argument(
        "--reduction", type=float, help="dimension reduction: bytes of a whole update over those sent, at least 1"
    )
    parser.add_argument("--error-feedback", action="store_true", help="what was not sent is remembered and sent later")
    parser.add_argument(
        "--checkpoint-rounds", type=whole_number(1), nargs="*", default=[], help="rounds whose weights are kept"
    )
    parser.add_argument(
        "--checkpoint-losses", type=float, nargs="*", default=[], help="training losses at which weights are kept"
    )
    parser.add_argument("--output", type=output_folder, required=True, help="folder to write into")
    add_settings(parser, FederatedSettings)
    add_save_every(parser)
    add_device(parser)


def run(arguments: argparse.Namespace, progress) -> None:
    from hessketch.federated.job import federate_runs
    from hessketch.processes import join_processes, leave_processes
    from hessketch.trainers import Trainer

    settings = settings_from(arguments, FederatedSettings)
    settings.require_read(arguments.method)
    trainer = Trainer(arguments.method, arguments.error_feedback, arguments.reduction)
    identity, train, test = run_and_examples(arguments, trainer.label)
    device = device_from(arguments)
    group = join_processes(device)
    federate_runs(
        [identity],
        lambda _: (train, test),
        settings,
        lambda _: arguments.output,
        device=device,
        checkpoint_rounds=arguments.checkpoint_rounds,
        checkpoint_losses=arguments.checkpoint_losses,
        save_every_seconds=arguments.save_every,
        group=group,
        progress=progress,
    )
    if leave_processes(group):
        print(f"weights: {arguments.output / 'model.safetensors'}\nrecord:  {arguments.output / 'record.json'}")
