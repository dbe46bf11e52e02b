"""Leases of GPUs, held by real processes: spread, shared, waited for, and free again however a process ends."""

import os
import subprocess
import sys

import pytest
import torch
from fake_gpus import Job, fake_gpus

from hessketch import gpu_leases
from hessketch.devices import prepare_device
from hessketch.errors import InputError


@pytest.fixture
def two(tmp_path):
    """The environment of a machine with two GPUs."""
    return fake_gpus(tmp_path, 2)


@pytest.fixture
def start():
    """Starts jobs, and ends those that are left."""
    jobs = []

    def started(*arguments, **options):
        jobs.append(Job(*arguments, **options))
        return jobs[-1]

    yield started
    for job in jobs:
        job.kill()


def test_jobs_spread_over_the_gpus_and_the_next_waits_saying_for_whom_until_one_is_killed(two, start):
    first, second = start(two), start(two)
    assert sorted(first.gpus() + second.gpus()) == ["GPU-0", "GPU-1"]
    third = start(two)
    said = third.line()
    assert said.startswith("waiting for a GPU: ")
    assert f"process {first.process.pid} (" in said and f"process {second.process.pid} (" in said
    fourth = start(two)
    assert fourth.line().startswith("waiting for a GPU behind another job; GPU 0 is held by process")
    left = {first: "GPU-0", second: "GPU-1"}
    second.kill()
    third_has, other = third.gpus(), first
    assert len(third_has) == 1
    other.kill()
    assert set(fourth.gpus() + third_has) == set(left.values())


def test_jobs_that_share_take_the_least_used_gpu_and_no_more_than_its_places(two, start):
    jobs = [start(two, places=2) for _ in range(4)]
    has = [job.gpus()[0] for job in jobs]
    assert sorted(has) == ["GPU-0", "GPU-0", "GPU-1", "GPU-1"]
    fifth = start(two, places=2)
    assert fifth.line().startswith("waiting for a GPU: GPU 0 is held by process")
    jobs[2].kill()
    assert fifth.gpus() == [has[2]]


def test_two_jobs_that_may_share_are_on_two_gpus(two, start):
    assert {start(two, places=4).gpus()[0] for _ in range(2)} == {"GPU-0", "GPU-1"}


def test_a_job_that_needs_a_whole_gpu_is_not_overtaken_by_those_that_share(tmp_path, start):
    one = fake_gpus(tmp_path, 1)
    sharing = [start(one, places=3) for _ in range(2)]
    for job in sharing:
        job.gpus()
    whole = start(one)
    assert "waiting" in whole.line()
    late = start(one, places=3)  # a place is free, but the GPU is claimed
    said = late.line()
    assert said.startswith("waiting for a GPU") and f"process {whole.process.pid} " in said
    for job in sharing:
        job.kill()
    assert whole.gpus() == ["GPU-0"]
    assert late.process.poll() is None
    whole.kill()
    assert late.gpus() == ["GPU-0"]


_BRIEF = """
import os, sys, time
from hessketch.gpu_leases import lease_gpus
lease_gpus(*map(int, sys.argv[2:]))
for sign in "+-":
    with open(sys.argv[1], "a") as file:
        file.writelines(f"{sign}{gpu}\\n" for gpu in os.environ["CUDA_VISIBLE_DEVICES"].split(","))
    time.sleep(0.05)
"""


def test_jobs_of_every_kind_all_get_their_turn_and_a_whole_gpu_is_never_shared(two, tmp_path):
    kinds = [(2, 1), (1, 1), (1, 2), (2, 1), (1, 2), (1, 1), (1, 2), (2, 1)]  # (GPUs, places)
    command = [sys.executable, "-c", _BRIEF]
    jobs = [
        subprocess.Popen([*command, str(tmp_path / f"{kind[1]}"), *map(str, kind)], env={**os.environ, **two})
        for kind in kinds
    ]
    assert [job.wait(timeout=60) for job in jobs] == [0] * len(kinds)
    held = set()
    lines = (tmp_path / "1").read_text().split()
    assert len(lines) == 2 * (2 + 1 + 2 + 1 + 2)
    for line in lines:
        assert (line[1:] in held) == (line[0] == "-"), "a GPU of one job alone"
        held ^= {line[1:]}


def test_what_a_scheduler_assigned_is_respected(two, start):
    assert start({**two, "CUDA_VISIBLE_DEVICES": "1"}).gpus() == ["GPU-1"]
    assert "waiting" in start({**two, "CUDA_VISIBLE_DEVICES": "GPU-1"}).line()


@pytest.fixture
def here(two, monkeypatch):
    """This process on that machine."""
    for name, value in two.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(gpu_leases.tempfile, "tempdir", two["TMPDIR"])
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    yield
    gpu_leases.release_gpus()


def test_a_second_call_has_the_lease_of_the_first_and_a_lease_can_be_given_back(here):
    first = gpu_leases.lease_gpus()
    assert gpu_leases.lease_gpus() == first and os.environ["CUDA_VISIBLE_DEVICES"] == "GPU-0"
    gpu_leases.release_gpus()
    assert "CUDA_VISIBLE_DEVICES" not in os.environ
    assert [gpu.uuid for gpu in gpu_leases.lease_gpus(2)] == ["GPU-0", "GPU-1"]


def test_more_gpus_than_there_are_are_refused(here):
    with pytest.raises(InputError, match="3 GPUs asked for, 2 are there"):
        gpu_leases.lease_gpus(3)


@pytest.mark.parametrize("name", ["SLURM_JOB_ID", "LOCAL_RANK"])
def test_no_lease_is_taken_where_slurm_or_a_launcher_has_given_the_gpus(here, monkeypatch, tmp_path, name):
    monkeypatch.setenv(name, "1")
    gpu_leases.lease_gpus(2)
    assert "CUDA_VISIBLE_DEVICES" not in os.environ and not list(tmp_path.glob("hessketch-gpus-*"))


def test_locks_in_a_folder_that_others_could_write_to_are_refused(here, tmp_path):
    folder = tmp_path / f"hessketch-gpus-{os.getuid()}"
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.raises(InputError, match="must be a folder that you alone can write to"):
        gpu_leases.lease_gpus()


@pytest.mark.skipif(torch.cuda.is_available(), reason="torch sees a GPU")
def test_a_job_whose_torch_sees_no_gpu_gives_its_lease_back_and_a_cpu_job_takes_none(here, caplog):
    assert prepare_device("auto").type == "cpu"
    assert "on GPU 0 (NVIDIA Test, GPU-0)" in caplog.text
    assert not gpu_leases._leased and "CUDA_VISIBLE_DEVICES" not in os.environ
    caplog.clear()
    prepare_device("cpu")
    assert not caplog.text


def test_leases_import_no_torch():
    check = "import sys, hessketch.gpu_leases, hessketch.processes; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check]).returncode == 0
