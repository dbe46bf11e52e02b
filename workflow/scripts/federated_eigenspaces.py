"""Measures masks of large weights against leading Hessian eigenspaces along federated runs, at their selected rate.

The runs are all seeds of one trainer, looked at after each round whose weights were kept.
"""

import argparse
from pathlib import Path

from hessketch.cli import device_from, memory_from, run_job
from hessketch.eigenspaces.flags import add_eigenspace_job, eigenspace_settings_from


def measure(arguments: argparse.Namespace, progress) -> None:
    from hessketch.data.of_run import examples_of_run
    from hessketch.data.prepared import read_prepared
    from hessketch.eigenspaces.job import measure_runs
    from hessketch.eigenspaces.subjects import Subject, first_of_each_class, points_of_rounds
    from hessketch.records import read_record
    from hessketch.runs import Run
    from hessketch.training.selected_runs import selected_runs
    from hessketch.trajectories import read_trajectory

    prepared = read_prepared(arguments.data)

    def subject_of(run: Run) -> Subject:
        architecture, kept = read_trajectory(arguments.runs / run.path / "checkpoints.safetensors")
        train = examples_of_run(run, prepared, "train", run.examples_per_class)
        test = examples_of_run(run, prepared, "test", arguments.test_examples_per_class)
        return Subject(
            run,
            architecture,
            points_of_rounds(kept),
            finished=True,
            n=len(train),
            train=first_of_each_class(train, arguments.hessian_examples_per_class),
            test=first_of_each_class(test, arguments.hessian_examples_per_class),
        )

    device = device_from(arguments)
    measure_runs(
        selected_runs(arguments.group, map(read_record, arguments.records), progress.say),
        subject_of,
        eigenspace_settings_from(arguments),
        arguments.output,
        device=device,
        memory=memory_from(arguments, device),
        progress=progress,
    )


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("group", help="what its runs share: dataset/noise0/n100/network-norm-w1/loss/top_r-x10")
parser.add_argument("--records", type=Path, nargs="+", required=True, help="record.json of all rates and seeds")
parser.add_argument("--runs", type=Path, required=True, help="folder of all runs")
add_eigenspace_job(parser)

if __name__ == "__main__":
    arguments = parser.parse_args()
    run_job(lambda progress: measure(arguments, progress), f"eigenspaces {arguments.group}", arguments.log)
