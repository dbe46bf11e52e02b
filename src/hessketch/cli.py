"""What every command of hessketch shares: flags from settings, a log, and errors that a reader can act on."""

import argparse
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from hessketch import ledger
from hessketch.errors import DiskFullError, InputError
from hessketch.extensions import load_named
from hessketch.job_locks import alone_at
from hessketch.processes import in_group, is_first_process, processes_here
from hessketch.progress import Progress, notes_said
from hessketch.records import unwritable

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Settings = TypeVar("Settings", bound="DataclassInstance")


def add_settings(parser: argparse.ArgumentParser, settings: type, skip: tuple[str, ...] = ()) -> None:
    """One flag a field of a settings dataclass, with its default and, where given, the help in its metadata."""
    for field in fields(settings):
        if field.name in skip:
            continue
        flag = "--" + field.name.replace("_", "-")
        text = f"{field.metadata.get('help', field.name.replace('_', ' '))} (default: {field.default})"
        if isinstance(field.default, bool):
            action = argparse.BooleanOptionalAction if field.default else "store_true"
            parser.add_argument(flag, action=action, default=field.default, help=text)
        else:
            choices = field.metadata.get("choices")
            parser.add_argument(flag, type=type(field.default), default=field.default, choices=choices, help=text)


def settings_from(arguments: argparse.Namespace, settings: type[Settings], **given: Any) -> Settings:
    """The settings dataclass from parsed flags; `given` overrides or supplies fields."""
    values = {f.name: getattr(arguments, f.name) for f in fields(settings) if hasattr(arguments, f.name)}
    return settings(**{**values, **given})


def add_device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda (default: auto, a GPU where there is one)")
    parser.add_argument("--threads", type=whole_number(1), help="CPU threads (default: torch's choice)")
    parser.add_argument(
        "--jobs-per-gpu",
        type=whole_number(1),
        default=1,
        help="jobs that may share a GPU, this one included (default: 1, a GPU of its own)",
    )


def whole_number(least: int) -> Callable[[str], int]:
    """An argparse type: a whole number of at least `least` (not negative)."""

    def parse(text: str) -> int:
        if not text.isdigit() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r} given; allowed: a whole number of at least {least}")
        return int(text)

    return parse


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} given; allowed: a number of seconds, such as 30")
    return seconds


def output_folder(text: str) -> Path:
    """A folder to write into, for argparse: not an existing file, nor below one."""
    reason = unwritable(text)
    if reason:
        raise argparse.ArgumentTypeError(f"{text}: cannot be written ({reason})")
    return Path(text)


def _rank(text: str) -> int | str:
    if text != "classes" and not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} given; allowed: a whole number from 0, or the word classes")
    return text if text == "classes" else int(text)


def _memory(text: str) -> int | None:
    try:
        gib = 0.0 if text == "auto" else float(text)
    except ValueError:
        gib = -1.0
    if not (text == "auto" or 0 <= gib < float("inf")):
        raise argparse.ArgumentTypeError(f"{text!r} given; allowed: a number of GiB, or the word auto")
    return None if text == "auto" else int(gib * 2**30)


def per_class(text: str) -> int | None:
    """An argparse type: a number of examples of each class, or None for the word all."""
    return None if text == "all" else whole_number(1)(text)


def add_spectrum_settings(parser: argparse.ArgumentParser, methods: Mapping[str, type]) -> None:
    """How spectra are computed: a method, its settings (None where not given), memory and arithmetic.

    `methods` maps names to settings dataclasses, the default first; a flag serves every method that has its field.
    """
    default = next(iter(methods))
    parser.add_argument("--method", choices=list(methods), default=default, help=f"(default: {default})")
    parser.add_argument(
        "--deflation-rank",
        type=_rank,
        default="classes",
        metavar="RANK",
        help="eigenpairs taken out: a number, 0 for none, or 'classes' (default: classes)",
    )
    defaults: dict[str, dict[str, Any]] = {}
    choices: dict[str, Any] = {}
    for method, settings in methods.items():
        for field in fields(settings):
            defaults.setdefault(field.name, {})[method] = field.default
            choices[field.name] = field.metadata.get("choices")
    for name, values in defaults.items():
        if name in _RANK_FIELDS:
            continue
        text = ", ".join(f"{value} with {method}" for method, value in values.items())
        kind = type(next(iter(values.values())))
        options = {"action": "store_const", "const": True} if kind is bool else {"type": kind, "choices": choices[name]}
        parser.add_argument(f"--{name.replace('_', '-')}", help=f"(default: {text})", **options)
    add_memory(parser)
    parser.add_argument("--tf32", action="store_true", help="allow TF32 on a GPU: faster, three digits")


def add_memory(parser: argparse.ArgumentParser) -> None:
    """How much a job may keep; see `memory_from`."""
    parser.add_argument(
        "--memory-gib",
        type=_memory,
        metavar="GIB",
        help="memory for what is kept between products (graphs, vectors) on the job's device, or 'auto': the job's "
        "share of what is free (default: auto)",
    )


_RANK_FIELDS = ("deflation_rank", "top")


def spectrum_settings_from(arguments: argparse.Namespace, methods: Mapping[str, type], classes: int) -> Any:
    """The chosen method's settings from parsed flags, for data of so many classes.

    Raises InputError for a flag of another method.
    """
    rank = classes if arguments.deflation_rank == "classes" else arguments.deflation_rank
    chosen = {field.name for field in fields(methods[arguments.method])}
    given: dict[str, Any] = {}
    for method, settings in methods.items():
        for field in fields(settings):
            value = rank if field.name in _RANK_FIELDS else getattr(arguments, field.name)
            if field.name in chosen and value is not None:
                given[field.name] = value
            elif value is not None and field.name not in _RANK_FIELDS:
                raise InputError(
                    f"--{field.name.replace('_', '-')} belongs to method {method}: leave it out, or give "
                    f"--method {method}"
                )
    return methods[arguments.method](**given)


def add_test_size(parser: argparse.ArgumentParser) -> None:
    """How many test examples."""
    parser.add_argument(
        "--test-examples-per-class", type=per_class, metavar="N", help="a number or 'all' (default: all)"
    )


def add_spectrum_job(parser: argparse.ArgumentParser, methods: Mapping[str, type]) -> None:
    """What every job that computes spectra on prepared data takes besides what it computes them of."""
    parser.add_argument("--data", type=Path, required=True, help="prepared data, from prepare_data.py")
    parser.add_argument("--output", type=Path, required=True, help="folder to write into")
    parser.add_argument(
        "--batch-size", type=whole_number(1), default=500, help="examples in one pass of a product (default: 500)"
    )
    add_test_size(parser)
    parser.add_argument("--log", help="log file")
    add_spectrum_settings(parser, methods)
    add_save_every(parser)
    add_device(parser)


def add_predictor_job(parser: argparse.ArgumentParser, settings: type, estimators: tuple[str, ...]) -> None:
    """What every job on predictor Hessians takes besides whose weights it looks at."""
    parser.add_argument("--data", type=Path, required=True, help="prepared data, from prepare_data.py")
    parser.add_argument(
        "--examples", type=whole_number(0), nargs="+", required=True, help="places in the training subset"
    )
    parser.add_argument("--output", type=Path, required=True, help="folder to write into")
    parser.add_argument("--log", help="log file")
    parser.add_argument("--estimators", nargs="+", choices=estimators, default=estimators, help="(default: both)")
    add_settings(parser, settings, skip=("estimators",))
    add_save_every(parser)
    add_device(parser)


def spectrum_options_from(arguments: argparse.Namespace, device: Any) -> dict[str, Any]:
    """Arguments that the functions which compute spectra share: batch_size, memory, tf32, save_every."""
    memory = memory_from(arguments, device)
    return {"memory": memory, **{name: getattr(arguments, name) for name in ("batch_size", "tf32", "save_every")}}


def memory_from(arguments: argparse.Namespace, device: Any) -> int:
    """Bytes that a job may keep: as given, or its share, by threads or jobs on a GPU, of what the device has free."""
    from hessketch.linalg.memory import free_memory

    if arguments.memory_gib is not None:
        return arguments.memory_gib
    if device.type == "cuda":
        share = 1 / arguments.jobs_per_gpu
    else:
        cores = os.cpu_count() or 1
        share = min(1.0, (arguments.threads or cores) / cores) / processes_here()
    return int(0.8 * share * free_memory(device))


def add_figure(parser: argparse.ArgumentParser, figures: Iterable[str]) -> None:
    """What every script that draws one of several figures takes besides the rows that it draws."""
    figures = list(figures)
    parser.add_argument("figure", choices=figures, metavar="figure", help=", ".join(figures))
    parser.add_argument("--tables", type=Path, required=True, help="folder of the study's tables")
    parser.add_argument("--dataset", required=True, help="data set")
    parser.add_argument("--pdf", type=Path, required=True, help="PDF file to write")
    parser.add_argument("--png", type=Path, required=True, help="PNG file to write")
    parser.add_argument("--log", help="log file")


def add_save_every(parser: argparse.ArgumentParser) -> None:
    """How much work a kill may lose. Also by environment variable: a flag of a rule would retrain what is done."""
    parser.add_argument(
        "--save-every",
        type=_seconds,
        default=os.environ.get("HESSKETCH_SAVE_EVERY", "30"),
        metavar="SECONDS",
        help="least time between saved states of a long job (default: $HESSKETCH_SAVE_EVERY or 30)",
    )


def device_from(arguments: argparse.Namespace):
    """The torch device that the flags ask for, prepared for repeatable numbers; threads are those of all processes."""
    from hessketch.devices import prepare_device

    device = prepare_device(arguments.device, arguments.jobs_per_gpu)
    if arguments.threads:
        import torch

        torch.set_num_threads(max(1, arguments.threads // processes_here()))
    return device


def run_job(job: Callable[[Progress], None], name: str, log: str | None = None) -> None:
    """Runs one command. An InputError ends it with its message alone; anything else with its traceback, in the log.

    Of several processes the first alone reports, each its own failure. Exit status: 0 done, 1 failed, 130 interrupted.
    """
    ledger.begin()
    progress = Progress(name, log if is_first_process() else os.devnull)
    try:
        with alone_at(None if in_group() else log), notes_said(progress.say):
            load_named()
            job(progress)
        status = 0
    except KeyboardInterrupt:
        progress.say("interrupted")
        status = 130
    except BrokenPipeError:
        # The reader of our output has gone: nothing is wrong, and nothing more can be said.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 0
    except (InputError, DiskFullError, ArithmeticError) as error:
        _fail(progress, log, f"error: {error}")
        status = 1
    except Exception:
        _fail(progress, log, traceback.format_exc().rstrip())
        status = 1
    progress.close()
    if status:
        sys.exit(status)


def _fail(progress: Progress, log: str | None, text: str) -> None:
    if log is not None:
        (progress if is_first_process() else Progress(progress.job, log)).say(text)
    else:
        print(text, file=sys.stderr)
