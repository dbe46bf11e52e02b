"""Reads or downloads one data set, pads its images to 32x32 or reduces them, and writes them as one file."""

import argparse

from hessketch.cli import run_job


def prepare(arguments: argparse.Namespace, progress) -> None:
    from hessketch.data.prepared import prepare_dataset
    from hessketch.progress import notes
    from hessketch.records import require_file_place, write_record, write_tensors

    output = require_file_place(arguments.output)
    progress.say(f"reading {arguments.dataset}, looking in {arguments.folder}")
    prepared = prepare_dataset(arguments.dataset, arguments.folder, download=True)
    tensors = prepared.to_tensors()
    facts = {"dataset": arguments.dataset, **({"notes": notes()} if notes() else {})}
    write_tensors(tensors, output, facts)
    write_record(facts, output.with_suffix(".json"))
    progress.say(", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in tensors.items()))


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("dataset", help="such as digits, cifar10-classes3+5, mnist-14x14 or clusters-k10-d50-s4")
parser.add_argument("--folder", default="data", help="folder of the raw files (default: data)")
parser.add_argument("--output", required=True, help="safetensors file to write")
parser.add_argument("--log", help="log file")

if __name__ == "__main__":
    arguments = parser.parse_args()
    run_job(lambda progress: prepare(arguments, progress), f"prepare {arguments.dataset}", arguments.log)
