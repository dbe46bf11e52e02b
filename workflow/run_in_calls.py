"""Runs a profile in calls of a few minutes, each going on where the last stopped.

A call works piece by piece, a network with its trainings and spectra or a federated trainer with its rates and seeds,
to leave whole pieces; then come the targets. When its time is up it kills what runs (jobs save their state every few
seconds, and every file appears whole or not at all), packs what is small and says what remains. The same call again
goes on. Results stay where they are. On a machine that has lost them, --restore takes the pack of an earlier call: what
was finished is not made again, though its weights are gone, and trainings in their midst begin anew.

examples:
  python workflow/run_in_calls.py --minutes 9 --configfile config/fashion_mnist_reference.yaml --export packed
  python workflow/run_in_calls.py --minutes 9 --configfile config/fashion_mnist_reference.yaml --export packed \\
      --restore packed/fashion_mnist_reference.tar.gz

Exit status: 0 all is done, 75 there is more to do, 1 something failed.
"""

import argparse
import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

import yaml

from hessketch.config import fill_defaults, runs_of
from hessketch.errors import InputError
from hessketch.federation_config import federated_runs_of, group_of
from hessketch.records import write_atomically

MORE = 75
RESERVE = 0.1  # of the time, but at most 30 seconds: for packing and for saying what remains
SAVE_EVERY = "15"  # seconds between the saved states of a job: what a call may lose
METADATA = Path(".snakemake/metadata")  # digests of what each result was made from: a copied tree is no change
LOCKS = Path(".snakemake/locks")
UNDER_WAY = Path(".snakemake/run_in_calls")  # holds the process group of the present call's Snakemake
_DYING = 10  # seconds in which what was killed ends


def pieces_of(config: Mapping[str, Any]) -> list[list[str]]:
    """Files to ask for, a piece after another: all spectra of a network, all records of a federated trainer."""
    results = f"results/{config['profile']}"
    cells = dict.fromkeys(run.cell.path for run in runs_of(config))
    splits = config["spectrum"]["splits"]
    pieces = [[f"{results}/spectra/{cell}/{split}/record.json" for split in splits] for cell in cells]
    groups: dict[str, list[str]] = {}
    for run in federated_runs_of(config):
        groups.setdefault(group_of(run), []).append(f"{results}/runs/{run.path}/record.json")
    return pieces + list(groups.values())


class Calls:
    """Snakemake on one config file, until a deadline."""

    def __init__(self, configfile: str, cores: str, deadline: float):
        self.options = ["--configfile", configfile, "--cores", cores]
        self.deadline = deadline
        source = str(Path("src").resolve())
        given = os.environ.get("PYTHONPATH")
        paths = {"PYTHONPATH": os.pathsep.join([source, *([given] if given else [])])}
        self.environment = {"HESSKETCH_SAVE_EVERY": SAVE_EVERY, **os.environ, **paths}

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "snakemake", *words, *self.options]

    def run(self, *words: str) -> int:
        """Exit status of Snakemake; MORE when its time was up, and nothing of it runs any more."""
        left = self.deadline - time.monotonic()
        if left <= 0:
            return MORE
        process = subprocess.Popen(self.command(*words), env=self.environment, start_new_session=True)
        UNDER_WAY.parent.mkdir(exist_ok=True)
        UNDER_WAY.write_text(str(process.pid))
        try:
            status = process.wait(timeout=left)
        except subprocess.TimeoutExpired:
            print("\nTime is up: stopping what runs.", flush=True)
            return MORE
        finally:
            # Also when this call is interrupted. The next one undoes the lock, since UNDER_WAY stays too.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        UNDER_WAY.unlink()
        return status

    def planned(self, targets: list[str]) -> tuple[dict[str, int], str]:
        """Jobs that remain, by rule, and the dry run's text. Raises InputError with its end where that fails."""
        words = [*targets, "-n", "--quiet", "host"]
        done = subprocess.run(self.command(*words), env=self.environment, capture_output=True, text=True)
        text = done.stdout + done.stderr
        if done.returncode:
            raise InputError("\n".join(["snakemake -n failed:", *text.splitlines()[-20:]]))
        table = text.partition("Job stats:")[2].partition("\n\n")[0]
        return {rule: int(count) for rule, count in re.findall(r"^(\S+) +(\d+)$", table, re.M)}, text


def unlock() -> None:
    """Undoes the lock of an earlier call that was stopped, and no other's. Raises InputError while its jobs run."""
    if not UNDER_WAY.exists():
        return
    group = int(UNDER_WAY.read_text() or 0)
    deadline = time.monotonic() + _DYING
    while group and _runs(group):
        if time.monotonic() > deadline:
            raise InputError(
                f"jobs of an earlier call run yet, process group {group}: wait, or say kill -9 -- -{group}"
            )
        time.sleep(0.1)
    shutil.rmtree(LOCKS, ignore_errors=True)  # as snakemake --unlock does, without its seconds
    UNDER_WAY.unlink()


def _runs(group: int) -> bool:
    """Whether a process group has processes; one of another user has the number since the machine was restarted."""
    try:
        os.killpg(group, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def pack(profile: str, folder: Path) -> Path:
    """Packs a profile's results without weights and unfinished work, its logs, and what of it is recorded."""
    archive = folder / f"{profile}.tar.gz"
    places = [f"results/{profile}", f"logs/{profile}", f"results/reference/{profile}", METADATA]
    files = [path for place in places for path in sorted(Path(place).rglob("*")) if path.is_file() and _is_small(path)]

    def write(path: Path) -> None:
        with tarfile.open(path, "w:gz") as tar:
            for file in files:
                tar.add(file)

    write_atomically(archive, write)
    return archive


def _is_small(path: Path) -> bool:
    large = path.suffix in (".safetensors", ".partial") or path.name in ("notebook.html", "report.html")
    return not large and "partial" not in path.parts


def restore(archive: Path, calls: Calls) -> None:
    """Unpacks what is not there of an earlier call's pack; prepared data are then older than what was made of them."""
    with tarfile.open(archive) as tar:
        members = [member for member in tar.getmembers() if not Path(member.name).exists()]
        tar.extractall(members=members, filter="data")
    print(f"{archive}: {len(members)} files restored", flush=True)
    if not members or calls.run("data") != 0:
        return
    oldest = min(member.mtime for member in members)
    for data in Path("resources").glob("*.safetensors"):
        os.utime(data, (oldest - 1, oldest - 1))


def work(calls: Calls, targets: list[str], pieces: list[list[str]]) -> int:
    """Runs the pieces and, where none failed, the targets; 0, 1 for a failure, MORE when time is up."""
    failed = False
    for piece in pieces:
        print(f"\n== {os.path.dirname(piece[0])}", flush=True)
        status = calls.run(*piece)
        if status == MORE:
            return MORE
        failed |= status != 0
    status = 1 if failed else calls.run(*targets)
    return status if status in (0, MORE) else 1


def told(before: Mapping[str, int], after: Mapping[str, int]) -> str:
    """What a call did and what remains, by rule."""
    lines = [f"{'':40}{'done':>8}{'remain':>8}"]
    lines += [f"{rule:40}{count - after.get(rule, 0):8}{after.get(rule, 0):8}" for rule, count in before.items()]
    return "\n".join(lines)


def call(arguments: argparse.Namespace) -> int:
    """One call; its exit status."""
    seconds = 60 * arguments.minutes
    deadline = time.monotonic() + seconds - min(30.0, RESERVE * seconds)
    if not Path("Snakefile").is_file():
        raise InputError(f"{Path.cwd()} holds no Snakefile; run this in the project's own folder")
    calls = Calls(arguments.configfile, arguments.cores, deadline)
    unlock()
    if arguments.restore:
        restore(arguments.restore, calls)
    before, text = calls.planned(arguments.targets)
    schema = yaml.safe_load(Path("config/schema.yaml").read_text())
    config = fill_defaults(yaml.safe_load(Path(arguments.configfile).read_text()), schema)
    # What the targets do not ask for, or is done, is not in the plan.
    pieces = [piece for piece in pieces_of(config) if any(file in text for file in piece)]
    try:
        status = work(calls, arguments.targets, pieces)
    finally:
        if arguments.export:
            archive = pack(config["profile"], arguments.export)
            print(f"{archive}: {archive.stat().st_size / 2**20:.1f} MiB", flush=True)
    after = calls.planned(arguments.targets)[0] if status else {}
    print(told(before, after), flush=True)
    return 0 if status == MORE and not after else status


def minutes(text: str) -> float:
    """An argparse type: a positive number."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} given; allowed: a number above 0")
    return value


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("targets", nargs="*", default=["all"], help="what to make in the end (default: all)")
parser.add_argument("--minutes", type=minutes, required=True, help="wall time of this call")
parser.add_argument("--configfile", required=True, help="the profile")
parser.add_argument("--cores", default="all", help="of Snakemake (default: all)")
parser.add_argument("--export", type=Path, help="folder to pack results without weights into")
parser.add_argument("--restore", type=Path, help="pack of an earlier call; what is there is left as it is")

if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        sys.exit(call(parser.parse_args()))
    except InputError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
