"""Measures Count-Sketch and rounds of sketched federation against other ways and libraries.

Parts: `sketch` (times and memory of Count-Sketch against CSVec's way), `rounds` (rounds a second against a plain loop
over clients and Flower's simulation). Writes into OUTPUT/federation-DEVICE: measurements.csv (the long table),
summary.md (what is printed) and record.json; a part measured there before stays. Flower is left out where it is not
installed: pip install -r benchmarks/requirements.txt, or into an environment of its own, named by --flower-python.
"""

import argparse
import os
import sys

import pandas as pd
import torch

from benchmarks import flower_round, round_costs, sketch_costs
from benchmarks.client_rounds import NETWORKS, Task
from benchmarks.machine import record, slug
from benchmarks.program import command, run_program
from benchmarks.store import store
from benchmarks.tables import markdown
from benchmarks.timing import best_clock
from hessketch.cli import whole_number
from hessketch.devices import prepare_device
from hessketch.progress import Progress

PARTS = ("sketch", "rounds")
COLUMNS = ("part", "problem", "method", "quantity", "value")
_QUICK = {"rounds": 3, "dimension": 1_117_396, "clients": 10}
_RESNET18 = 11_173_962


def parser() -> argparse.ArgumentParser:
    made = command("federation", __doc__, _QUICK, rounds=5, trial="a minute or two")
    made.add_argument("--device", default="cpu", choices=("cpu", "cuda"), help="(default: cpu)")
    made.add_argument("--dimension", type=whole_number(1000), default=_RESNET18, help="numbers (default: ResNet18's)")
    made.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS), help="default: all")
    made.add_argument("--clients", type=whole_number(2), default=Task.clients, help=f"(default: {Task.clients})")
    made.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="default: all")
    made.add_argument("--flower-python", default=sys.executable, help="interpreter that finds Flower (default: this)")
    made.add_argument(
        "--flower-workers", type=whole_number(1), default=os.cpu_count(), help="client processes (default: all CPUs)"
    )
    return made


def main(words: list[str] | None = None) -> None:
    run_program(parser(), run, _QUICK, words)


def run(arguments: argparse.Namespace, progress: Progress) -> None:
    """Measures the chosen parts, writes what was found, and prints the summary."""
    torch.set_num_threads(arguments.threads)
    device = prepare_device(arguments.device)
    versions = flower_round.versions(arguments.flower_python) if "rounds" in arguments.parts else None
    rows = []
    if "sketch" in arguments.parts:
        for case in sketch_costs.cases(arguments.dimension):
            rows += sketch_costs.measure(case, arguments.rounds, device, arguments.threads, progress)
    if "rounds" in arguments.parts:
        if versions is None:
            progress.say("Flower is not installed and left out: pip install -r benchmarks/requirements.txt")
        python = arguments.flower_python if versions else None
        settings = round_costs.Settings(arguments.rounds, arguments.flower_workers, python)
        for network in arguments.networks:
            task = Task(network, clients=arguments.clients, device=device.type)
            rows += round_costs.measure(task, settings, progress)
    name = slug(device) + ("-quick" if arguments.quick else "")
    folder = arguments.output / f"federation-{name}"
    settings = {name: value for name, value in vars(arguments).items() if name not in ("output", "flower_python")}
    settings["clock_of_sketch"] = best_clock(device, arguments.threads)
    of_run = {**record(device, settings), "peers": versions or dict.fromkeys(flower_round.DISTRIBUTIONS)}
    store(pd.DataFrame(rows, columns=COLUMNS), folder, of_run, report)
    progress.say(f"written to {folder}")


def report(table: pd.DataFrame) -> str:
    """The parts that were measured, each under a heading."""
    parts = {"sketch": (_SKETCH, sketch_table), "rounds": (_ROUNDS, rounds_table)}
    measured = set(table["part"])
    texts = [f"{heading}\n\n{make(_wide(table, part))}" for part, (heading, make) in parts.items() if part in measured]
    return "\n\n".join(texts) + "\n"


_SKETCH = """## Count-Sketch

Milliseconds, median over rounds, by CPU time with one CPU thread, else by wall time; how many times faster sketch and
lift together are than CSVec's of the same round, with quartiles; squared error of the estimates over what theory
expects."""

_ROUNDS = """## Rounds of sketched federation

Rounds a second by wall time, median; CPU seconds a round, of all processes; how many times Flower's rounds a second of
the same turn, with quartiles (Flower has a process on every CPU, the others the threads of the record); difference of
the change of the weights in the first round from the plain loop's, relative to it."""


def _wide(table: pd.DataFrame, part: str) -> pd.DataFrame:
    """One row a problem and method, one column a quantity."""
    chosen = table[table["part"] == part]
    wide = chosen.pivot_table(index=["problem", "method"], columns="quantity", values="value", sort=False)
    return wide.reset_index()


def sketch_table(wide: pd.DataFrame) -> str:
    times = ["draw", "sketch", "lift", "together", "times faster"]
    columns = ["numbers", "method", *times, "MiB kept", "error", "targets"]
    rows = []
    for _, row in wide.iterrows():
        seconds = [row[f"{what} seconds"] for what in ("draw hashes", "sketch", "lift", "together")]
        error = f"{row['error over theory']:.2f}" + ("" if sketch_costs.right(row["error over theory"]) else ", WRONG")
        cells = [*(f"{1e3 * s:.1f}" for s in seconds), _faster(row), f"{row['stored MiB']:.2f}", error]
        rows.append([row["problem"], row["method"], *cells, "; ".join(_sketch_targets(row))])
    return markdown(columns, rows)


def _sketch_targets(row: pd.Series) -> list[str]:
    if row["method"] == sketch_costs.PEER:
        return []
    faster, target, share = row["times faster"], row.get("target, times faster"), row["share of stored"]
    verdicts = [] if pd.isna(target) else [f"{target:g} times {_verdict(faster >= target)} ({faster:.1f})"]
    most = sketch_costs.STORED_TARGET
    return [*verdicts, f"{most:g} of memory {_verdict(share <= most)} ({share:.3f})"]


def rounds_table(wide: pd.DataFrame) -> str:
    columns = ["round", "method", "rounds a second", "CPU seconds", "times Flower's", "difference", "target"]
    rows = []
    for _, row in wide.iterrows():
        agrees = row["relative difference"] <= round_costs.AGREEMENT
        difference = f"{row['relative difference']:.0e}" + ("" if agrees else ", ANOTHER ROUND")
        cells = [f"{row['rounds a second']:.2f}", f"{row['CPU seconds']:.2f}" if "CPU seconds" in row else ""]
        rows.append([row["problem"], row["method"], *cells, _faster(row), difference, _round_target(row)])
    return markdown(columns, rows)


def _round_target(row: pd.Series) -> str:
    faster, target = row.get("times faster"), round_costs.FASTER_TARGET
    if row["method"] != round_costs.OURS or pd.isna(faster):
        return ""
    return f"{target:g} times {_verdict(faster >= target)} ({faster:.1f})"


def _faster(row: pd.Series) -> str:
    """Times faster with quartiles; empty without a peer."""
    low, median, high = (row.get(f"times faster{end}") for end in (", lower quartile", "", ", upper quartile"))
    return "" if pd.isna(median) else f"{median:.2f} ({low:.2f} to {high:.2f})"


def _verdict(met: bool) -> str:
    return "met" if met else "MISSED"


if __name__ == "__main__":
    main()
