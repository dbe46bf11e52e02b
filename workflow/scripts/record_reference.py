"""Records one study's tables, small enough for a repository, and what made them: their figures then need no runs."""

import argparse
import json
from pathlib import Path

from hessketch.cli import run_job, whole_number
from hessketch.errors import InputError


def figures_of(text: str) -> dict[str, str]:
    """Figures and their plotting arguments: JSON text, or @FILE with it."""
    try:
        return json.loads(Path(text[1:]).read_text() if text.startswith("@") else text)
    except (OSError, ValueError) as error:
        raise argparse.ArgumentTypeError(f"{text[:60]!r} is no JSON ({error})") from error


def record_files(places: list[Path]) -> list[Path]:
    """Records as they are named, and all below folders, but for those of jobs under way."""
    below = [path for place in places if place.is_dir() for path in place.rglob("record.json")]
    return [place for place in places if not place.is_dir()] + [p for p in below if p.parent.name != "partial"]


def record(arguments: argparse.Namespace, progress) -> None:
    from hessketch.records import write_record
    from hessketch.studies.recording import record_study

    if arguments.output.resolve() == arguments.tables.resolve():
        raise InputError(f"{arguments.output}: holds the tables themselves; give another folder as --output")
    records = record_files(arguments.records)
    sizes = record_study(arguments.tables, arguments.output, arguments.figures, arguments.config, records)
    for name, size in sizes.items():
        large = f", more than {arguments.limit_kb} kB" if size > arguments.limit_kb * 1000 else ""
        progress.say(f"{name}: {size / 1000:.0f} kB{large}")
    progress.say(f"{arguments.output}: {sum(sizes.values()) / 1000:.0f} kB")
    if arguments.note:
        write_record({"recorded": str(arguments.output), "bytes": sizes}, arguments.note)


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--tables", type=Path, required=True, help="folder of the study's tables")
parser.add_argument("--config", type=Path, required=True, help="the profile's full config (JSON)")
parser.add_argument("--records", type=Path, nargs="+", required=True, help="run records, or folders with them")
parser.add_argument(
    "--figures", type=figures_of, required=True, help='{"folder/figure": "arguments of plot_STUDY.py"} or @FILE with it'
)
parser.add_argument("--output", type=Path, required=True, help="folder to write into: results/reference/PROFILE/STUDY")
parser.add_argument("--limit-kb", type=whole_number(1), default=300, help="larger files are named (default: 300)")
parser.add_argument("--note", type=Path, help="JSON file that says what was recorded")
parser.add_argument("--log", help="log file")

if __name__ == "__main__":
    arguments = parser.parse_args()
    run_job(lambda progress: record(arguments, progress), "record", arguments.log)
