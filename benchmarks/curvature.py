"""Measures curvature products, eigenvalues and densities against other libraries.

Parts: `products` (time and memory of one product, in gradients), `eigenvalues` (products until the ten leading ones
are right), `ghosts` (false copies among them), `density` (distance from the exact spectrum). All but the first
compare with exact spectra of small networks and run on the CPU. Writes into OUTPUT/DEVICE: measurements.csv (the long
table), summary.md (what is printed), products.png, density.png and record.json; parts measured there before stay.
Libraries that are not installed are left out: pip install -r benchmarks/requirements.txt
"""

import argparse
from pathlib import Path

import pandas as pd
import torch

from benchmarks import density, eigenvalues, ghosts, products
from benchmarks.figures import density_errors, product_costs
from benchmarks.machine import record, slug
from benchmarks.peers import missing_lines
from benchmarks.problems import timed
from benchmarks.program import command, run_program
from benchmarks.store import store
from benchmarks.tables import report
from benchmarks.timing import best_clock
from benchmarks.trained import RECIPES, trained
from hessketch.cli import whole_number
from hessketch.devices import prepare_device
from hessketch.errors import InputError
from hessketch.figures.style import save_figure
from hessketch.progress import Progress

_OF_SPECTRA = {"eigenvalues": eigenvalues.measure, "ghosts": ghosts.measure, "density": density.measure}
PARTS = ("products", *_OF_SPECTRA)
FIGURES = {"products": ("products", product_costs), "density": ("density", density_errors)}
COLUMNS = ("part", "problem", "operator", "method", "choice", "seed", "quantity", "value")
_QUICK = {"width": 0.125, "batch": 32, "examples": 32, "rounds": 3, "seeds": 1}


def parser() -> argparse.ArgumentParser:
    made = command("curvature", __doc__, _QUICK, rounds=5, trial="minutes, with one small network")
    made.add_argument("--device", default="cpu", choices=("cpu", "cuda"), help="of the products (default: cpu)")
    made.add_argument("--batch", type=whole_number(1), default=128, help="images a batch (default: 128)")
    made.add_argument("--examples", type=whole_number(1), help="images, a multiple of the batch (default: one batch)")
    made.add_argument("--width", type=float, default=1.0, help="width of VGG11 and ResNet18 (default: 1)")
    made.add_argument("--networks", nargs="+", default=["vgg11", "resnet18"], help="default: vgg11 resnet18")
    made.add_argument("--seeds", type=whole_number(1), default=3, help="start vectors of the spectra (default: 3)")
    made.add_argument("--memory", action="store_true", help="also the memory on a CPU, a process for each")
    made.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="default: all")
    return made


def main(words: list[str] | None = None) -> None:
    run_program(parser(), run, _QUICK, words)


def run(arguments: argparse.Namespace, progress: Progress) -> None:
    """Measures the chosen parts, writes what was found, and prints the summary."""
    arguments.examples = arguments.examples or arguments.batch
    if arguments.examples % arguments.batch:
        raise InputError(
            f"{arguments.examples} examples are no multiple of a batch of {arguments.batch}: some libraries weigh "
            "batches equally"
        )
    torch.set_num_threads(arguments.threads)
    device = prepare_device(arguments.device)
    for line in missing_lines():
        progress.say(line)
    rows = measure_products(arguments, device, progress) if "products" in arguments.parts else []
    rows += measure_spectra(arguments, progress)
    folder = arguments.output / (slug(device) + ("-quick" if arguments.quick else ""))
    settings = {name: value for name, value in vars(arguments).items() if name != "output"}
    settings["clock_of_products"] = best_clock(device, arguments.threads)
    write(pd.DataFrame(rows, columns=COLUMNS), folder, record(device, settings))
    progress.say(f"written to {folder}")


def measure_products(arguments: argparse.Namespace, device: torch.device, progress: Progress) -> list[dict]:
    settings = products.Settings(arguments.rounds, device, arguments.threads, arguments.memory)
    rows = []
    for network in arguments.networks:
        problem = timed(network, arguments.width, arguments.examples, arguments.batch, device)
        rows += products.measure(problem, settings, progress)
    return rows


def measure_spectra(arguments: argparse.Namespace, progress: Progress) -> list[dict]:
    chosen = [measure for part, measure in _OF_SPECTRA.items() if part in arguments.parts]
    if not chosen:
        return []
    rows = []
    for recipe in RECIPES[:1] if arguments.quick else RECIPES:
        problem = trained(recipe)
        progress.say(f"{problem.name}: {problem.parameters} parameters, eleventh over tenth {problem.gap:.3f}")
        for measure in chosen:
            rows += measure(problem, range(arguments.seeds), progress)
    return rows


def write(table: pd.DataFrame, folder: Path, of_run: dict) -> None:
    """The long table, the summary and the records as `store` writes them, and figures."""
    table = store(table, folder, of_run, report)
    for part, (name, draw) in FIGURES.items():
        if part in set(table["part"]):
            save_figure(draw(table), folder / f"{name}.png")


if __name__ == "__main__":
    main()
