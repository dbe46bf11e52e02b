"""Packs the results of a profile for a paper's appendix: config, tables, records, figures, report and versions."""

import argparse
from pathlib import Path

from hessketch.cli import run_job

BESIDE = ("LICENSE", "CITATION.cff", "requirements.lock")


def archive(arguments: argparse.Namespace, progress) -> None:
    from hessketch.archives import pack

    profile = arguments.results.name
    output = arguments.output or arguments.results / "archive.zip"
    others = [Path("figures", profile), Path("config", f"{profile}.yaml"), *map(Path, BESIDE)]
    counts = pack(output, arguments.results, others, weights=arguments.weights, report=progress.stage("MiB"))
    left = f"; {counts['left_out']} that records tell of are left out" if counts["left_out"] else ""
    print(f"{output}: {counts['packed']} files, {output.stat().st_size / 2**20:.1f} MiB{left}")


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("results", type=Path, help="the profile's results folder, such as results/demo")
parser.add_argument("--weights", action="store_true", help="with all weights")
parser.add_argument("--output", type=Path, metavar="FILE", help="zip file (default: archive.zip in the results)")

if __name__ == "__main__":
    arguments = parser.parse_args()
    run_job(lambda progress: archive(arguments, progress), "archive")
