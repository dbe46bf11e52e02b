"""Calm lines in a log, one live line on a terminal."""

import io
from pathlib import Path

import pytest

from hessketch import progress as module
from hessketch.cli import run_job
from hessketch.errors import DiskFullError
from hessketch.progress import Progress, note, readable_time


def test_times_are_readable():
    assert [readable_time(s) for s in (0.4, 59, 200, 18720)] == ["0 s", "59 s", "3 min 20 s", "5 h 12 min"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no file that is always full")
def test_what_a_log_on_a_full_disk_does_not_take_is_said_on_stderr(capsys):
    def job(progress):
        progress.say("begun")
        raise DiskFullError("x.parquet: cannot be written, the disk is full")

    progress = Progress("job", "/dev/full")
    progress.say("half done")
    progress.say("done")
    progress.close()
    assert capsys.readouterr().err == "job: half done\njob: done\n"
    with pytest.raises(SystemExit):
        run_job(job, "train")
    said = capsys.readouterr().err
    assert "x.parquet: cannot be written" in said and "Traceback" not in said


def test_a_log_gets_calm_lines_and_the_end(tmp_path, monkeypatch):
    clock = iter(range(1000))
    monkeypatch.setattr(module.time, "monotonic", lambda: next(clock))
    progress = Progress("train", tmp_path / "logs/train.log", calm_seconds=15)
    report = progress.stage("epoch")
    for done in range(1, 41):
        report(done, 40)
    progress.close()
    lines = (tmp_path / "logs/train.log").read_text().splitlines()
    assert [line.split()[2] for line in lines] == ["15/40,", "30/40,", "40/40,"]
    assert "25 s left" in lines[0]
    assert "took 40 s" in lines[-1]


def test_a_terminal_gets_one_line_that_is_overwritten(monkeypatch, tmp_path):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    monkeypatch.setattr(module.sys, "stderr", terminal)
    progress = Progress("train", tmp_path / "train.log")
    progress.stage("epoch")(1, 1)
    progress.close()
    assert "\r\033[Ktrain: epoch 1/1" in terminal.getvalue()
    assert "\n" not in terminal.getvalue()


def test_without_a_log_the_end_of_a_stage_stays(monkeypatch, capsys):
    report = Progress("train").stage("epoch")
    report(1, 2)
    report(2, 2)
    assert capsys.readouterr().err.startswith("train: epoch 2/2, took")


def test_what_a_computation_notes_is_in_the_log_of_its_job_once(tmp_path):
    log = tmp_path / "job.log"

    def job(progress):
        for _ in range(3):
            note("out of memory with batches of 8 examples: halved to 4")
        note("another")

    run_job(job, "job", str(log))
    note("after the job")
    assert [line.split(" ", 1)[1] for line in log.read_text().splitlines()] == [
        "out of memory with batches of 8 examples: halved to 4",
        "another",
    ]
