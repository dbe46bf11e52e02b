"""Processes of one group end with the process that started them."""

import os
import signal
import subprocess
import sys
import time

import pytest

from hessketch.processes import spread_over_processes

_MEMBER = """
import sys, time
from hessketch.processes import _end_with_parent
_end_with_parent()
print("ready", flush=True)
time.sleep(60)
"""
_LAUNCHER = f"""
import subprocess, sys
member = subprocess.Popen([sys.executable, "-c", {_MEMBER!r}], stdout=subprocess.PIPE)
member.stdout.readline()
print(member.pid, flush=True)
member.wait()
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells a process of its parent's end")
def test_a_process_of_a_group_does_not_outlive_a_killed_launcher_and_its_lease():
    launcher = subprocess.Popen([sys.executable, "-c", _LAUNCHER], stdout=subprocess.PIPE, text=True)
    member = int(launcher.stdout.readline())
    launcher.kill()
    launcher.communicate()
    end = time.monotonic() + 20
    while _runs(member) and time.monotonic() < end:
        time.sleep(0.02)
    left = _runs(member)
    if left:
        os.kill(member, signal.SIGKILL)
    assert not left


def _runs(process: int) -> bool:
    """Whether it is there and no zombie."""
    try:
        with open(f"/proc/{process}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_one_process_and_a_member_of_a_group_start_no_others(monkeypatch):
    assert spread_over_processes(1, "auto") is False
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert spread_over_processes(2, "auto") is False
