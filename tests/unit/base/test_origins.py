"""Records and tables say what made them, of themselves; what reads them gets what was written."""

import sys

import pandas
import pytest
import torch
from pandas.testing import assert_frame_equal

from hessketch import ledger
from hessketch.provenance import command_line, imported_files
from hessketch.publishing import publish
from hessketch.records import (
    copy,
    provenance_of,
    read_record,
    read_table,
    read_tensors,
    table_provenance,
    write_record,
    write_table,
    write_tensors,
)

FRAME = pandas.DataFrame({"step": [1, 2], "loss": [0.5, 0.25]})


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch):
    """A project with data and one finished run."""
    monkeypatch.chdir(tmp_path)
    write_tensors({"images": torch.ones(3)}, "resources/digits.safetensors")
    ledger.begin()
    read_tensors("resources/digits.safetensors")
    write_table(FRAME, "results/demo/runs/a/history.parquet")
    write_record({"run": "a"}, "results/demo/runs/a/record.json")
    ledger.begin()
    return tmp_path


def test_a_record_holds_digests_of_what_was_read_and_of_what_was_written_beside_it():
    made = provenance_of("results/demo/runs/a/record.json")
    assert made["inputs"] == {"resources/digits.safetensors": ledger.file_digest("resources/digits.safetensors")}
    assert made["outputs"] == {"history.parquet": ledger.file_digest("results/demo/runs/a/history.parquet")}
    assert made["place"] == "results/demo/runs/a/record.json"
    assert read_record("results/demo/runs/a/record.json") == {"run": "a"}


def test_a_record_names_command_code_and_versions_and_no_folder_of_this_machine(project, monkeypatch):
    (project / "make.py").write_text("# makes it")
    words = [str(project / "make.py"), "--data", str(project / "data/x"), "--output=/scratch/me/run", "--rate", "0.1"]
    monkeypatch.setattr(sys, "argv", words)
    write_record({}, "out/record.json")
    made = provenance_of("out/record.json")
    assert made["command"] == "python make.py --data data/x --output=.../run --rate 0.1"
    assert made["script"] == {"make.py": ledger.file_digest("make.py")}
    assert made["code"]["files"]["records.py"] and made["packages"]["torch"].startswith("2.")
    assert str(project) not in (project / "out/record.json").read_text()


def test_a_long_command_is_cut(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["tabulate.py", *["results/demo/table.parquet"] * 5000])
    assert len(command_line()) < 2100


def test_the_code_of_a_result_is_what_its_process_has_imported():
    files = imported_files()
    assert "records.py" in files and all(len(digest) == 12 for digest in files.values())
    assert ("commands/federate.py" in files) == ("hessketch.commands.federate" in sys.modules)


def test_records_that_wait_are_right_where_they_are_published(project):
    read_tensors("resources/digits.safetensors")
    write_table(FRAME, "out/partial/history.parquet")
    write_tensors({"w": torch.ones(2)}, "out/partial/resume.safetensors")
    write_record({"task": "t"}, "out/partial/record.json")
    publish(project / "out", ["history.parquet", "record.json"])
    made = provenance_of("out/record.json")
    assert made["outputs"] == {"history.parquet": ledger.file_digest("out/history.parquet")}
    assert made["place"] == "out/record.json" and set(made["inputs"]) == {"resources/digits.safetensors"}


def test_published_files_of_an_earlier_process_belong_to_the_record_of_this_one(project):
    write_tensors({"w": torch.ones(2)}, "out/partial/epoch1.safetensors")
    ledger.begin()
    publish(project / "out", ["epoch1.safetensors"])
    write_record({}, "out/record.json")
    assert set(provenance_of("out/record.json")["outputs"]) == {"epoch1.safetensors"}


def test_records_of_unfinished_work_are_as_they_were_given(project):
    write_record({"done": 3}, "out/partial/0a1b/record.json")
    write_table(FRAME, "out/partial/0a1b/rows.parquet")
    assert provenance_of("out/partial/0a1b/record.json") == {}
    assert table_provenance("out/partial/0a1b/rows.parquet") == {}


def test_a_record_given_again_as_it_was_read_says_anew_what_made_it():
    record = read_record("results/demo/runs/a/record.json")
    write_record(record, "results/demo/copied/record.json")
    made = provenance_of("results/demo/copied/record.json")
    assert set(made["inputs"]) == {"results/demo/runs/a/record.json"} and made["outputs"] == {}


def test_a_table_names_the_records_that_it_came_from_and_reads_as_it_was_written():
    frame = read_table("results/demo/runs/a/history.parquet").assign(run="a")
    frame.attrs["unit"] = "steps"
    write_table(frame, "results/demo/study/runs.parquet")
    made = table_provenance("results/demo/study/runs.parquet")
    digest = ledger.file_digest("results/demo/runs/a/record.json")
    assert made["records"] == {"results/demo/runs/a/record.json": digest[:16]}
    assert made["record"] == "record.json" and {"code", "commit", "uncommitted_changes"} <= set(made)
    for back in (pandas.read_parquet("results/demo/study/runs.parquet"), read_table("results/demo/study/runs.parquet")):
        assert_frame_equal(back, frame)
        assert back.attrs == {"unit": "steps"}


def test_the_same_table_of_the_same_records_has_the_same_bytes(project):
    for name in ("a", "b"):
        read_record("results/demo/runs/a/record.json")
        write_table(FRAME, f"{name}/table.parquet")
        ledger.begin()
    first, second = ((project / name / "table.parquet").read_bytes() for name in "ab")
    assert first == second


def test_a_copy_has_the_bytes_of_its_source_and_both_are_known(project):
    copy("resources/digits.safetensors", "selected/model.safetensors")
    write_record({}, "selected/selection.json")
    made = provenance_of("selected/selection.json")
    assert [*made["inputs"].values()] == [*made["outputs"].values()]
