"""What the commands of the benchmarks share: a quick trial, progress, and errors that a reader can act on."""

import argparse
import sys
from collections.abc import Callable, Mapping
from typing import Any

from hessketch.errors import InputError
from hessketch.progress import Progress


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
