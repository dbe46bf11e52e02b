"""Tables of a job's parts wait until all are done, and are those of the same task and code alone."""

import pandas as pd
import pytest

from hessketch import waiting_tables
from hessketch.records import read_record, read_table
from hessketch.waiting_tables import WaitingTables


def table(*values):
    return pd.DataFrame({"x": list(values)}, dtype="int64")


def test_parts_are_joined_in_the_order_they_were_asked_for_and_leave_nothing_behind(tmp_path):
    waiting = WaitingTables(tmp_path, ["a", "b"])
    for number in (2, 1):
        folder = waiting.part({"run": number})
        assert not waiting.is_done(folder)
        waiting.keep(folder, {"a": table(number), "b": table()}, {"run": number})
        assert waiting.is_done(folder)
    assert not (tmp_path / "a.parquet").exists()
    record = waiting.publish({"settings": 3})
    assert read_table(tmp_path / "a.parquet")["x"].tolist() == [2, 1]
    assert read_table(tmp_path / "b.parquet").empty and list(read_table(tmp_path / "b.parquet")) == ["x"]
    assert record == read_record(tmp_path / "record.json") == {"settings": 3, "measured": [{"run": 2}, {"run": 1}]}
    assert not (tmp_path / "partial").exists()


def test_a_part_that_was_done_is_found_again_and_one_of_another_task_or_code_is_not(tmp_path, monkeypatch):
    first = WaitingTables(tmp_path, ["a"])
    first.keep(first.part({"run": 1, "rate": 0.1}), {"a": table(5)}, {})
    again = WaitingTables(tmp_path, ["a"])
    assert again.is_done(again.part({"rate": 0.1, "run": 1}))
    assert not again.is_done(again.part({"run": 1, "rate": 0.2}))
    monkeypatch.setattr(waiting_tables, "code_digest", lambda: "other")
    assert not again.is_done(again.part({"run": 1, "rate": 0.1}))


def test_a_part_is_done_only_when_all_its_tables_are_there(tmp_path, monkeypatch):
    waiting = WaitingTables(tmp_path, ["a", "b"])
    folder = waiting.part({})
    with pytest.raises(KeyError):
        waiting.keep(folder, {"a": table(1)}, {})
    assert (folder / "a.parquet").is_file() and not waiting.is_done(folder)


@pytest.mark.parametrize("name", ["a.parquet", "record.json"])
def test_a_part_of_which_a_file_is_cut_off_is_not_done(tmp_path, name):
    waiting = WaitingTables(tmp_path, ["a"])
    folder = waiting.part({})
    waiting.keep(folder, {"a": table(1)}, {"run": 1})
    assert waiting.is_done(folder)
    (folder / name).write_bytes((folder / name).read_bytes()[:-5])
    assert not waiting.is_done(folder)


def test_rows_are_joined_as_the_job_says(tmp_path):
    waiting = WaitingTables(tmp_path, ["a"])
    waiting.keep(waiting.part({}), {"a": table(1, 2)}, {})
    waiting.publish({}, lambda name, frames: frames[0].assign(name=name))
    assert read_table(tmp_path / "a.parquet")["name"].tolist() == ["a", "a"]
