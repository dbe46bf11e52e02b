"""What jobs took, by Snakemake's benchmark files, beside what a plan says of the same jobs."""

import csv
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hessketch.errors import InputError
from hessketch.planning.costs import of_stages, seconds_of
from hessketch.planning.jobs import Job
from hessketch.planning.throughput import Throughput


@dataclass(frozen=True)
class Compared:
    """The measured jobs of one stage."""

    stage: str
    jobs: int  # that were measured
    planned: float  # seconds of these
    measured: float
    planned_memory: float  # bytes of the largest of these
    measured_memory: float

    @property
    def ratio(self) -> float:
        return self.planned / self.measured if self.measured else math.nan


@dataclass(frozen=True)
class Benchmark:
    """One job's benchmark file; `seconds` are of CPU time."""

    seconds: float
    memory: float  # bytes
    wall: float  # seconds from its start to its end


def read_benchmark(path: Path) -> Benchmark | None:
    """CPU seconds and memory of a job; None where Snakemake could not look at it.

    Snakemake samples CPU time, of longer jobs every half minute: after the last sample a job is taken to be as busy as
    its mean load says. Raises InputError for a file that is none of Snakemake's.
    """
    try:
        row = list(csv.DictReader(path.read_text().splitlines(), delimiter="\t"))[-1]
        if "NA" in (row["cpu_time"], row["mean_load"], row["max_rss"]):
            return None
        loaded = float(row["s"]) * float(row["mean_load"]) / 100
        return Benchmark(max(float(row["cpu_time"]), loaded), float(row["max_rss"]) * 2**20, float(row["s"]))
    except (KeyError, IndexError, ValueError, OSError) as error:
        raise InputError(f"{path} is no benchmark file of Snakemake ({error!r})") from None


def compared(jobs: Iterable[Job], device: Throughput, folder: Path) -> list[Compared]:
    """Each stage with jobs that `folder` has benchmark files of, then all; the files are named as the jobs are.

    Raises InputError where there are none.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder; give that of the benchmark files, logs/PROFILE/benchmarks")
    stages = []
    pairs_of_all: list[tuple[Job, Benchmark]] = []
    for stage, own in of_stages(jobs).items():
        files = {job: folder / f"{job.name}.tsv" for job in own}
        pairs = [(job, found) for job, path in files.items() if path.is_file() and (found := read_benchmark(path))]
        if pairs:
            stages.append(_compared(stage, pairs, device))
            pairs_of_all += pairs
    if not stages:
        raise InputError(f"{folder} has no benchmark files of this profile's jobs; give logs/PROFILE/benchmarks")
    return [*stages, _compared("all", pairs_of_all, device)]


def _compared(stage: str, pairs: Sequence[tuple[Job, Benchmark]], device: Throughput) -> Compared:
    return Compared(
        stage,
        len(pairs),
        sum(seconds_of(job, device) for job, _ in pairs),
        sum(found.seconds for _, found in pairs),
        max(device.idle + job.work.memory for job, _ in pairs),
        max(found.memory for _, found in pairs),
    )
