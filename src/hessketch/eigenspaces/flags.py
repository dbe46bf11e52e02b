"""Command-line flags that every job on eigenspaces shares, and the settings that they give."""

import argparse
from pathlib import Path

from hessketch.cli import add_device, add_memory, add_settings, add_test_size, per_class, settings_from
from hessketch.eigenspaces.settings import METHODS, RATIOS, SPLITS, EigenspaceSettings

_LISTS = ("methods", "splits", "ratios", "stability_ratios")


def add_eigenspace_job(parser: argparse.ArgumentParser) -> None:
    """What every job on eigenspaces takes besides whose weights it looks at."""
    parser.add_argument("--data", type=Path, required=True, help="prepared data, from prepare_data.py")
    parser.add_argument("--output", type=Path, required=True, help="folder to write the tables into")
    parser.add_argument("--log", help="log file")
    parser.add_argument(
        "--hessian-examples-per-class",
        type=per_class,
        metavar="N",
        help="the Hessian is averaged over the first so many examples of each class, or 'all' (default: all)",
    )
    add_test_size(parser)
    parser.add_argument("--splits", nargs="+", choices=SPLITS, default=SPLITS, help="(default: both)")
    parser.add_argument(
        "--methods", nargs="+", choices=METHODS, default=("exact", "sketched"), help="(default: exact sketched)"
    )
    parser.add_argument(
        "--ratios",
        type=float,
        nargs="+",
        default=RATIOS,
        help=f"mask sizes over parameters (default: {' '.join(map(str, RATIOS))})",
    )
    add_settings(parser, EigenspaceSettings, skip=_LISTS)
    add_memory(parser)
    add_device(parser)


def eigenspace_settings_from(arguments: argparse.Namespace) -> EigenspaceSettings:
    """The settings of parsed flags."""
    given = {name: tuple(getattr(arguments, name)) for name in _LISTS if hasattr(arguments, name)}
    return settings_from(arguments, EigenspaceSettings, **given)
