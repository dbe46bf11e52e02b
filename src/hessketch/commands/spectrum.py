"""Compute the spectrum of the Hessian, GGN and residual (or other curvature matrices) of one checkpoint.

Writes tables (Parquet), a record and a figure, and prints the largest eigenvalues. A checkpoint of `hessketch train`
says itself which network it holds, its loss, its seed and its training examples; flags override them. For a
safetensors state dict of your own, name the network as module:function.

examples:
  python -m hessketch spectrum --checkpoint my_run/model.safetensors --dataset digits --output my_spectrum
  python -m hessketch spectrum --checkpoint mine.safetensors --network my_package.nets:make --dataset cifar10 \\
      --data-folder data --examples-per-class 100 --split test --output my_spectrum
  torchrun --nproc-per-node 4 -m hessketch spectrum ...      (the examples spread over four processes or GPUs)
"""

import argparse
from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from hessketch.cli import (
    add_device,
    add_save_every,
    add_spectrum_settings,
    device_from,
    output_folder,
    spectrum_options_from,
    spectrum_settings_from,
    whole_number,
)
from hessketch.commands.train import add_data
from hessketch.curvature.losses import LOSSES
from hessketch.curvature.named import operator_names
from hessketch.curvature.operators import COMPONENTS
from hessketch.data.examples import Examples
from hessketch.errors import InputError
from hessketch.linalg.methods import METHODS
from hessketch.networks.layers import NORMS
from hessketch.runs import Run


@dataclass(frozen=True)
class Loaded:
    """What the flags of `add_checkpoint` name."""

    model: nn.Module  # in eval mode, on the CPU
    run: Run  # that the checkpoint names, or a plain one
    examples: Examples  # of the split


def add_checkpoint(parser: argparse.ArgumentParser) -> None:
    """Flags that say which weights, of which network, on which examples."""
    parser.add_argument("--checkpoint", type=Path, required=True, help="safetensors file of the weights")
    add_data(parser)
    parser.set_defaults(seed=None)
    parser.add_argument("--split", choices=["train", "test"], default="train", help="examples to average over")
    parser.add_argument("--network", help="network of a checkpoint that does not say it; module:function for your own")
    parser.add_argument("--norm", default="batch", choices=NORMS, help="with --network")
    parser.add_argument("--width", type=float, default=1.0, help="with --network (default: 1)")
    parser.add_argument("--loss", choices=list(LOSSES), help="(default: the checkpoint's, or cross_entropy)")
    parser.add_argument("--batch-size", type=whole_number(1), default=500, help="examples in one pass (default: 500)")
    parser.add_argument("--output", type=output_folder, required=True, help="folder to write into")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_checkpoint(parser)
    parser.add_argument(
        "--operators",
        nargs="+",
        choices=operator_names(),
        default=list(COMPONENTS),
        help=f"(default: {' '.join(COMPONENTS)})",
    )
    add_spectrum_settings(parser, METHODS)
    add_save_every(parser)
    add_device(parser)


def run(arguments: argparse.Namespace, progress) -> None:
    from hessketch.curvature.job import spectra_of_network
    from hessketch.data.catalog import describe
    from hessketch.processes import join_processes, leave_processes
    from hessketch.seeds import derive_seed

    settings = spectrum_settings_from(arguments, METHODS, describe(arguments.dataset).classes)
    loaded = load(arguments)
    device = device_from(arguments)
    group = join_processes(device)
    record = spectra_of_network(
        loaded.model.to(device),
        loaded.run.loss,
        loaded.examples,
        settings,
        arguments.output,
        seed=derive_seed(loaded.run.seed, arguments.dataset, f"spectrum {arguments.split}"),
        **spectrum_options_from(arguments, device),
        operators=arguments.operators,
        columns={"dataset": arguments.dataset, "split": arguments.split},
        group=group,
        progress=progress,
    )
    if leave_processes(group):
        _show(arguments.output, record)


def load(arguments: argparse.Namespace) -> Loaded:
    """The network and the examples that the flags of `add_checkpoint` name.

    Raises InputError for a damaged checkpoint, one of another network, or data of another shape.
    """
    from hessketch.checkpoints import Architecture
    from hessketch.curvature.job import load_network
    from hessketch.curvature.losses import outputs_of
    from hessketch.data.catalog import describe
    from hessketch.data.of_run import examples_of_run
    from hessketch.data.prepared import prepare_dataset

    trained = _as_trained(arguments)
    outputs = outputs_of(trained.loss, describe(arguments.dataset).classes)
    per_class = trained.examples_per_class if arguments.split == "train" else arguments.examples_per_class
    prepared = prepare_dataset(arguments.dataset, arguments.data_folder, download=arguments.download)
    examples = examples_of_run(trained, prepared, arguments.split, per_class)
    architecture, shape = None, tuple(examples.inputs.shape[1:])
    if arguments.network:
        architecture = Architecture(arguments.network, shape, outputs, arguments.width, arguments.norm)
    model, stored = load_network(arguments.checkpoint, architecture)
    _require_same_data(arguments, stored.get("architecture"), shape, outputs)
    return Loaded(model, trained, examples)


def _require_same_data(arguments: argparse.Namespace, stored: dict | None, shape: tuple, outputs: int) -> None:
    """Raises InputError if a checkpoint of `hessketch train` was trained on data of another shape."""
    if stored and (tuple(stored["input_shape"]), stored["classes"]) != (shape, outputs):
        raise InputError(
            f"{arguments.checkpoint}: takes inputs of shape {tuple(stored['input_shape'])} and has "
            f"{stored['classes']} outputs; {arguments.dataset} has {shape} and needs {outputs}; name the data set that "
            "it was trained on"
        )


def _as_trained(arguments: argparse.Namespace) -> Run:
    """The run that the checkpoint names, or a plain one, with what the flags give in its place.

    On another data set than the run's own, neither its label noise nor its number of examples means anything.
    """
    from hessketch.damage import structural_damage
    from hessketch.records import read_metadata

    damage = structural_damage(arguments.checkpoint) if arguments.checkpoint.is_file() else ""
    if damage or arguments.checkpoint.suffix != ".safetensors":
        raise InputError(
            f"{arguments.checkpoint}: no whole safetensors file{f' ({damage})' if damage else ''}; save weights with "
            "safetensors.torch.save_file(model.state_dict(), 'weights.safetensors')"
        )
    plain = Run(
        dataset=arguments.dataset,
        label_noise=0.0,
        examples_per_class=None,
        network=arguments.network,
        norm=arguments.norm,
        width=arguments.width,
        loss="cross_entropy",
        trainer="sgd",
        learning_rate=None,
        seed=0,
    )
    stored = read_metadata(arguments.checkpoint).get("run")
    run = Run.from_path(stored) if stored else plain
    if run.dataset != arguments.dataset:
        run = replace(plain, loss=run.loss, seed=run.seed)
    given = {key: getattr(arguments, key) for key in ("loss", "seed", "examples_per_class")}
    return replace(run, **{key: value for key, value in given.items() if value is not None})


def _show(folder: Path, record: dict) -> None:
    """Prints the largest eigenvalues and draws the densities."""
    from hessketch.figures.overview import spectrum_overview
    from hessketch.figures.style import save_figure
    from hessketch.records import read_table

    eigenvalues = read_table(folder / "eigenvalues.parquet")
    print(f"{record['p']} parameters, {record['n']} examples, mean loss {record['mean_loss']:.4g}")
    for operator, rows in eigenvalues.groupby("operator", sort=False):
        largest = "  ".join(f"{value:.4g}±{error:.1g}" for value, error in
                            zip(rows.eigenvalue[:10], rows.residual_norm[:10], strict=True))  # fmt: skip
        print(f"{operator}: {largest}")
    figure = spectrum_overview(read_table(folder / "density.parquet"), eigenvalues)
    for path in save_figure(figure, folder / "spectrum.pdf", folder / "spectrum.png"):
        print(path)
