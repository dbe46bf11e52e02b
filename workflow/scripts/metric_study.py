"""Measures similarities of random subspaces and masks: which metrics tell chance from more than chance."""

import argparse
from pathlib import Path

from hessketch.cli import run_job, whole_number


def measure(arguments: argparse.Namespace, progress) -> None:
    import torch

    from hessketch.eigenspaces.metric_study import metric_study
    from hessketch.records import require_file_place, write_record, write_table

    require_file_place(arguments.output)
    torch.set_num_threads(1)  # matrices this small are slower on more
    report = progress.stage("random pairs of spaces")
    table = metric_study(arguments.dimensions, arguments.ratios, arguments.samples, arguments.seed, report)
    write_table(table, arguments.output)
    settings = {name: getattr(arguments, name) for name in ("dimensions", "ratios", "samples", "seed")}
    write_record({"settings": settings, "rows": len(table)}, arguments.output.with_name("record.json"))
    progress.say(f"{len(table)} rows")


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument(
    "--dimensions", type=whole_number(2), nargs="+", required=True, metavar="D", help="dimensions of the whole space"
)
parser.add_argument(
    "--ratios", type=float, nargs="+", required=True, metavar="R", help="sizes k / D, above 0 and up to 1"
)
parser.add_argument("--samples", type=whole_number(1), default=50, help="random pairs of each kind (default: 50)")
parser.add_argument("--seed", type=whole_number(0), default=0, help="(default: 0)")
parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="table to write (Parquet)")
parser.add_argument("--log", help="log file")

if __name__ == "__main__":
    arguments = parser.parse_args()
    run_job(lambda progress: measure(arguments, progress), "metric study", arguments.log)
