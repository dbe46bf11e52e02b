"""Spectra of the predictor Hessian of single training examples along federated runs, at the rate selected for them.

The runs are all seeds of one trainer; their tables come together into one folder.
"""

import argparse
import math
from dataclasses import replace
from pathlib import Path

from hessketch.cli import add_predictor_job, device_from, run_job, settings_from
from hessketch.curvature.predictor_settings import ESTIMATORS, PredictorSettings


def trainings_of(arguments: argparse.Namespace, device, progress) -> list:
    from hessketch.curvature.job import networks_of
    from hessketch.curvature.predictor_spectra import checkpoints_of_rounds, training_of_run
    from hessketch.data.prepared import read_prepared
    from hessketch.records import read_record
    from hessketch.runs import Run
    from hessketch.training.selected_runs import selected_runs
    from hessketch.trajectories import read_trajectory

    prepared = read_prepared(arguments.data)
    trainings = []
    for run in selected_runs(arguments.group, map(read_record, arguments.records), progress.say):
        architecture, kept = read_trajectory(arguments.runs / run.path / "checkpoints.safetensors")
        networks = networks_of(architecture, checkpoints_of_rounds(kept), device)
        trainings.append(training_of_run(run, prepared, networks))
    # Without a run the tables are empty, and still have their columns.
    none = replace(Run.from_path(f"{arguments.group}/seed0"), learning_rate=math.nan)
    return trainings or [training_of_run(none, prepared, [])]


def spectra(arguments: argparse.Namespace, progress) -> None:
    from hessketch.curvature.predictor_spectra import predictor_spectra

    device = device_from(arguments)
    record = predictor_spectra(
        trainings_of(arguments, device, progress),
        arguments.examples,
        settings_from(arguments, PredictorSettings, estimators=tuple(arguments.estimators)),
        arguments.output,
        device=device,
        save_every=arguments.save_every,
        progress=progress,
    )
    progress.say(f"done: {len(record['spectra'])} predictor Hessians of {arguments.group}")


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("group", help="what its runs share: dataset/noise0/n100/network-norm-w1/loss/top_r-x10")
parser.add_argument("--records", type=Path, nargs="+", required=True, help="record.json of all rates and seeds")
parser.add_argument("--runs", type=Path, required=True, help="folder of all runs")
add_predictor_job(parser, PredictorSettings, ESTIMATORS)

if __name__ == "__main__":
    arguments = parser.parse_args()
    name = f"predictor spectra {arguments.group}"
    run_job(lambda progress: spectra(arguments, progress), name, arguments.log)
