"""Spectra of the Hessian, the GGN, the residual and any further operators of one trained network on one split."""

import argparse
from pathlib import Path

from hessketch.cli import (
    add_spectrum_job,
    device_from,
    run_job,
    spectrum_options_from,
    spectrum_settings_from,
    whole_number,
)
from hessketch.linalg.methods import METHODS
from hessketch.processes import join_processes, leave_processes, spread_over_processes


def spectrum(arguments: argparse.Namespace, progress) -> None:
    if spread_over_processes(arguments.processes, arguments.device):
        return
    from hessketch.curvature.job import load_network, spectra_of_network
    from hessketch.curvature.operators import COMPONENTS
    from hessketch.data.of_run import examples_of_run
    from hessketch.data.prepared import read_prepared
    from hessketch.runs import Run
    from hessketch.seeds import derive_seed

    run = Run.from_path(arguments.cell)
    model, metadata = load_network(arguments.model)
    per_class = run.examples_per_class if arguments.split == "train" else arguments.test_examples_per_class
    examples = examples_of_run(run, read_prepared(arguments.data), arguments.split, per_class)
    selected = Run.from_path(metadata["run"])
    device = device_from(arguments)
    group = join_processes(device)
    record = spectra_of_network(
        model.to(device),
        run.loss,
        examples,
        spectrum_settings_from(arguments, METHODS, examples.classes),
        arguments.output,
        seed=derive_seed(run.seed, run.path, f"spectrum {arguments.split}"),
        operators=(*COMPONENTS, *arguments.operators),
        **spectrum_options_from(arguments, device),
        columns={**selected.identity(), "split": arguments.split},
        group=group,
        progress=progress,
    )
    leave_processes(group)
    progress.say(f"done: mean loss {record['mean_loss']:.4g}, accuracy {record['accuracy']:.4f}")


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("cell", help="identity of the cell: dataset/noise0/n100/network-norm-w1/loss/sgd/seed0")
parser.add_argument("--split", choices=["train", "test"], required=True, help="examples to average over")
parser.add_argument("--operators", nargs="+", default=[], help="further ones, beside Hessian, GGN and residual")
parser.add_argument("--model", type=Path, required=True, help="weights of the selected run")
parser.add_argument(
    "--processes", type=whole_number(1), default=1, help="processes, each with a GPU where there are GPUs (default: 1)"
)
add_spectrum_job(parser, METHODS)

if __name__ == "__main__":
    arguments = parser.parse_args()
    name = f"spectrum {arguments.cell} {arguments.split}"
    run_job(lambda progress: spectrum(arguments, progress), name, arguments.log)
