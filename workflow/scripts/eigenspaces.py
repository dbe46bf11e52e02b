"""Measures masks of large weights against leading Hessian eigenspaces along trainings."""

import argparse
from pathlib import Path

from hessketch.cli import device_from, memory_from, run_job, whole_number
from hessketch.eigenspaces.flags import add_eigenspace_job, eigenspace_settings_from
from hessketch.eigenspaces.settings import STABILITY_RATIOS


def measure(arguments: argparse.Namespace, progress) -> None:
    from hessketch.data.of_run import examples_of_run
    from hessketch.data.prepared import read_prepared
    from hessketch.eigenspaces.job import measure_runs
    from hessketch.eigenspaces.subjects import Subject, first_of_each_class, points_at_steps
    from hessketch.records import read_record
    from hessketch.runs import Run
    from hessketch.trajectories import read_trajectory

    prepared = read_prepared(arguments.data)

    def subject_of(run: Run) -> Subject:
        folder = arguments.trajectories / run.path
        architecture, kept = read_trajectory(folder / "trajectory.safetensors")
        finished = read_record(folder / "record.json")["status"] == "finished"
        train = examples_of_run(run, prepared, "train", run.examples_per_class)
        test = examples_of_run(run, prepared, "test", arguments.test_examples_per_class)
        return Subject(
            run,
            architecture,
            points_at_steps(kept, arguments.steps, run, finished),
            finished,
            len(train),
            first_of_each_class(train, arguments.hessian_examples_per_class),
            first_of_each_class(test, arguments.hessian_examples_per_class),
            points_at_steps(kept, arguments.stability_steps, run, finished),
        )

    device = device_from(arguments)
    measure_runs(
        [Run.from_path(path) for path in arguments.runs],
        subject_of,
        eigenspace_settings_from(arguments),
        arguments.output,
        device=device,
        memory=memory_from(arguments, device),
        progress=progress,
    )


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("runs", nargs="+", help="identities: dataset/noise0/n100/network-norm-w1/loss/sgd-b50/lr0.1/seed0")
parser.add_argument("--trajectories", type=Path, required=True, help="folder of all runs, from train_trajectories.py")
parser.add_argument(
    "--steps", type=whole_number(0), nargs="+", help="steps that are measured in full (default: all that were kept)"
)
parser.add_argument(
    "--stability-steps",
    type=whole_number(0),
    nargs="*",
    default=[],
    help="steps whose masks and eigenspaces are compared two by two (default: none)",
)
parser.add_argument(
    "--stability-ratios",
    type=float,
    nargs="+",
    default=STABILITY_RATIOS,
    help=f"sizes of what is compared over parameters (default: {' '.join(map(str, STABILITY_RATIOS))})",
)
add_eigenspace_job(parser)

if __name__ == "__main__":
    arguments = parser.parse_args()
    run_job(lambda progress: measure(arguments, progress), f"eigenspaces {arguments.runs[0]}", arguments.log)
