"""Kills, full disks and damage at every stage: nothing half-written stands as whole, and the tables are the same.

One tiny profile has every section. Its jobs are handed to a process that has their imports (`warm/server.py`), which
also injects the faults (`warm/faults.py`).
"""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas
import pytest
import torch
from conftest import WARM, Project
from every_stage import DATA, FIGURE, PROFILE, STUDIES

from hessketch.damage import structural_damage
from hessketch.job_locks import commands_to_end
from hessketch.records import read_record, read_table, read_tensors
from hessketch.verification import verify

COSTS = {"seconds", "wall_seconds", "peak_memory_mib", "times_faster"}
TARGETS = [*(f"{study}_tables" for study in STUDIES), "claims_tables", f"{FIGURE}/training.png"]
COMMAND = f"snakemake {' '.join(TARGETS)} --configfile config/tiny.yaml"
ITSELF = COMMAND.replace("snakemake", "python -c 'from snakemake.cli import main; main()'", 1)
CELL = f"{DATA}/noise0/n3/mlp-none-w0.02/cross_entropy/sgd"
FOUR = f"{DATA}/noise0/n4/mlp-none-w0.02/cross_entropy"
FEDERATED = f"{FOUR}/count_sketch-x2.5"

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="forks jobs of a process with torch")


class FaultyProject(Project):
    """The tiny profile with every section; faults befall its jobs by a plan, a list of faults for each job."""

    def __init__(self, folder: Path, server: Path):
        super().__init__(folder)
        self.configure(**PROFILE)
        self.faults, self.said = folder / "faults", folder / "said.txt"
        self.faults.mkdir()
        self.plan({})
        path = os.pathsep.join([str(WARM), str(folder / "src"), *filter(None, [os.environ.get("PYTHONPATH")])])
        own = {"PYTHONPATH": path, "WARM_PYTHON": str(server), "HESSKETCH_FAULTS": str(self.faults)}
        bin = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self.environment = {**os.environ, **own, "HESSKETCH_SAVE_EVERY": "0", "PATH": bin}

    def plan(self, faults: dict[str, list]) -> None:
        (self.faults / "plan.json").write_text(json.dumps(faults))

    def begin(self, command: str) -> subprocess.Popen:
        """A shell command in a process group of its own; what it says is in `said`."""
        with open(self.said, "w") as said:
            return subprocess.Popen(
                ["bash", "-c", f"exec {command}" if command.startswith(("snakemake", "python")) else command],
                cwd=self.folder, env=self.environment, stdout=said, stderr=said, start_new_session=True,
            )  # fmt: skip

    def run(self, command: str) -> tuple[int, str]:
        """Exit status and what was said."""
        status = self.begin(command).wait(timeout=400)
        return status, self.said.read_text()

    def writes(self) -> dict[str, int]:
        """How many files each job has put in their places."""
        lines = [line.split(" ", 3) for line in (self.faults / "writes.txt").read_text().splitlines()]
        return {job: int(number) for job, _, number, _ in lines}

    def waiting(self) -> set[str]:
        """Jobs that have come to wait for their kill."""
        folder = self.faults / "waiting"
        return set(os.listdir(folder)) if folder.is_dir() else set()

    def attempts(self) -> dict[str, int]:
        """How often each job was begun."""
        folder = self.faults / "attempts"
        return {path.name: path.stat().st_size for path in folder.iterdir()} if folder.is_dir() else {}

    def under_way(self) -> list[str]:
        """Commands that end jobs which still run."""
        return commands_to_end(str(path).removesuffix(".lock") for path in (self.folder / "logs").rglob("*.lock"))

    def leftovers(self) -> list[Path]:
        """What only unfinished work may leave, and files that are not whole."""
        made = [self.folder / path for path in self.made()]
        unfinished = (".partial", ".lock", "resume.safetensors")
        return [p for p in made if p.name.endswith(unfinished) or "partial" in p.parts or structural_damage(p)]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, server) -> FaultyProject:
    """All tables and a figure, made in one go."""
    project = FaultyProject(tmp_path_factory.mktemp("undisturbed"), server)
    status, said = project.run(COMMAND)
    assert status == 0, said[-6000:]
    assert project.leftovers() == []
    return project


def require_equal(one: Path, two: Path) -> None:
    """The same files; the same tables but for what they cost, and the same tensors bit for bit."""
    names, others = (sorted(p.relative_to(folder) for p in folder.rglob("*") if p.is_file()) for folder in (one, two))
    assert names == others and names
    for name in names:
        if name.suffix == ".parquet":
            tables = [read_table(folder / name) for folder in (one, two)]
            tables = [table.drop(columns=COSTS & set(table)) for table in tables]
            pandas.testing.assert_frame_equal(*tables, check_exact=True, obj=str(name))
        if name.suffix == ".safetensors":
            (first, facts), (second, known) = (read_tensors(folder / name) for folder in (one, two))
            assert first.keys() == second.keys() and facts == known, name
            assert all(torch.equal(first[key], second[key]) for key in first), name


def wait_for(condition, what: str) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain: {what}"
        time.sleep(0.05)


def until_all_wait(project: FaultyProject, planned: set[str]) -> subprocess.Popen | None:
    """Starts Snakemake; its process once those of the planned jobs that it can start wait, None when it is through.

    The first is no fork of the server: who kills that kills a process beside Snakemake, which takes its jobs with it.
    """
    before = project.waiting()
    process = project.begin(f"{COMMAND if before else ITSELF} --retries 1 --cores 16")
    seen, since = project.attempts(), time.monotonic()
    while process.poll() is None:
        time.sleep(0.05)
        if project.attempts() != seen:
            seen, since = project.attempts(), time.monotonic()
        begun_once = {job for job in planned if seen.get(job) == 1}
        if before < project.waiting() >= begun_once and time.monotonic() - since > 2:
            return process
    assert process.returncode == 0, project.said.read_text()[-6000:]
    return None


def kill_snakemake_alone(project: FaultyProject, process: subprocess.Popen) -> None:
    """Its jobs go on; each call then says which command mends what is in the way."""
    process.kill()
    process.wait()
    status, said = project.run(COMMAND)
    assert status != 0 and "It can be removed with the --unlock argument" in said
    assert project.run("snakemake --unlock --configfile config/tiny.yaml")[0] == 0
    status, said = project.run(COMMAND)
    told = re.search(
        r"\d jobs of a Snakemake that was killed still at work; to end: (kill .*); then run the same", said
    )
    assert status != 0 and told, said
    assert project.run(told[1])[0] == 0
    with contextlib.suppress(ProcessLookupError):  # the config is written in no time, without a lock: here it waits
        os.killpg(process.pid, signal.SIGKILL)
    wait_for(lambda: not project.under_way(), "for the end of the jobs")


def kill_all(project: FaultyProject, process: subprocess.Popen) -> None:
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    wait_for(lambda: not project.under_way(), "for the end of the jobs")
    shutil.rmtree(project.folder / ".snakemake/locks")  # as --unlock does, two seconds sooner


def test_killed_with_snakemake_and_alone_at_every_stage_the_results_are_the_same(undisturbed, server, tmp_path):
    """Each job is killed with Snakemake amid its writes, and then alone when it has begun to publish."""
    project = FaultyProject(tmp_path, server)
    writes = undisturbed.writes()
    assert len(writes) == int(re.findall(r"of (\d+) steps \(100%\)", undisturbed.said.read_text())[-1])  # every job
    tables = {path.stem for path in (project.folder / "workflow/scripts").glob("tabulate_*.py")}
    assert tables <= {job.rpartition("-")[0] for job in writes}  # of every study, and the claims
    plan = {job: [["wait", max(1, count // 2)], ["kill", "publish"]] for job, count in writes.items()}
    second = sorted(job for job in plan if job.startswith("prepare_data"))[1]
    plan[second] = plan[second][1:]  # data are prepared one after the other: to wait for both takes another start
    project.plan(plan)
    kills = 0
    while process := until_all_wait(project, plan.keys() - {second}):
        kills += 1
        (kill_all if kills > 1 else kill_snakemake_alone)(project, process)
    assert kills >= 5 and project.waiting() == writes.keys() - {second}
    assert all(count > len(plan[job]) for job, count in project.attempts().items())
    assert project.leftovers() == []
    for folder in ("results", "resources"):
        require_equal(project.folder / folder, undisturbed.folder / folder)
    assert not verify([project.folder / "results/tiny"]).problems
    runs = project.folder / "results/tiny/runs"
    assert read_record(runs / f"{CELL}/lr0.05/seed0/record.json")["resumed_from_epoch"] > 0
    assert read_record(runs / f"{FEDERATED}/lr0.03/seed0/record.json")["resumed_from_round"] > 0


FULL = {
    "a training": (f"results/tiny/basins/runs/{FOUR}/sgd-full/lr0.1/seed0", "record.json"),
    "a spectrum": (f"results/tiny/checkpoint_spectra/{FEDERATED}/seed0", "curvature.parquet"),
    "a table": ("results/tiny/full_spectrum", "runs.parquet"),
    "a figure": (FIGURE, "training.png"),
}


@pytest.fixture
def small_disks(undisturbed):
    """A disk of two pages in the place of each folder of FULL; a function that makes them larger."""
    folders = [undisturbed.folder / folder for folder, _ in FULL.values()]
    mounted = []

    def mount(options: str, folder: Path) -> None:
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"a small disk cannot be mounted here: {done.stderr.strip()}")

    try:
        for folder in folders:
            mount("size=8k", folder)
            mounted.append(folder)
            (folder / "mounted").touch()  # Snakemake removes folders that a failed job leaves empty
        yield lambda: [mount("remount,size=4m", folder) for folder in folders]
    finally:
        for folder in mounted:
            subprocess.run(["umount", folder], check=True)


def flip(path: Path) -> None:
    """One bit in the last tensor or page: the structure stays whole."""
    content = bytearray(path.read_bytes())
    content[-3 if path.suffix == ".safetensors" else len(content) // 2] ^= 1
    path.write_bytes(content)


def test_a_full_disk_and_flipped_bits_are_named_and_the_same_command_resumes(undisturbed, tmp_path, request):
    shutil.copytree(undisturbed.folder / "results/tiny", tmp_path / "before")
    make_room = request.getfixturevalue("small_disks")
    study = undisturbed.folder / "results/tiny/sgd_dynamics"
    trajectory = next((study / "runs").rglob("trajectory.safetensors"))
    flip(trajectory)
    (measured,) = (study / "measured").rglob("bounds.parquet")
    measured.unlink()
    targets = [*(f"{folder}/{file}" for folder, file in FULL.values()), measured.relative_to(undisturbed.folder)]
    command = f"snakemake {' '.join(map(str, targets))} --configfile config/tiny.yaml"
    status, said = undisturbed.run(command)
    assert status != 0
    told = re.findall(r"error: (\S+): cannot be written, the disk is full; make room on the disk of \S+ and run", said)
    for folder, file in FULL.values():
        assert any(name.startswith(folder) for name in told), (folder, said)
        assert not (undisturbed.folder / folder / file).exists()
    assert not list(undisturbed.folder.rglob("*.partial"))
    (remedy,) = set(
        re.findall(r"its content is not what was written\); delete it \((rm \S+trajectory.safetensors)\)", said)
    )

    make_room()
    status, said = undisturbed.run(f"{remedy} && {command}")
    assert status == 0, said[-5000:]
    for folder, _ in FULL.values():
        (undisturbed.folder / folder / "mounted").unlink()
        if not folder.startswith("figures"):
            require_equal(undisturbed.folder / folder, tmp_path / "before" / Path(folder).relative_to("results/tiny"))
    require_equal(study, tmp_path / "before/sgd_dynamics")
    assert undisturbed.leftovers() == []


def test_cut_off_results_are_named_at_the_start_with_the_command_that_makes_them_anew(undisturbed, tmp_path):
    results = undisturbed.folder / "results/tiny"
    shutil.copytree(results, tmp_path / "before")
    (record,) = (results / "basins/measured").rglob("record.json")
    (table,) = (results / "spectra").rglob("density.parquet")
    run = results / f"runs/{CELL}/lr0.05/seed0"
    cut = [record, table, *(run / name for name in ("model.safetensors", "epoch1.safetensors", "history.parquet"))]
    for path in cut:
        path.write_bytes(path.read_bytes()[:-20])
    status, said = undisturbed.run(COMMAND)
    assert status != 0 and "Training" not in said
    for path in cut:
        assert f"{path.relative_to(undisturbed.folder)}: cannot be read, it is damaged or cut short" in said
    command = re.search("to make anew what is damaged: (.*)", said)[1]
    status, said = undisturbed.run(command)
    assert status == 0, said[-5000:]
    require_equal(results, tmp_path / "before")
