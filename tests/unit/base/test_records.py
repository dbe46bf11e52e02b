"""Files appear whole or not at all; a damaged one is named with what to delete."""

import pandas
import pytest
import torch

from hessketch.errors import InputError
from hessketch.records import (
    damaged_results,
    load_study,
    read_record,
    read_table,
    read_tensors,
    write_atomically,
    write_record,
    write_table,
    write_tensors,
)


def test_a_table_comes_back_with_its_columns_and_types(tmp_path):
    frame = pandas.DataFrame({"n": [1, 2], "loss": [0.5, float("nan")], "name": ["a", "b"], "ok": [True, False]})
    write_table(frame, tmp_path / "deep/table.parquet")
    back = read_table(tmp_path / "deep/table.parquet", {"n": "i", "loss": "f", "name": "s", "ok": "b"})
    pandas.testing.assert_frame_equal(back, frame, check_dtype=False)


def test_tensors_come_back_bit_for_bit_with_their_metadata(tmp_path):
    tensors = {"a": torch.randn(3, 2).T, "b": torch.arange(4)}
    write_tensors(tensors, tmp_path / "t.safetensors", {"network": "vgg11", "shape": [3, 2]})
    back, metadata = read_tensors(tmp_path / "t.safetensors")
    assert all(torch.equal(back[name], tensor) for name, tensor in tensors.items())
    assert metadata == {"network": "vgg11", "shape": [3, 2]}


def test_a_record_comes_back_in_its_order(tmp_path):
    write_record({"z": 1, "a": [1.5, None]}, tmp_path / "r.json")
    assert list(read_record(tmp_path / "r.json").items()) == [("z", 1), ("a", [1.5, None])]


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "r.json"
    write_record({"whole": True}, path)

    def half_then_fail(temporary):
        temporary.write_text("{")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, half_then_fail)
    assert read_record(path) == {"whole": True}
    assert [p.name for p in tmp_path.iterdir()] == ["r.json"]


@pytest.mark.parametrize(
    ("reader", "name"), [(read_table, "t.parquet"), (read_tensors, "t.safetensors"), (read_record, "t")]
)
def test_a_cut_off_file_is_named_with_what_to_do(tmp_path, reader, name):
    path = tmp_path / name
    write = {
        read_table: lambda: write_table(pandas.DataFrame({"x": range(100)}), path),
        read_tensors: lambda: write_tensors({"x": torch.zeros(100)}, path),
        read_record: lambda: write_record({"x": list(range(100))}, path),
    }[reader]
    write()
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match=f"{name}.*damaged.*delete it"):
        reader(path)


def test_a_missing_file_a_missing_column_and_a_wrong_type_are_named(tmp_path):
    with pytest.raises(InputError, match=r"none\.parquet: no such file"):
        read_table(tmp_path / "none.parquet")
    write_table(pandas.DataFrame({"n": ["one"]}), tmp_path / "t.parquet")
    with pytest.raises(InputError, match="column 'p' is missing"):
        read_table(tmp_path / "t.parquet", {"p": "i"})
    with pytest.raises(InputError, match="column 'n' is"):
        read_table(tmp_path / "t.parquet", {"n": "i"})


def test_a_folder_in_the_place_of_a_file_is_refused_and_stays(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match=r"folder: is a folder; give the name of a file"):
        write_record({"x": 1}, tmp_path / "folder")
    assert [path.name for path in tmp_path.rglob("*")] == ["folder"]


def test_a_study_is_loaded_from_an_argument_or_the_environment(tmp_path, monkeypatch):
    write_table(pandas.DataFrame({"n": [1]}), tmp_path / "full_spectrum/runs.parquet")
    assert list(load_study("full_spectrum", tmp_path)) == ["runs"]
    monkeypatch.setenv("HESSKETCH_RESULTS", str(tmp_path))
    assert load_study("full_spectrum")["runs"].n.tolist() == [1]
    with pytest.raises(InputError, match="snakemake --cores all"):
        load_study("another_study")


def test_damage_is_seen_by_the_structure_alone(tmp_path):
    write_table(pandas.DataFrame({"x": range(100)}), tmp_path / "t.parquet")
    write_tensors({"a": torch.ones(50), "b": torch.zeros(3)}, tmp_path / "t.safetensors", {"k": 1})
    write_record({"x": 1}, tmp_path / "t.json")
    assert damaged_results([str(tmp_path)]) == []
    for path in sorted(tmp_path.iterdir()):
        whole = path.read_bytes()
        for size in (0, 3, len(whole) // 2, len(whole) - 3):
            path.write_bytes(whole[:size])
            (line,) = damaged_results([str(tmp_path)])
            assert line.startswith(f"{path}: cannot be read, it is damaged") and "delete it" in line
        path.write_bytes(whole)
