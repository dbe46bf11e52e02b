"""Compute the spectrum of the Hessian, GGN and residual of one checkpoint.

Writes tables (Parquet), a record and a figure, and prints the largest eigenvalues. A checkpoint of `hessketch train`
says itself which network it holds; for a safetensors state dict of your own, name the network as module:function.

examples:
  python -m hessketch spectrum --checkpoint my_run/model.safetensors --dataset digits --output my_spectrum
  python -m hessketch spectrum --checkpoint mine.safetensors --network my_package.nets:make --dataset cifar10 \\
      --data-folder data --examples-per-class 100 --split test --output my_spectrum
"""

import argparse
from dataclasses import replace
from pathlib import Path

from hessketch.cli import add_device, add_settings, device_from, settings_from
from hessketch.commands.train import add_data
from hessketch.curvature.losses import LOSSES
from hessketch.curvature.operators import OPERATORS
from hessketch.linalg.spectrum import SpectrumSettings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--checkpoint", type=Path, required=True, help="safetensors file of the weights")
    add_data(parser)
    parser.add_argument("--split", choices=["train", "test"], default="train", help="examples to average over")
    parser.add_argument("--network", help="network of a checkpoint that does not say it; module:function for your own")
    parser.add_argument("--norm", default="batch", choices=["batch", "group", "none"], help="with --network")
    parser.add_argument("--width", type=float, default=1.0, help="with --network (default: 1)")
    parser.add_argument("--loss", default="cross_entropy", choices=list(LOSSES), help="(default: cross_entropy)")
    parser.add_argument("--operators", nargs="+", choices=OPERATORS, default=list(OPERATORS), help="(default: all)")
    parser.add_argument("--batch-size", type=int, default=500, help="examples in one pass (default: 500)")
    parser.add_argument("--output", type=Path, required=True, help="folder to write into")
    parser.add_argument("--deflation-rank", default="classes", help="eigenpairs taken out: a number or 'classes'")
    add_settings(parser, SpectrumSettings, skip=("deflation_rank",))
    add_device(parser)


def run(arguments: argparse.Namespace, progress) -> None:
    from hessketch.checkpoints import Architecture
    from hessketch.curvature.job import load_network, spectra_of_network
    from hessketch.data.catalog import describe
    from hessketch.data.examples import load_examples
    from hessketch.data.prepared import prepare_dataset
    from hessketch.seeds import derive_seed

    classes = describe(arguments.dataset).classes
    rank = classes if arguments.deflation_rank == "classes" else int(arguments.deflation_rank)
    settings = replace(settings_from(arguments, SpectrumSettings), deflation_rank=rank)
    prepared = prepare_dataset(arguments.dataset, arguments.data_folder, download=arguments.download)
    seed = derive_seed(arguments.seed, arguments.dataset, "subset")  # the subset that `train` draws for this seed
    examples = load_examples(prepared, arguments.dataset, arguments.split, arguments.examples_per_class, 0.0, seed)
    architecture = None
    if arguments.network:
        shape = tuple(examples.inputs.shape[1:])
        architecture = Architecture(arguments.network, shape, classes, arguments.width, arguments.norm)
    model, _ = load_network(arguments.checkpoint, architecture)
    record = spectra_of_network(
        model.to(device_from(arguments)),
        arguments.loss,
        examples,
        settings,
        arguments.output,
        seed=derive_seed(arguments.seed, str(arguments.dataset), f"spectrum {arguments.split}"),
        batch_size=arguments.batch_size,
        operators=arguments.operators,
        columns={"dataset": arguments.dataset, "split": arguments.split},
        progress=progress,
    )
    _show(arguments.output, record)


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
