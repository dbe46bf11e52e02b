"""`python -m hessketch`: train a network, simulate a federation, compute the spectrum or eigenpairs of a checkpoint."""

import argparse
import os
import sys

from hessketch import extensions
from hessketch.cli import run_job
from hessketch.commands import claims, eigenpairs, federate, plan, spectrum, train, verify
from hessketch.errors import InputError

_EXAMPLES = """examples:
  python -m hessketch train --dataset digits --network resnet18 --width 0.125 --epochs 20 --output my_run
  python -m hessketch federate --dataset digits --network mlp --norm none --width 0.0625 --reduction 10 --clients 20 \\
      --rounds 60 --learning-rate 0.3 --output my_federation
  python -m hessketch spectrum --checkpoint my_run/model.safetensors --dataset digits --split test --output my_spectrum
  python -m hessketch eigenpairs --checkpoint my_run/model.safetensors --dataset digits --pairs 200 --output my_pairs
  python -m hessketch claims results/demo
  python -m hessketch plan --configfile config/paper.yaml --device h200 --cores 8
  python -m hessketch verify results/demo

`python -m hessketch COMMAND --help` lists the flags of a command with their defaults.
"""


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    top = argparse.ArgumentParser(
        prog="python -m hessketch",
        description="Spectra of deep-network Hessians, with and without sketched federated training.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for module in (train, federate, spectrum, eigenpairs, claims, plan, verify):
        name = module.__name__.rsplit(".", 1)[-1]
        command = commands.add_parser(
            name,
            help=(module.__doc__ or "").splitlines()[0],
            description=module.__doc__,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(command)
        _add_extension(command)
        command.set_defaults(run=module.run)
    return top


def _add_extension(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--extension",
        action="append",
        default=[],
        metavar="FILE",
        help="Python file of your own that registers networks and the like by name; may be given several times "
        f"(default: those of ${extensions.VARIABLE})",
    )


def _load_extensions(words: list[str] | None) -> None:
    """Runs the extensions that flags or the environment name, before the names that they add are parsed."""
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    _add_extension(first)
    files = first.parse_known_args(words)[0].extension
    if files:
        extensions.tell_jobs([*filter(None, os.environ.get(extensions.VARIABLE, "").split(os.pathsep)), *files])
    try:
        extensions.load_named()
    except InputError as error:
        sys.exit(f"error: {error}")


def main(words: list[str] | None = None) -> None:
    """Parses and runs one command; ends the process with status 1 and a message where it fails."""
    _load_extensions(words)
    arguments = parser().parse_args(words)
    run_job(lambda progress: arguments.run(arguments, progress), arguments.command)


if __name__ == "__main__":
    main()
