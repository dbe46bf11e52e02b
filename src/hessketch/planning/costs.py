"""What the jobs of a profile cost on a device: by stage, in all, and when everything is twice as large."""

import heapq
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from hessketch.config import datasets_of
from hessketch.errors import InputError
from hessketch.planning.jobs import Job, Plan, names
from hessketch.planning.sizes import Scale
from hessketch.planning.spectra import checkpoint_jobs, hierarchy_jobs, predictor_jobs, spectrum_jobs
from hessketch.planning.stages import DRAWN, STAGES, by_stage, stage_of
from hessketch.planning.studies import basin_jobs, dynamics_jobs, eigenspace_jobs, exact_jobs
from hessketch.planning.throughput import Throughput
from hessketch.planning.trainings import federate_jobs, train_jobs, trajectory_jobs

_LISTS = (
    train_jobs, federate_jobs, spectrum_jobs, checkpoint_jobs, trajectory_jobs, predictor_jobs, dynamics_jobs,
    eigenspace_jobs, exact_jobs, basin_jobs, hierarchy_jobs,
)  # fmt: skip


def computing_jobs(plan: Plan) -> list[Job]:
    """Every job that prepares or computes, from the functions that the rules list their runs by."""
    data = [Job("prepare_data", f"resources/{name}", start="table") for name in datasets_of(plan.config)]
    first = names(data)
    jobs = [job for listed in _LISTS for job in listed(plan)]
    # Which data a job reads is left out: all are prepared in seconds.
    return data + [job if job.after else Job(job.rule, job.name, job.work, first, job.start) for job in jobs]


def drawing_jobs(rules: Counter[str], before: Sequence[Job]) -> list[Job]:
    """What is drawn (DRAWN), of which Snakemake says how many there are; each after all that it may show."""
    jobs: list[Job] = []
    for stage, start in DRAWN.items():
        after = names(before) if start == "table" else tuple(job.name for job in jobs if job.start == "table")
        for rule, count in rules.items():
            if stage_of(rule) == stage:
                jobs += [Job(rule, f"{rule}/{number}", after=after, start=start) for number in range(count)]
    return jobs


@dataclass(frozen=True)
class StageCost:
    """One stage, or all."""

    stage: str
    jobs: int
    steps: float  # of SGD
    products: float  # of an operator with a vector
    gradients: float  # of single examples
    operations: float  # floating-point
    memory: float  # bytes of the largest job
    seconds: float  # of all jobs, one after the other
    longest: float  # seconds of the longest job
    with_examples: float = 1.0  # seconds over these when every number of examples is doubled
    with_width: float = 1.0  # and when every hidden layer is


def seconds_of(job: Job, device: Throughput) -> float:
    """Seconds of a job with its start."""
    return device.starts[job.start] + device.seconds(job.work)


def cost(stage: str, jobs: Sequence[Job], device: Throughput) -> StageCost:
    """Sums over jobs."""
    seconds, works = [seconds_of(job, device) for job in jobs], [job.work for job in jobs]
    return StageCost(
        stage,
        len(jobs),
        steps=sum(work.steps for work in works),
        products=sum(work.products for work in works),
        gradients=sum(work.gradients for work in works),
        operations=sum(work.operations for work in works),
        memory=max((device.idle + work.memory for work in works), default=0.0),
        seconds=sum(seconds),
        longest=max(seconds, default=0.0),
    )


def _stage(job: Job) -> str:
    stage = stage_of(job.rule)
    if stage is None:
        raise InputError(f"the plan lists a job of the rule {job.rule}, which has no stage; mend hessketch.planning")
    return stage


def of_stages(jobs: Iterable[Job]) -> dict[str, list[Job]]:
    """Jobs by their stage, in the order of the pipeline."""
    found: dict[str, list[Job]] = {stage: [] for stage in STAGES.values()}
    for job in jobs:
        found[_stage(job)].append(job)
    return {stage: own for stage, own in found.items() if own}


@dataclass(frozen=True)
class Costs:
    """Everything that a plan says."""

    profile: str
    device: str
    said: str  # where the device's numbers are from
    cores: int
    stages: list[StageCost]
    total: StageCost
    wall: float  # seconds on so many cores or devices, each with one job at a time

    def record(self) -> dict[str, Any]:
        """All of it, for JSON."""
        return asdict(self)


def costs_of(config: Mapping[str, Any], rules: Counter[str], device: Throughput, cores: int) -> Costs:
    """The costs of a filled config whose workflow has these jobs (`counted_by_snakemake`)."""

    def listed(scale: Scale) -> list[Job]:
        jobs = computing_jobs(Plan(config, scale, device.memory))
        return jobs + drawing_jobs(rules, jobs)

    jobs = listed(Scale())
    require_same_jobs(jobs, rules)
    larger = {"with_examples": listed(Scale(examples=2)), "with_width": listed(Scale(width=2))}
    ratios: dict[str, dict[str, float]] = {}
    for name, others in larger.items():
        for stage, own in {**of_stages(others), "all": others}.items():
            ratios.setdefault(stage, {})[name] = cost(stage, own, device).seconds
    stages = []
    for stage, own in {**of_stages(jobs), "all": jobs}.items():
        one = cost(stage, own, device)
        grown = {name: seconds / one.seconds for name, seconds in ratios[stage].items()}
        stages.append(StageCost(**{**asdict(one), **grown}))
    *of_pipeline, total = stages
    wall = wall_time(jobs, {job.name: seconds_of(job, device) for job in jobs}, cores)
    return Costs(config["profile"], device.name, device.said, cores, of_pipeline, total, wall)


def require_same_jobs(jobs: Iterable[Job], rules: Counter[str]) -> None:
    """Raises InputError where a stage has other jobs than Snakemake counts: this module does not know a rule then."""
    planned, there = Counter(map(_stage, jobs)), by_stage(rules)
    apart = [
        f"{stage}: {planned[stage]}, Snakemake {there[stage]}"
        for stage in planned | there
        if planned[stage] != there[stage]
    ]
    if apart:
        raise InputError(
            f"the plan lists other jobs than the workflow has ({'; '.join(apart)}); mend hessketch.planning"
        )


def wall_time(jobs: Sequence[Job], seconds: Mapping[str, float], cores: int) -> float:
    """Seconds until all jobs are done, so many at a time: each as soon as what it reads is there, longest first."""
    waiting = {job.name: len(job.after) for job in jobs}
    readers: dict[str, list[str]] = {}
    for job in jobs:
        for name in job.after:
            readers.setdefault(name, []).append(job.name)
    ready = [(-seconds[name], name) for name, count in waiting.items() if not count]
    heapq.heapify(ready)
    running: list[tuple[float, str]] = []
    now = 0.0
    while ready or running:
        while ready and len(running) < cores:
            _, name = heapq.heappop(ready)
            heapq.heappush(running, (now + seconds[name], name))
        now, done = heapq.heappop(running)
        for name in readers.get(done, ()):
            waiting[name] -= 1
            if not waiting[name]:
                heapq.heappush(ready, (-seconds[name], name))
    return now
