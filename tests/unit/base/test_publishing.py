"""Results that wait until all runs of a job are done, and then take their places."""

import os

import pytest

from hessketch.errors import InputError
from hessketch.publishing import publish, waiting_record
from hessketch.records import write_record

FILES = ("model.bin", "record.json")


def waiting(folder, task="this", model="weights"):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.bin").write_text(model)
    write_record({"task": task, "loss": 0.5}, folder / "record.json")
    return folder


def test_the_record_of_a_finished_run_is_found_if_it_is_of_the_same_task(tmp_path):
    folder = waiting(tmp_path / "partial")
    assert waiting_record(folder, FILES, "this") == {"task": "this", "loss": 0.5}
    assert waiting_record(folder, FILES, "another") is None
    write_record({"loss": 0.5}, folder / "record.json")
    assert waiting_record(folder, FILES, "this") is None


@pytest.mark.parametrize("name", FILES)
def test_a_run_whose_files_are_not_all_there_is_not_finished(tmp_path, name):
    folder = waiting(tmp_path / "partial")
    (folder / name).unlink()
    assert waiting_record(folder, FILES, "this") is None
    assert waiting_record(tmp_path / "absent", FILES, "this") is None


def test_a_damaged_record_is_named(tmp_path):
    folder = waiting(tmp_path / "partial")
    (folder / "record.json").write_text('{"task": "th')
    with pytest.raises(InputError, match=r"partial/record.json: cannot be read, it is damaged"):
        waiting_record(folder, FILES, "this")


def test_publishing_replaces_older_results_and_leaves_nothing_that_waited(tmp_path):
    waiting(tmp_path, model="old")
    (waiting(tmp_path / "partial", model="new") / "resume.bin").write_text("state")
    publish(tmp_path, FILES)
    assert (tmp_path / "model.bin").read_text() == "new"
    assert {path.name for path in tmp_path.iterdir()} == set(FILES)
    publish(tmp_path, FILES)  # nothing waits: what is there stays
    assert (tmp_path / "model.bin").read_text() == "new"


def test_the_record_takes_its_place_last(tmp_path, monkeypatch):
    """A kill between two files must not leave the record of a run whose files are older."""
    waiting(tmp_path / "partial")
    moved, replace = [], os.replace
    monkeypatch.setattr(os, "replace", lambda source, target: moved.append(target.name) or replace(source, target))
    publish(tmp_path, FILES)
    assert moved == ["model.bin", "record.json"]
