"""Results that wait until all runs of a job are done, and then take their places."""

import errno
import os

import pytest
import torch

from hessketch.publishing import publish, waiting_record
from hessketch.records import write_record, write_tensors

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


def test_a_run_of_which_a_file_is_damaged_is_not_finished(tmp_path):
    folder, tensors = waiting(tmp_path / "partial"), tmp_path / "partial/weights.safetensors"
    write_tensors({"x": torch.arange(100.0)}, tensors)
    files = (*FILES, tensors.name)
    assert waiting_record(folder, files, "this") is not None
    content = tensors.read_bytes()
    tensors.write_bytes(content[:-3] + bytes([content[-3] ^ 1]) + content[-2:])
    assert waiting_record(folder, files, "this") is None
    tensors.write_bytes(content)
    (folder / "record.json").write_text('{"task": "th')
    assert waiting_record(folder, files, "this") is None


def test_publishing_replaces_older_results_and_leaves_nothing_that_waited(tmp_path):
    waiting(tmp_path, model="old")
    (waiting(tmp_path / "partial", model="new") / "resume.bin").write_text("state")
    publish(tmp_path, FILES)
    assert (tmp_path / "model.bin").read_text() == "new"
    assert {path.name for path in tmp_path.iterdir()} == set(FILES)
    publish(tmp_path, FILES)  # nothing waits: what is there stays
    assert (tmp_path / "model.bin").read_text() == "new"


def test_what_a_kill_in_between_leaves_is_published_again(tmp_path, monkeypatch):
    """A workflow then deletes what had taken its place."""
    waiting(tmp_path / "partial")
    link, placed = os.link, []

    def link_once(source, target):
        if placed:
            raise KeyboardInterrupt
        placed.append(target.name)
        link(source, target)

    monkeypatch.setattr(os, "link", link_once)
    with pytest.raises(KeyboardInterrupt):
        publish(tmp_path, FILES)
    assert placed == ["model.bin"]  # the record, which says that it is all there, is last
    (tmp_path / "model.bin").unlink()
    monkeypatch.undo()
    assert waiting_record(tmp_path / "partial", FILES, "this")
    publish(tmp_path, FILES)
    assert (tmp_path / "model.bin").read_text() == "weights" and not (tmp_path / "partial").exists()


def test_on_a_disk_without_second_names_files_are_copied(tmp_path, monkeypatch):
    def no_link(source, target):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_link)
    waiting(tmp_path / "partial")
    publish(tmp_path, FILES)
    assert (tmp_path / "model.bin").read_text() == "weights"
    assert {path.name for path in tmp_path.iterdir()} == set(FILES)
