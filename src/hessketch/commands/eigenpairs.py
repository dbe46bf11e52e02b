"""Compute many eigenpairs of largest magnitude of the Hessian (or another curvature matrix) of one checkpoint.

Writes eigenvalues.parquet, eigenvectors.safetensors (p rows, a column a pair) and record.json, and prints the largest
eigenvalues. lanczos and block_krylov keep a vector a product in memory; sketched streams its measurements to the
output folder, and knows its residuals only where --residuals asks for a product a pair more; its --probes tell how much
of the squared Frobenius norm the leading pairs leave out. auto takes what takes least time of those that fit.
--memory-gib goes in halves to the products' graphs and to the vectors of lanczos and block_krylov, or what a sketch
works with and the eigenvectors, which the host or the output folder keep where a GPU has no room. A killed run
continues when the same command is given again.

examples:
  python -m hessketch eigenpairs --checkpoint my_run/model.safetensors --dataset digits --pairs 200 --output my_pairs
  python -m hessketch eigenpairs --checkpoint my_run/model.safetensors --dataset digits --pairs 1000 \\
      --method sketched --passes 2 --residuals --memory-gib 8 --output my_pairs
"""

import argparse
import json
import shutil
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hessketch.cli import (
    add_device,
    add_memory,
    add_save_every,
    device_from,
    memory_from,
    whole_number,
)
from hessketch.commands.spectrum import Loaded, add_checkpoint, load
from hessketch.curvature.named import operator_names
from hessketch.errors import InputError
from hessketch.linalg.many_eigenpairs import METHODS
from hessketch.linalg.sketch_settings import SketchSettings
from hessketch.linalg.sketch_sizes import METHODS as RECOVERIES

if TYPE_CHECKING:
    from hessketch.curvature.named import RegisteredOperator
    from hessketch.curvature.operators import CurvatureOperator
    from hessketch.linalg.many_eigenpairs import ManyEigenpairs

_SHOWN = 10
_MUCH = 0.1  # share of the squared norm left out beyond which a sketch's values are not to be trusted
_OF_SKETCH = [field for field in fields(SketchSettings) if field.name not in ("pairs", "method")]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_checkpoint(parser)
    parser.add_argument("--operator", choices=operator_names(), default="hessian", help="(default: hessian)")
    parser.add_argument("--pairs", type=whole_number(1), required=True, help="how many eigenpairs")
    parser.add_argument("--method", choices=METHODS, default="auto", help="(default: auto)")
    parser.add_argument(
        "--tolerance",
        type=float,
        default=1e-3,
        help="of lanczos and block_krylov: residuals relative to their eigenvalues (default: 0.001)",
    )
    parser.add_argument("--residuals", action="store_true", help="of sketched: one product a pair more")
    parser.add_argument("--sketch", choices=RECOVERIES, help="of sketched: ours or the paper's (default: fast)")
    for field in _OF_SKETCH:
        text = f"of sketched: {field.metadata['help']} (default: {field.default})"
        choices = field.metadata["choices"]
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=type(field.default), choices=choices, help=text)
    add_memory(parser)
    parser.add_argument("--tf32", action="store_true", help="allow TF32 on a GPU: faster, three digits")
    add_save_every(parser)
    add_device(parser)


def run(arguments: argparse.Namespace, progress) -> None:
    from hessketch.curvature.losses import loss_function
    from hessketch.curvature.named import named_operator
    from hessketch.linalg.many_eigenpairs import many_eigenpairs
    from hessketch.provenance import Stopwatch
    from hessketch.seeds import derive_seed

    watch, sketch, loaded = Stopwatch(), _sketch_from(arguments), load(arguments)
    device = device_from(arguments)
    memory = memory_from(arguments, device) // 2  # half for graphs, half for vectors
    seed = derive_seed(loaded.run.seed, arguments.dataset, f"eigenpairs {arguments.split}")
    batches = loaded.examples.to(device).batches(arguments.batch_size)
    operator = named_operator(
        arguments.operator, loaded.model.to(device), loss_function(loaded.run.loss), batches, memory=memory,
        tf32=arguments.tf32,
    )  # fmt: skip
    task = _task(arguments, loaded, sketch, seed)
    found = many_eigenpairs(
        operator,
        arguments.pairs,
        seed,
        method=arguments.method,
        tolerance=arguments.tolerance,
        sketch=None if sketch == SketchSettings(pairs=arguments.pairs) else sketch,
        residuals=arguments.residuals,
        memory=memory,
        stores=lambda method: _store(arguments.output / "partial", method, task, arguments.save_every),
        progress=progress.stage(f"{arguments.operator}: product"),
    )
    record = {**task, **_facts(found, operator, loaded), **watch.cost()}
    _write(arguments, found, record)
    _show(arguments, found, record)


def _sketch_from(arguments: argparse.Namespace) -> SketchSettings:
    """Raises InputError for a flag of the sketch beside a method that takes none."""
    given = {field.name: getattr(arguments, field.name) for field in _OF_SKETCH} | {"method": arguments.sketch}
    given = {name: value for name, value in given.items() if value is not None}
    if arguments.method in ("lanczos", "block_krylov") and (given or arguments.residuals):
        flag = next(iter({"sketch" if name == "method" else name for name in given} or {"residuals"}))
        raise InputError(
            f"--{flag.replace('_', '-')} belongs to method sketched: leave it out, or give --method sketched"
        )
    return SketchSettings(pairs=arguments.pairs, **given)


def _task(arguments: argparse.Namespace, loaded: Loaded, sketch: SketchSettings, seed: int) -> dict[str, Any]:
    """What the eigenpairs depend on."""
    from hessketch.curvature.job import tensors_digest
    from hessketch.provenance import code_digest

    names = ("dataset", "split", "operator", "pairs", "tolerance", "residuals", "batch_size", "tf32")
    return {
        **{name: getattr(arguments, name) for name in names},
        "weights": tensors_digest(list(loaded.model.state_dict().values())),
        "data": tensors_digest([loaded.examples.inputs, loaded.examples.targets]),
        "loss": loaded.run.loss,
        "sketch": asdict(sketch),
        "seed": seed,
        "code": code_digest(),
    }


def _store(folder: Path, method: str, task: dict[str, Any], every: float):
    from hessketch.curvature.measurement_files import MeasurementFiles
    from hessketch.curvature.resume import LanczosStore

    identity = json.dumps(task, sort_keys=True)
    if method == "sketched":
        return MeasurementFiles(folder / method, identity)
    return LanczosStore(folder / method, identity, every)


def _facts(
    found: "ManyEigenpairs", operator: "CurvatureOperator | RegisteredOperator", loaded: Loaded
) -> dict[str, Any]:
    from hessketch.checkpoints import parameter_order
    from hessketch.provenance import environment

    return {
        "n": len(loaded.examples),
        "p": operator.shape[0],
        "classes": loaded.examples.classes,
        "method": found.method,
        "reason": found.reason,
        "products": found.products,
        "converged": found.converged,
        "errors": None if found.errors is None else asdict(found.errors),
        "largest_batch": operator.largest_batch,
        **operator.arithmetic,
        "network_mode": "eval: batch norm frozen at its running statistics",
        "parameter_order": parameter_order(loaded.model),
        "environment": environment(operator.device),
    }


def _write(arguments: argparse.Namespace, found: "ManyEigenpairs", record: dict[str, Any]) -> None:
    import pandas

    from hessketch.records import write_record, write_table, write_tensors

    columns = {name: record[name] for name in ("dataset", "split", "operator", "method", "n", "p", "classes")}
    table = pandas.DataFrame(
        {
            **columns,
            "rank": range(1, len(found.values) + 1),
            "eigenvalue": found.values,
            "residual": found.residuals,
            **_shares_left(found),
        }
    )
    write_table(table, arguments.output / "eigenvalues.parquet")
    metadata = {"parameter_order": record["parameter_order"], "operator": arguments.operator}
    write_tensors({"eigenvectors": found.vectors}, arguments.output / "eigenvectors.safetensors", metadata)
    write_record(record, arguments.output / "record.json")
    shutil.rmtree(arguments.output / "partial", ignore_errors=True)


def _shares_left(found: "ManyEigenpairs") -> dict[str, Any]:
    """Columns (k,): lower and upper share of the squared Frobenius norm that the best so many pairs leave out.

    NaN where no probes have estimated the norm.
    """
    from hessketch.linalg.a_posteriori import scree_bounds

    lower: Any = float("nan")
    upper: Any = float("nan")
    if found.errors is not None:
        lower, upper = (bound[1:] for bound in scree_bounds(found.values, found.errors))
    return {"share_left_lower": lower, "share_left_upper": upper}


def _show(arguments: argparse.Namespace, found: "ManyEigenpairs", record: dict[str, Any]) -> None:
    """Prints how they were found, the largest eigenvalues with residuals, and where the files are."""
    print(f"{record['p']} parameters, {record['n']} examples; {found.method}: {found.reason}")
    values = zip(found.values[:_SHOWN], found.residuals[:_SHOWN], strict=True)
    known = "  ".join(f"{value:.4g}" + ("" if error != error else f"±{error:.1g}") for value, error in values)
    print(f"{arguments.operator}: {known}")
    if found.errors is not None:
        low, high = found.errors.residual_bounds()
        norm = found.errors.frobenius_squared
        print(
            f"share of the squared Frobenius norm that they leave out: {found.errors.residual_share:.2g} "
            f"({low / norm if norm else 0:.2g} to {high / norm if norm else 0:.2g} with 95% confidence)"
        )
        if found.errors.residual_share > _MUCH and not arguments.residuals:
            print(
                "that is much: beyond the first, values may be larger than any eigenvalue there; take --residuals for "
                "Rayleigh quotients, more --measurements, or --method block_krylov"
            )
    if found.converged < len(found.values):
        print(_not_converged(arguments, found))
    print(f"{len(found.values)} pairs of {found.products} products: {arguments.output / 'eigenvectors.safetensors'}")


def _not_converged(arguments: argparse.Namespace, found: "ManyEigenpairs") -> str:
    """How many have converged, and what would help."""
    if found.method == "sketched" and not arguments.residuals:
        return "their residuals are not known: --residuals measures them by a product a pair"
    more = "measurements, or more passes" if found.method == "sketched" else "memory"
    which = f"only the first {found.converged} have" if found.converged else "none has"
    return f"{which} converged to {arguments.tolerance:g}: give more {more}"
