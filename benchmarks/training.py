"""Measures training against a plain PyTorch program with torchvision's transforms and a DataLoader.

Both train the same network from the same weights on the same batches. Writes into OUTPUT/training-DEVICE:
measurements.csv (the long table), summary.md (what is printed) and record.json; a network measured there before stays.
"""

import argparse
import math

import numpy as np
import pandas as pd
import torch

from benchmarks.machine import record, slug
from benchmarks.program import command, run_program
from benchmarks.store import store
from benchmarks.tables import markdown
from benchmarks.timing import Times, best_clock, in_turns, ratio
from benchmarks.training_loops import OurTraining, PlainLoop, Task, Way
from hessketch.cli import whole_number
from hessketch.devices import prepare_device
from hessketch.progress import Progress

COLUMNS = ("part", "problem", "method", "quantity", "value")
NETWORKS = ("resnet18", "vgg11")
OURS = "hessketch"
MIXED = f"{OURS}, bfloat16"
WAYS = {OURS: Way(), MIXED: Way("bfloat16")}
CPU_WAYS = WAYS | {f"{OURS}, contiguous": Way(channels_last=False)}
GPU_WAYS = WAYS | {
    f"{OURS}, channels-last": Way(channels_last=True),
    f"{OURS}, one by one": Way(captured=False),
    f"{OURS}, channels-last, one by one": Way(channels_last=True, captured=False),
    f"{MIXED}, contiguous": Way("bfloat16", channels_last=False),
    f"{MIXED}, one by one": Way("bfloat16", captured=False),
}
AGREEMENT = {"float32": 1e-3, "bfloat16": 0.03}
"""Relative difference of the first epoch's mean loss from the plain loop's beyond which it is another training."""
_QUICK = {"rounds": 2, "batches": 2, "widths": [1 / 16]}


def parser() -> argparse.ArgumentParser:
    made = command("training", __doc__, _QUICK, rounds=5, trial="a minute or two")
    made.add_argument("--device", default="cpu", choices=("cpu", "cuda"), help="(default: cpu)")
    made.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS), help="default: all")
    made.add_argument("--widths", nargs="+", type=float, help="default: 1/16, 1/4 and 1; on a GPU 1")
    made.add_argument("--batch", type=whole_number(2), default=128, help="images in a batch (default: 128)")
    made.add_argument(
        "--batches", type=whole_number(1), help="batches in an epoch (default: 10, of width 1 on a CPU 2; on a GPU 200)"
    )
    made.add_argument("--workers", nargs="+", type=whole_number(0), default=[0, 2], help="loaders' (default: 0 2)")
    return made


def main(words: list[str] | None = None) -> None:
    run_program(parser(), run, _QUICK, words)


def run(arguments: argparse.Namespace, progress: Progress) -> None:
    """Measures each network at each width, writes what was found, and prints the summary."""
    torch.set_num_threads(arguments.threads)
    device = prepare_device(arguments.device)
    folder = arguments.output / f"training-{slug(device)}{'-quick' if arguments.quick else ''}"
    clock = best_clock(device, arguments.threads)
    settings = {name: value for name, value in vars(arguments).items() if name != "output"} | {"clock": clock}
    for network in arguments.networks:
        for width in arguments.widths or ([1] if device.type == "cuda" else [1 / 16, 1 / 4, 1]):
            few = 200 if device.type == "cuda" else 2 if width > 0.5 else 10
            task = Task(network, width, arguments.batches or few, arguments.batch, device.type)
            rows = measure(task, arguments.workers, arguments.rounds, clock, progress)
            store(pd.DataFrame(rows, columns=COLUMNS), folder, record(device, settings), report)
    progress.say(f"written to {folder}")


def measure(task: Task, workers: list[int], rounds: int, clock: str, progress: Progress) -> list[dict]:
    """Rows of the long table: images a second, times the best plain loop's, and agreement, by candidate."""
    device = torch.device(task.device)
    plain = {f"plain loop, {count} workers": PlainLoop(task, count) for count in workers}
    ways = GPU_WAYS if device.type == "cuda" else CPU_WAYS
    ours = {name: OurTraining(task, way) for name, way in ways.items()}
    candidates = {**plain, **ours}
    losses = {name: candidate.epoch() for name, candidate in candidates.items()}  # not timed: workers start, captures
    for name, training in ours.items():
        expected = device.type == "cuda" and ways[name].captured is not False
        if training.captured != expected:
            progress.say(f"{task.label}: {name} could not be captured")
    calls = {name: candidate.epoch for name, candidate in candidates.items()}
    times = in_turns(calls, rounds, device, progress.stage(task.label))
    best = min(plain, key=lambda name: float(np.median(times[name].clock(clock))))
    rows = []
    for name, taken in times.items():
        found = _quantities(task, taken, times[best], clock)
        found["relative difference"] = abs(losses[name] / losses[best] - 1)
        found["allowed difference"] = AGREEMENT[ways[name].precision if name in ways else "float32"]
        if found["relative difference"] > found["allowed difference"]:
            progress.say(f"{task.label}: {name} trains otherwise: loss {losses[name]:.6g}, not {losses[best]:.6g}")
        if name in ways:
            found["target, times faster"] = target_of(task, name)
        shared = {"part": task.label, "problem": task.label, "method": name}
        rows += [{**shared, "quantity": q, "value": v} for q, v in found.items() if not math.isnan(v)]
    return rows


def _quantities(task: Task, taken: Times, plain: Times, clock: str) -> dict[str, float]:
    faster = ratio(plain, taken, clock)
    return {
        "images a second": task.examples / float(np.median(taken.wall)),
        "images a CPU second": task.examples / float(np.median(taken.cpu)),
        "times faster": faster.median,
        "times faster, lower quartile": faster.low,
        "times faster, upper quartile": faster.high,
    }


def target_of(task: Task, method: str) -> float:
    """Times the plain loop's speed that is to be reached; NaN without a target."""
    if task.device == "cpu":
        return 1.0 if method in (OURS, MIXED) else math.nan
    return 3.0 if method == MIXED and (task.network, task.width) == ("resnet18", 1) else math.nan


_HEADING = """## Training

Images a second of whole epochs, median over rounds in turns, by wall time and by CPU time of this process (the plain
loop's workers not counted); how many times faster than the better plain loop of the same round, with quartiles, on a
CPU with one thread by CPU time, else by wall time; relative difference of the first epoch's mean loss.
"""


def report(table: pd.DataFrame) -> str:
    """Every candidate of every network, with its target."""
    keys = ["problem", "method"]
    wide = table.pivot_table(index=keys, columns="quantity", values="value", sort=False).reset_index()
    columns = ["network", "method", "images/s", "images/CPU s", "times faster", "difference", "target"]
    rows = []
    for _, row in wide.iterrows():
        low, faster, high = (row[f"times faster{end}"] for end in (", lower quartile", "", ", upper quartile"))
        agrees = row["relative difference"] <= row["allowed difference"]
        difference = f"{row['relative difference']:.0e}" + ("" if agrees else ", ANOTHER TRAINING")
        speeds = [f"{row[f'images a {unit}']:.0f}" for unit in ("second", "CPU second")]
        target = row.get("target, times faster", math.nan)
        verdict = "" if math.isnan(target) else f"{target:g} times {'met' if faster >= target else 'MISSED'}"
        cells = [*speeds, f"{faster:.2f} ({low:.2f} to {high:.2f})", difference, verdict]
        rows.append([row["problem"], row["method"], *cells])
    return f"{_HEADING}\n{markdown(columns, rows)}\n"


if __name__ == "__main__":
    main()
