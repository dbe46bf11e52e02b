"""Faults in the midst of a job: at one of its writes it kills itself, or waits to be killed.

A plan is a folder with `plan.json`: for each job a list, for each attempt at it what befalls it: [what, at which
write]. `what` is kill or wait; the write a number from 1, or "publish" for the first that puts a file of the job in its
place. What happened is noted there: how often each job was attempted, and its writes.
"""

import hashlib
import json
import os
import signal
import time
from pathlib import Path


def inject(folder: str, arguments: list[str]) -> None:
    """Counts the writes of this job (files that take their place) and lets the planned fault befall it."""
    job = "-".join([Path(arguments[0]).stem, hashlib.sha256(" ".join(arguments).encode()).hexdigest()[:8]])
    attempts = Path(folder) / "attempts" / job
    attempts.parent.mkdir(parents=True, exist_ok=True)
    with open(attempts, "a") as file:
        file.write("x")
    plan = json.loads((Path(folder) / "plan.json").read_text()).get(job, [])
    number = attempts.stat().st_size - 1
    what, when = plan[number] if number < len(plan) else (None, None)
    writes = 0

    def before(target) -> None:
        nonlocal writes
        writes += 1
        place = Path(os.fspath(target))
        unfinished = "partial" in place.parts or place.name == "resume.safetensors"
        with open(Path(folder) / "writes.txt", "a") as file:
            file.write(f"{job} {number + 1} {writes} {place}\n")
        if when == writes or (when == "publish" and not unfinished):
            befall(what, Path(folder) / "waiting" / job)

    replace, link = os.replace, os.link

    def replacing(source, target, **options):
        before(target)
        replace(source, target, **options)

    def linking(source, target, **options):
        before(target)
        link(source, target, **options)

    os.replace, os.link = replacing, linking


def befall(what: str, mark: Path) -> None:
    """What the plan says."""
    if what == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "wait":
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch()
        time.sleep(600)
