"""Hessian spectra of the weights that a federated run kept on its way, at the rate selected for its trainer."""

import argparse
from pathlib import Path

from hessketch.cli import add_spectrum_job, device_from, run_job, spectrum_options_from, spectrum_settings_from
from hessketch.linalg.fast_spectrum import FastSettings

METHODS = {"fast": FastSettings}


def checkpoints_of(arguments: argparse.Namespace, progress):
    """The selected run, with its architecture and checkpoints; none where no run of its seed finished at any rate."""
    from dataclasses import replace

    from hessketch.records import read_record
    from hessketch.runs import Run
    from hessketch.training.selection import select_rate
    from hessketch.trajectories import read_trajectory

    cell = Run.from_path(arguments.cell)
    records = {record["run"]: record for record in map(read_record, arguments.records)}
    rate = select_rate(records.values())
    run = replace(cell, learning_rate=rate)
    if rate is None or records[run.path]["status"] != "finished":
        why = "every run diverged" if rate is None else f"this seed diverged at the selected rate {rate:g}"
        progress.say(f"no spectra: {why}")
        return replace(cell, learning_rate=float("nan")), None, []
    return run, *read_trajectory(arguments.runs / run.path / "checkpoints.safetensors")


def spectra(arguments: argparse.Namespace, progress) -> None:
    from hessketch.curvature.checkpoint_spectra import spectra_of_checkpoints
    from hessketch.data.of_run import examples_of_run
    from hessketch.data.prepared import read_prepared
    from hessketch.seeds import derive_seed
    from hessketch.trainers import trainer_columns

    run, architecture, checkpoints = checkpoints_of(arguments, progress)
    sizes = {"train": run.examples_per_class, "test": arguments.test_examples_per_class}
    prepared = read_prepared(arguments.data)
    splits = {split: examples_of_run(run, prepared, split, sizes[split]) for split in arguments.splits}
    device = device_from(arguments)
    record = spectra_of_checkpoints(
        architecture,
        checkpoints,
        run.loss,
        splits,
        spectrum_settings_from(arguments, METHODS, next(iter(splits.values())).classes),
        arguments.output,
        columns={**run.identity(), **trainer_columns(run)},
        # The same start vectors for all trainers: what differs between them is then not chance of the vectors.
        seed=derive_seed(run.seed, f"{run.dataset}/{run.network_label}/{run.loss}", "checkpoint spectra"),
        device=device,
        **spectrum_options_from(arguments, device),
        progress=progress,
    )
    progress.say(f"done: {len(record['spectra'])} spectra of {len(checkpoints)} checkpoints")


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("cell", help="identity of the cell: dataset/noise0/n100/network-norm-w1/loss/top_r-x10/seed0")
parser.add_argument("--splits", nargs="+", choices=["train", "test"], required=True, help="examples to average over")
parser.add_argument("--records", type=Path, nargs="+", required=True, help="record.json of all rates and seeds")
parser.add_argument("--runs", type=Path, required=True, help="folder of all runs")
add_spectrum_job(parser, METHODS)

if __name__ == "__main__":
    arguments = parser.parse_args()
    name = f"checkpoint spectra {arguments.cell}"
    run_job(lambda progress: spectra(arguments, progress), name, arguments.log)
