"""What the commands of the benchmarks share: a quick trial, progress, and errors that a reader can act on."""

import argparse
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hessketch.cli import whole_number
from hessketch.errors import InputError
from hessketch.progress import Progress


def command(
    name: str, description: str | None, quick: Mapping[str, Any], *, rounds: int, trial: str
) -> argparse.ArgumentParser:
    """The parser of `python -m benchmarks.NAME` with the flags that all have; `trial` is the time of --quick."""
    made = argparse.ArgumentParser(
        prog=f"python -m benchmarks.{name}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--threads", type=whole_number(1), default=1, help="CPU threads (default: 1)")
    made.add_argument(
        "--rounds", type=whole_number(1), default=rounds, help=f"times that each is timed (default: {rounds})"
    )
    made.add_argument("--quick", action="store_true", help=f"a trial in {trial}: {quick}")
    made.add_argument("--output", type=Path, default=Path("benchmarks/results"), help="default: benchmarks/results")
    return made


def run_program(
    parser: argparse.ArgumentParser,
    run: Callable[[argparse.Namespace, Progress], None],
    quick: Mapping[str, Any],
    words: list[str] | None = None,
) -> None:
    """Parses and runs a benchmark; with --quick, `quick` replaces what was given. An InputError ends it, status 1."""
    arguments = parser.parse_args(words)
    if arguments.quick:
        vars(arguments).update(quick)
    progress = Progress("benchmark")
    try:
        run(arguments, progress)
    except InputError as error:
        sys.exit(f"error: {error}")
    finally:
        progress.close()
