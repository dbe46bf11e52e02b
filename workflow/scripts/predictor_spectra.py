"""Spectra of the predictor Hessian of single training examples, at chosen epochs of trainings by SGD.

The runs are those of one data set; their tables come together into one folder.
"""

import argparse
from pathlib import Path

from hessketch.cli import add_predictor_job, device_from, run_job, settings_from, whole_number
from hessketch.curvature.predictor_settings import ESTIMATORS, PredictorSettings


def training_of(path: str, arguments: argparse.Namespace, prepared, device, progress):
    """What is looked at of one run."""
    from hessketch.curvature.job import networks_of
    from hessketch.curvature.predictor_spectra import checkpoints_at_epochs, training_of_run
    from hessketch.records import read_record
    from hessketch.runs import Run
    from hessketch.trajectories import read_trajectory

    run, folder = Run.from_path(path), arguments.trajectories / path
    diverged = read_record(folder / "record.json")["status"] == "diverged"
    architecture, kept = read_trajectory(folder / "trajectory.safetensors")
    chosen = checkpoints_at_epochs(kept, arguments.epochs, path, diverged)
    if len(chosen) < len(arguments.epochs):
        there = ", ".join(str(facts["time"]) for facts, _ in chosen) or "none"
        progress.say(f"{path}: diverged; of the wanted epochs it has {there}")
    return training_of_run(run, prepared, networks_of(architecture, chosen, device))


def spectra(arguments: argparse.Namespace, progress) -> None:
    from hessketch.curvature.predictor_spectra import predictor_spectra
    from hessketch.data.prepared import read_prepared

    device, prepared = device_from(arguments), read_prepared(arguments.data)
    trainings = [training_of(run, arguments, prepared, device, progress) for run in arguments.runs]
    record = predictor_spectra(
        trainings,
        arguments.examples,
        settings_from(arguments, PredictorSettings, estimators=tuple(arguments.estimators)),
        arguments.output,
        device=device,
        save_every=arguments.save_every,
        progress=progress,
    )
    progress.say(f"done: {len(record['spectra'])} predictor Hessians of {len(trainings)} runs")


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("runs", nargs="+", help="identities: dataset/noise0/n100/network-norm-w1/loss/sgd-full/lr0.1/seed0")
parser.add_argument("--trajectories", type=Path, required=True, help="folder of all trajectories")
parser.add_argument("--epochs", type=whole_number(0), nargs="+", required=True, help="whose weights are looked at")
add_predictor_job(parser, PredictorSettings, ESTIMATORS)

if __name__ == "__main__":
    arguments = parser.parse_args()
    run_job(lambda progress: spectra(arguments, progress), "predictor spectra", arguments.log)
