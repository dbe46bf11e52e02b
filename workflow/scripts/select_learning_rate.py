"""Selects among runs that differ in their learning rate alone the one with the best test accuracy.

With --group the rate is the best on average over all seeds of a trainer, the same for each of them.
"""

import argparse
from pathlib import Path

from hessketch.cli import run_job
from hessketch.errors import InputError
from hessketch.records import copy, read_record, write_record
from hessketch.training.selection import select_best, select_rate


def best_of_group(records: list[dict], group: list[dict]) -> dict:
    """The record at the group's rate; raises InputError if all diverged, or this seed did at the selected rate."""
    rate = select_rate(group)
    best = select_best(records) if rate is None else next(r for r in records if r["learning_rate"] == rate)
    if best["status"] != "finished":
        raise InputError(
            f"{best['run']}: the rate {rate:g} is best on average over seeds, but this seed diverged at it "
            f"({best.get('diverged_at')}), as some seed did at every rate; add smaller values to learning_rates"
        )
    return best


def select(arguments: argparse.Namespace, progress) -> None:
    records = {path: read_record(path) for path in arguments.records}
    if arguments.group:
        best = best_of_group(list(records.values()), [read_record(path) for path in arguments.group])
    else:
        best = select_best(list(records.values()))
    folder = next(path.parent for path, record in records.items() if record is best)
    copy(folder / "model.safetensors", arguments.model)
    candidates = [{k: r[k] for k in ("learning_rate", "status", "test_accuracy")} for r in records.values()]
    write_record({"run": best["run"], "learning_rate": best["learning_rate"], "candidates": candidates},
                 arguments.selection)  # fmt: skip
    progress.say(f"selected {best['learning_rate']:g}, test accuracy {best['test_accuracy']:.4f}")


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("records", type=Path, nargs="+", help="record.json of each candidate, its model beside it")
parser.add_argument("--group", type=Path, nargs="+", help="record.json of every rate and seed of a federated trainer")
parser.add_argument("--selection", type=Path, required=True, help="JSON file to write: the choice and the candidates")
parser.add_argument("--model", type=Path, required=True, help="where to put the selected network's weights")
parser.add_argument("--log", help="log file")

if __name__ == "__main__":
    arguments = parser.parse_args()
    run_job(lambda progress: select(arguments, progress), "select", arguments.log)
