"""Measures many eigenpairs by Lanczos, block Krylov and sketches against the library skerch.

Parts: `matrices` (accuracy at equal products on dense matrices of known spectra), `network` (accuracy and time on the
Hessian of a trained network, against its exact decomposition), `large` (time and peak memory at half a million
parameters), `ladder` (products and seconds until 5 to 500 pairs are right). Fashion-MNIST is taken where it is
installed, else digits. Writes into OUTPUT/eigenspaces-DEVICE: measurements.csv (the long table), summary.md (what is
printed) and record.json; a part measured there before stays. skerch is left out where it is not installed:
pip install -r benchmarks/requirements.txt
"""

import argparse

import pandas as pd
import torch

from benchmarks import eigenspaces_accuracy, eigenspaces_ladder, eigenspaces_large
from benchmarks.eigenspaces_methods import PEERS, SKERCH
from benchmarks.eigenspaces_problems import Network, Solved, matrix, network, solved, spectra
from benchmarks.eigenspaces_tables import MATRICES, NETWORK, report
from benchmarks.machine import record, slug
from benchmarks.peers import version
from benchmarks.program import command, run_program
from benchmarks.store import store
from hessketch.cli import whole_number
from hessketch.progress import Progress

PARTS = ("matrices", "network", "large", "ladder")
COLUMNS = ("part", "problem", "method", "pairs", "quantity", "value")
_QUICK = {"dimension": 400, "pairs": 20, "width": 0.4, "large_width": 1.0, "large_pairs": 20, "rounds": 1, "seeds": 1}


def parser() -> argparse.ArgumentParser:
    made = command("eigenspaces", __doc__, _QUICK, rounds=3, trial="a minute")
    made.add_argument("--dimension", type=whole_number(100), default=3000, help="of the matrices (default: 3000)")
    made.add_argument("--pairs", type=whole_number(4), help="(default: 200 of matrices, 355 of the network)")
    made.add_argument("--width", type=float, default=1.0, help="of the network, 7,030 parameters (default: 1)")
    made.add_argument("--large-width", type=float, default=16.0, help="of the large network (default: 16)")
    made.add_argument("--large-pairs", type=whole_number(4), default=200, help="(default: 200)")
    made.add_argument("--seeds", type=whole_number(1), default=2, help="random vectors (default: 2)")
    made.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="default: all")
    return made


def main(words: list[str] | None = None) -> None:
    run_program(parser(), run, _QUICK, words)


def run(arguments: argparse.Namespace, progress: Progress) -> None:
    """Measures the chosen parts, writes what was found, and prints the summary."""
    torch.set_num_threads(arguments.threads)
    if PEERS[0].missing:
        progress.say(f"{SKERCH} is not installed and left out: pip install -r benchmarks/requirements.txt")
    seeds, rows = range(arguments.seeds), []
    if "matrices" in arguments.parts:
        pairs = arguments.pairs or 200
        for name, values in spectra(arguments.dimension, pairs).items():
            problem = matrix(name, values, pairs)
            rows += eigenspaces_accuracy.measure(MATRICES, problem, 0, seeds, progress)
    if {"network", "ladder"} & set(arguments.parts):
        rows += _of_network(arguments, network("mlp_tanh", arguments.width), progress)
    if "large" in arguments.parts:
        rows += eigenspaces_large.measure(arguments.large_pairs, arguments.large_width, progress)
    folder = arguments.output / f"eigenspaces-{slug(torch.device('cpu'))}{'-quick' if arguments.quick else ''}"
    settings = {name: value for name, value in vars(arguments).items() if name != "output"}
    of_run = {**record(torch.device("cpu"), settings), "peers": {SKERCH: version(SKERCH)}}
    store(pd.DataFrame(rows, columns=COLUMNS), folder, of_run, report)
    progress.say(f"written to {folder}")


def _of_network(arguments: argparse.Namespace, made: Network, progress: Progress) -> list[dict]:
    p, rows = made.operator().shape[0], []
    if "network" in arguments.parts:
        pairs = arguments.pairs or 355
        problem: Solved = solved(f"p={p}", made, pairs, progress.stage("row of the dense Hessian"))
        rows += eigenspaces_accuracy.measure(NETWORK, problem, arguments.rounds, range(arguments.seeds), progress)
    if "ladder" in arguments.parts:
        rows += eigenspaces_ladder.measure(made.operator(), f"p={p}", p // 5, progress)
    return rows


if __name__ == "__main__":
    main()
