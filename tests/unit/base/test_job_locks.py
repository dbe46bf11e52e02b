"""One process at a job: another is refused with the command that ends the first; a kill leaves no lock."""

import os
import signal
import socket
import subprocess
import sys

import pytest

from hessketch.cli import run_job
from hessketch.errors import InputError
from hessketch.job_locks import alone_at, commands_to_end

AT_WORK = """
import sys, time
from hessketch.job_locks import alone_at
with alone_at(sys.argv[1]):
    print("at work", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def at_work(tmp_path):
    """A process at the job of a log, and the log."""
    log = tmp_path / "deep/job.log"
    process = subprocess.Popen([sys.executable, "-c", AT_WORK, log], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "at work\n"
    yield process, log
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_job_at_which_a_process_is_is_refused_with_the_command_that_ends_it(at_work):
    process, log = at_work
    assert commands_to_end([log, log.with_name("other.log")]) == [f"kill {process.pid}"]
    with (
        pytest.raises(InputError, match=f"another process is at this job; to end it: kill {process.pid}; then"),
        alone_at(log),
    ):
        raise AssertionError("not alone")
    with pytest.raises(SystemExit):
        run_job(lambda progress: pytest.fail("not alone"), "job", str(log))
    assert f"kill {process.pid}" in log.read_text()


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_process_leaves_no_lock(at_work, end):
    process, log = at_work
    os.kill(process.pid, end)
    process.wait()
    assert commands_to_end([log]) == []
    with alone_at(log):
        pass
    assert list(log.parent.iterdir()) == []


def test_a_process_of_another_machine_is_ended_there_or_by_its_scheduler(tmp_path, at_work, monkeypatch):
    process, log = at_work
    monkeypatch.setattr(socket, "gethostname", lambda: "elsewhere")
    ending = f"ssh {os.uname().nodename} kill {process.pid}"
    assert commands_to_end([log]) == [ending]
    lock = log.with_name("job.log.lock")
    lock.write_text(f"node7 {process.pid} 4711")
    assert commands_to_end([log]) == ["scancel 4711"]


def test_after_an_error_the_job_is_free_again(tmp_path):
    with pytest.raises(ValueError, match="wrong"), alone_at(tmp_path / "job.log"):
        raise ValueError("wrong")
    assert list(tmp_path.iterdir()) == []


def test_without_a_log_nothing_is_locked(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with alone_at(None), alone_at(None):
        assert list(tmp_path.iterdir()) == []
