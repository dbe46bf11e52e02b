"""Writes the report of a profile: claims, figures, tables, cost and provenance in one page."""

import argparse
from pathlib import Path

from hessketch.cli import run_job


def build(arguments: argparse.Namespace, progress) -> None:
    from hessketch.records import write_atomically
    from hessketch.report.page import Sources, build_report

    page = build_report(
        Sources(
            results=arguments.results,
            figures=arguments.figures,
            captions=arguments.captions,
            benchmarks=arguments.benchmarks,
            configfiles=arguments.configfile,
        )
    )
    output = arguments.output or arguments.results / "report.html"
    write_atomically(output, lambda path: path.write_text(page, encoding="utf-8"))
    progress.say(f"wrote {output}: {output.stat().st_size / 1e6:.1f} MB")


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("results", type=Path, help="the profile's results folder, such as results/demo")
parser.add_argument("--figures", type=Path, required=True, help="the profile's figures, such as figures/demo")
parser.add_argument("--captions", type=Path, default=Path("workflow/report"), help="(default: workflow/report)")
parser.add_argument("--benchmarks", type=Path, required=True, help="benchmark files, such as logs/demo/benchmarks")
parser.add_argument("--configfile", nargs="+", default=[], help="config files that the page's commands name")
parser.add_argument("--output", type=Path, help="HTML file to write (default: report.html in the results)")
parser.add_argument("--log", help="log file")

if __name__ == "__main__":
    arguments = parser.parse_args()
    run_job(lambda progress: build(arguments, progress), "report", arguments.log)
