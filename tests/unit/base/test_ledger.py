"""What a process read and wrote is known by content, under names that hold no folder of a machine."""

import hashlib
import os
from pathlib import Path

import pytest

from hessketch import ledger


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def made(path: Path, content: bytes) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return hashlib.sha256(content).hexdigest()


def test_inputs_are_what_was_read_and_not_written_here_nor_unfinished_work(project):
    digest = made(project / "data/images.safetensors", b"images")
    for name in ("out/table.parquet", "out/partial/step1.safetensors", "out/resume.safetensors"):
        made(project / name, b"own")
        ledger.note_read(project / name)
    ledger.note_written(project / "out/table.parquet")
    ledger.note_read("data/images.safetensors")
    assert ledger.inputs(project / "out") == {"data/images.safetensors": digest}


def test_outputs_are_what_was_written_into_the_folder_and_is_still_there(project):
    digest = made(project / "out/table.parquet", b"rows")
    for name in ("out/gone.parquet", "out/resume.safetensors", "out/deeper/other.parquet", "beside.parquet"):
        made(project / name, b"x")
        ledger.note_written(project / name)
    ledger.note_written("out/table.parquet")
    (project / "out/gone.parquet").unlink()
    assert ledger.outputs("out") == {"table.parquet": digest}


def test_a_file_that_changed_after_it_was_read_has_no_digest(project):
    made(project / "data.parquet", b"as it was read")
    ledger.note_read("data.parquet")
    made(project / "data.parquet", b"as another process left it")
    assert ledger.inputs("out") == {"data.parquet": None}


def test_a_file_that_is_written_twice_has_the_digest_of_the_second(project):
    made(project / "out/table.parquet", b"first")
    ledger.note_written("out/table.parquet")
    ledger.outputs("out")
    digest = made(project / "out/table.parquet", b"the second")
    ledger.note_written("out/table.parquet")
    assert ledger.outputs("out") == {"table.parquet": digest}


def test_another_job_in_the_same_process_begins_with_nothing_read(project):
    made(project / "a.parquet", b"a")
    ledger.note_read("a.parquet")
    ledger.begin()
    assert ledger.inputs(".") == {} and ledger.outputs(".") == {} and ledger.tables_read() == {}


@pytest.mark.parametrize(
    ("path", "folder", "told"),
    [
        ("{cwd}/resources/digits.safetensors", "{cwd}/results/x", "resources/digits.safetensors"),
        ("{other}/run/model.safetensors", "{other}/run", "./model.safetensors"),
        ("{other}/run/model.safetensors", "{other}/spectrum", "../run/model.safetensors"),
        ("/elsewhere/model.safetensors", "{cwd}/results/x", ".../model.safetensors"),
    ],
)
def test_a_file_is_told_without_a_folder_of_this_machine(tmp_path, monkeypatch, path, folder, told):
    cwd, other = tmp_path / "project", tmp_path / "scratch"
    cwd.mkdir()
    monkeypatch.chdir(cwd)
    path, folder = (text.format(cwd=cwd, other=other) for text in (path, folder))
    assert ledger.told_from(path, folder) == told
    place = ledger.place(os.path.join(folder, "record.json"))
    found = ledger.found_at(told, Path(folder, "record.json"), place)
    assert found == (None if told.startswith(".../") else Path(path))


def test_files_that_moved_together_with_a_result_are_found_where_they_are_now(project):
    own = "results/demo/spectra/x/record.json"
    moved, copied = Path("/far/mine/spectra/x/record.json"), Path("/far/copy") / own
    model = "results/demo/selected/x/model.safetensors"
    assert ledger.found_at(model, moved, own) == Path("/far/mine/selected/x/model.safetensors")
    assert ledger.found_at(model, copied, own) == Path("/far/copy") / model
    data = "resources/digits.safetensors"
    assert ledger.found_at(data, copied, own) == Path("/far/copy") / data
    assert ledger.found_at(data, moved, own) == project / data


def test_files_that_wait_in_partial_will_stand_in_the_folder_above_it(project):
    assert ledger.published("out/partial") == project / "out"
    assert ledger.published("out") == project / "out"
    assert ledger.published("out/partial/0a1b") is None
