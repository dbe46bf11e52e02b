"""The pipeline on a real SLURM of one node: the same tables as here, jobs that outrun their time, jobs that fail."""

import os
import re
import signal
import subprocess
import time

import psutil
import pytest
from cluster_project import ClusterProject
from pandas.testing import assert_frame_equal
from slurm import cluster, why_not

from hessketch.records import read_record, read_table, read_tensors

pytestmark = pytest.mark.slow

RATE = 0.05
PROFILE = {
    "datasets": {
        "digits": {"examples_per_class": [3], "test_examples_per_class": 2, "learning_rates": [RATE], "epochs": 60}
    },
    "networks": [{"name": "vgg11", "norm": "batch", "width": 0.015625}],
    "spectrum": {"lanczos_steps": 12, "grid_points": 64, "deflation_rank": 2, "kpm_moments": 8, "splits": ["train"]},
}
RUNS = "results/tiny/runs/digits/noise0/n3/vgg11-batch-w0.015625/cross_entropy/sgd"
TARGET = "results/tiny/full_spectrum/outliers.parquet"
FAILING = "results/tiny/spectra/digits/noise0/n3/vgg11-batch-w0.015625/cross_entropy/sgd/seed0/test/record.json"
# How the tables of two runs may differ: in what a run costs.
MEASURED = ["seconds", "wall_seconds", "peak_memory_mib"]


def wait_for(condition, process, seconds=150):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert process.poll() is None, process.stdout.read()[-5000:]
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)
    return found


def end(process):
    """Ends Snakemake, where it still runs, with its local jobs; the cluster ends those that it has."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def stopped_training(project, rate):
    """A training of this project, stopped as if it hung, once it has saved an epoch: its SLURM job's id, or None."""
    if not (project.folder / RUNS / f"lr{rate}/seed0/resume.safetensors").exists():
        return None
    for process in psutil.process_iter():
        try:
            words = process.cmdline()
            if (
                "workflow/scripts/train.py" in words
                and f"/lr{rate}/" in words[2]
                and process.cwd() == str(project.folder)
            ):
                process.suspend()
                return process.environ()["SLURM_JOB_ID"]
        except psutil.Error:
            continue
    return None


def asked_for(job, environment):
    """What SLURM knows of a job, by name."""
    said = subprocess.run(["scontrol", "show", "job", job], env=environment, capture_output=True, text=True, check=True)
    return dict(word.partition("=")[::2] for word in said.stdout.split())


@pytest.fixture(scope="module")
def slurm():
    """The environment in which snakemake finds a cluster."""
    if reason := why_not():
        pytest.skip(f"no SLURM: {reason}")
    try:
        starting = cluster(gpus=2)
        environment = starting.__enter__()
    except RuntimeError as error:
        pytest.skip(f"no SLURM: {error}")
    try:
        yield environment
    finally:
        starting.__exit__(None, None, None)


@pytest.fixture(scope="module")
def submitted(slurm, tmp_path_factory):
    """A project whose jobs SLURM has run, a training beyond its time and a spectrum that fails; what Snakemake said."""
    project = ClusterProject(tmp_path_factory.mktemp("submitted"))
    project.configure(**PROFILE)
    script = project.folder / "workflow/scripts/spectrum.py"
    fault = '    if arguments.split == "test":\n        raise ValueError("nothing to see on this node")\n'
    script.write_text(script.read_text().replace("    from hessketch.", fault + "    from hessketch.", 1))
    process = project.submit(slurm, TARGET, FAILING, "--retries", "1")
    try:
        job = wait_for(lambda: stopped_training(project, RATE), process)
        # SLURM's own limit, brought forward: no limit is shorter than a minute.
        subprocess.run(["scontrol", "update", f"jobid={job}", "EndTime=now+1"], env=slurm, check=True)
        output, _ = process.communicate(timeout=600)
    finally:
        end(process)
    assert (project.folder / TARGET).exists(), output[-6000:]
    assert process.returncode == 1
    return project, output


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    """The same project, run here."""
    project = ClusterProject(tmp_path_factory.mktemp("local"))
    project.configure(**PROFILE)
    done = project.snakemake(TARGET)
    assert done.returncode == 0, done.stdout[-6000:]
    return project


def test_jobs_that_slurm_runs_end_in_the_tables_of_a_run_without_it(submitted, local):
    project, said = submitted
    assert said.count("has been submitted with SLURM jobid") == 5  # each once, training and failing spectrum again
    tables = sorted((local.folder / "results/tiny/full_spectrum").glob("*.parquet"))
    assert len(tables) > 5
    for table in tables:
        here, there = read_table(table), read_table(project.folder / table.relative_to(local.folder))
        kept = [column for column in here.columns if column not in MEASURED]
        assert_frame_equal(here[kept], there[kept])


def test_a_job_that_outruns_its_time_limit_is_tried_again_and_resumes_to_the_same_weights(submitted, local):
    project, said = submitted
    assert "SLURM status is: 'TIMEOUT'" in said
    folder = f"{RUNS}/lr{RATE}/seed0"
    assert 0 < read_record(project.folder / folder / "record.json")["resumed_from_epoch"] < 60
    assert read_record(local.folder / folder / "record.json")["resumed_from_epoch"] == 0
    there, here = (read_tensors(made.folder / folder / "model.safetensors")[0] for made in (project, local))
    assert here and all((there[name] == here[name]).all() for name in here)


def test_a_job_that_is_tried_again_asks_for_twice_the_time_and_memory(submitted, slurm):
    _, said = submitted
    asked = [asked_for(job, slurm) for job in re.findall(r"SLURM jobid (\d+)", said)]
    first, second = (job for job in asked if job["Comment"].startswith("rule_train"))
    assert second["TimeLimit"] == "02:00:00" and first["MinMemoryNode"] == "8000M"
    assert second["MinMemoryNode"] == "16000M"


def test_the_log_of_a_job_that_fails_on_its_node_is_shown(submitted):
    _, said = submitted
    assert "SLURM status is: 'FAILED'" in said
    assert "ValueError: nothing to see on this node" in said
