"""Files appear whole or not at all; a damaged one is named with what to delete."""

import errno

import numpy as np
import pandas
import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from hessketch.damage import damaged_results
from hessketch.errors import DiskFullError, InputError
from hessketch.records import (
    is_intact,
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


def fail_with(error):
    def write(temporary):
        temporary.write_text("{")
        raise error

    return write


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
)
def test_a_full_disk_is_named_with_the_file_and_leaves_no_half_of_it(tmp_path, error):
    path = tmp_path / "r.json"
    with pytest.raises(DiskFullError, match=rf"{path}: cannot be written, the disk is full; make room .* it resumes"):
        write_atomically(path, fail_with(error))
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_writer_left_goes_with_the_next_write_of_the_same_file(tmp_path):
    for name in (".r.json.x1.partial", ".r.json.x2.partial", ".other.json.x1.partial"):
        (tmp_path / name).write_text("{")
    write_record({}, tmp_path / "r.json")
    assert {path.name for path in tmp_path.iterdir()} == {"r.json", ".other.json.x1.partial"}


def flip(path, place):
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def test_flipped_bits_in_values_are_seen_when_a_table_or_tensors_are_read(tmp_path):
    write_table(pandas.DataFrame({"x": np.random.default_rng(0).normal(size=1000)}), tmp_path / "t.parquet")
    write_tensors({"a": torch.randn(500), "b": torch.tensor(True)}, tmp_path / "t.safetensors", {"epoch": 3})
    for name, reader in {"t.parquet": read_table, "t.safetensors": read_tensors}.items():
        path = tmp_path / name
        assert is_intact(path)
        flip(path, path.stat().st_size // 2)
        assert damaged_results([str(tmp_path)]) == {}  # the structure is whole
        with pytest.raises(InputError, match=f"{name}: cannot be read, it is damaged"):
            reader(path)
        assert not is_intact(path)


def test_a_flipped_bit_in_the_metadata_of_tensors_is_seen(tmp_path):
    path = tmp_path / "t.safetensors"
    write_tensors({"a": torch.zeros(3)}, path, {"epoch": 30})
    path.write_bytes(path.read_bytes().replace(b"30", b"31"))
    with pytest.raises(InputError, match="its content is not what was written"):
        read_tensors(path)


def test_tensors_of_every_kind_and_of_others_come_back(tmp_path):
    kinds = (torch.float16, torch.bfloat16, torch.float64, torch.int8, torch.bool)
    tensors = {str(kind): torch.tensor([[1, 0]]).to(kind) for kind in kinds} | {"none": torch.zeros(0, 3)}
    write_tensors(tensors, tmp_path / "t.safetensors")
    back, _ = read_tensors(tmp_path / "t.safetensors")
    assert all(torch.equal(back[name], tensor) for name, tensor in tensors.items())
    save_file({"x": torch.ones(2)}, tmp_path / "others.safetensors")  # no checksum
    assert read_tensors(tmp_path / "others.safetensors")[0]["x"].tolist() == [1, 1]


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


def test_damage_is_seen_by_the_structure_alone(tmp_path):
    write_table(pandas.DataFrame({"x": range(100)}), tmp_path / "t.parquet")
    write_tensors({"a": torch.ones(50), "b": torch.zeros(3)}, tmp_path / "t.safetensors", {"k": 1})
    write_record({"x": 1}, tmp_path / "t.json")
    assert damaged_results([str(tmp_path)]) == {}
    for path in sorted(tmp_path.iterdir()):
        whole = path.read_bytes()
        for size in (0, 3, len(whole) // 2, len(whole) - 3):
            path.write_bytes(whole[:size])
            assert [*damaged_results([str(tmp_path)])] == [str(path)]
        path.write_bytes(whole)


def test_unfinished_work_is_not_asked_about(tmp_path):
    """A job that goes on with it sets aside what is damaged."""
    for name in ("partial/t.json", "resume.safetensors", "partial/deep/t.parquet"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("{")
    assert damaged_results([str(tmp_path)]) == {}
