"""What the profile took, by stage: from the benchmark files that Snakemake writes beside the logs of jobs."""

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from hessketch.planning.measured import Benchmark, read_benchmark
from hessketch.planning.stages import STAGES


@dataclass(frozen=True)
class Cost:
    """`seconds` are those that jobs took, side by side or not; `memory` in bytes, of the largest job."""

    stage: str
    jobs: int
    seconds: float
    cpu_seconds: float
    memory: float


def costs_of(folder: Path) -> list[Cost]:
    """Each stage in the pipeline's order, then all; empty without benchmark files."""
    found: dict[str, list[Benchmark]] = defaultdict(list)
    for path in sorted(folder.rglob("*.tsv")):
        if (benchmark := read_benchmark(path)) is not None:
            found[_stage(path.relative_to(folder).parts[0].removesuffix(".tsv"))].append(benchmark)
    if not found:
        return []
    order = list(dict.fromkeys(STAGES.values()))
    stages = sorted(found, key=lambda stage: (order.index(stage) if stage in order else len(order), stage))
    every = [benchmark for stage in stages for benchmark in found[stage]]
    return [*(_cost(stage, found[stage]) for stage in stages), _cost("all", every)]


def _stage(name: str) -> str:
    """Benchmark files lie in a folder named as their rule, or as its beginning."""
    return next((stage for rule, stage in STAGES.items() if rule.startswith(name)), name)


def _cost(stage: str, jobs: list[Benchmark]) -> Cost:
    cpu = sum(job.seconds for job in jobs)
    return Cost(stage, len(jobs), sum(job.wall for job in jobs), cpu, max(job.memory for job in jobs))
