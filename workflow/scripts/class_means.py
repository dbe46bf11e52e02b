"""The hierarchy of the outliers of one trained network: its GGN by class means and cross-class means."""

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
from hessketch.curvature.hierarchy_job import HierarchySettings


def hierarchy(arguments: argparse.Namespace, progress) -> None:
    from hessketch.curvature.hierarchy_job import hierarchy_of_network
    from hessketch.curvature.job import load_network
    from hessketch.data.of_run import examples_of_run
    from hessketch.data.prepared import read_prepared
    from hessketch.runs import Run
    from hessketch.seeds import derive_seed

    run = Run.from_path(arguments.cell)
    model, metadata = load_network(arguments.model)
    per_class = run.examples_per_class if arguments.split == "train" else arguments.test_examples_per_class
    device = device_from(arguments)
    record = hierarchy_of_network(
        model.to(device),
        run.loss,
        examples_of_run(run, read_prepared(arguments.data), arguments.split, per_class),
        settings_from(arguments, HierarchySettings),
        arguments.output,
        seed=derive_seed(run.seed, run.path, f"class means {arguments.split}"),
        columns={**Run.from_path(metadata["run"]).identity(), "split": arguments.split},
        memory=memory_from(arguments, device),
        save_every=arguments.save_every,
        progress=progress,
    )
    progress.say(f"done: mean loss {record['mean_loss']:.4g}, accuracy {record['accuracy']:.4f}")


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("cell", help="identity of the cell: dataset/noise0/n100/network-norm-w1/cross_entropy/sgd/seed0")
parser.add_argument("--split", choices=["train", "test"], required=True, help="examples to average over")
parser.add_argument("--model", type=Path, required=True, help="weights of the selected run")
parser.add_argument("--data", type=Path, required=True, help="prepared data, from prepare_data.py")
parser.add_argument("--output", type=Path, required=True, help="folder to write the tables into")
add_test_size(parser)
parser.add_argument("--log", help="log file")
add_settings(parser, HierarchySettings)
add_memory(parser)
add_save_every(parser)
add_device(parser)

if __name__ == "__main__":
    arguments = parser.parse_args()
    name = f"class means {arguments.cell} {arguments.split}"
    run_job(lambda progress: hierarchy(arguments, progress), name, arguments.log)
