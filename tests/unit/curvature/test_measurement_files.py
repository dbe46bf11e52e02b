import errno
import json
import math
import os

import numpy as np
import pytest
import torch

from hessketch.curvature.measurement_files import MeasurementFiles
from hessketch.errors import InputError
from hessketch.linalg.sketched_eigh import SketchSettings, sketched_eigh


def spectrum(p: int = 300) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    vectors = torch.linalg.qr(torch.randn(p, p, generator=generator)).Q
    matrix = vectors / torch.arange(1.0, p + 1) @ vectors.T
    return (matrix + matrix.T) / 2


class Stopping:
    """A matrix that the user stops at the product of a block after number `after`."""

    def __init__(self, matrix: torch.Tensor, after: float = math.inf):
        self.matrix, self.after, self.blocks = matrix, after, 0
        self.shape, self.dtype, self.device = matrix.shape, matrix.dtype, matrix.device

    def __matmul__(self, other: torch.Tensor) -> torch.Tensor:
        if self.blocks == self.after:
            raise KeyboardInterrupt
        self.blocks += 1
        return self.matrix @ other


def numbers(rows: int, columns: int, dtype=torch.float32) -> torch.Tensor:
    return torch.arange(rows * columns, dtype=dtype).view(rows, columns)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_columns_outlive_the_process_and_come_back_by_rows_and_columns(tmp_path, dtype):
    block = numbers(7, 3, dtype)
    MeasurementFiles(tmp_path, "task").matrix("w", 7, 5, dtype, "a").append(block)
    again = MeasurementFiles(tmp_path, "task").matrix("w", 7, 5, dtype, "a")
    assert again.finished == 3 and again.shape == (7, 5)
    assert torch.equal(again.columns(1, 3), block[:, 1:3]) and torch.equal(again.rows(2, 6)[:, :3], block[2:6])
    again.append(numbers(7, 2, dtype))
    assert again.finished == 5 and torch.equal(again.columns(3, 5), numbers(7, 2, dtype))


def test_whole_rows_are_written_where_they_belong(tmp_path):
    matrix = MeasurementFiles(tmp_path, "task").matrix("x", 6, 2, torch.float32, "a")
    matrix.write_rows(0, numbers(6, 2)[:4])
    matrix.write_rows(4, numbers(6, 2)[4:])
    assert torch.equal(matrix.rows(0, 6), numbers(6, 2))


def test_the_whole_matrix_is_mapped_and_follows_the_file(tmp_path):
    matrix = MeasurementFiles(tmp_path, "task").matrix("x", 6, 2, torch.float32, "a")
    whole = matrix.whole()
    matrix.write_rows(0, numbers(6, 2))
    assert whole.shape == (6, 2) and torch.equal(whole, numbers(6, 2))


def test_what_is_read_does_not_change_with_the_file(tmp_path):
    matrix = MeasurementFiles(tmp_path, "task").matrix("x", 6, 2, torch.float32, "a")
    matrix.write_rows(0, numbers(6, 2))
    read = matrix.columns(0, 1)
    matrix.write_rows(0, -numbers(6, 2))
    assert torch.equal(read, numbers(6, 2)[:, :1])


@pytest.mark.parametrize("change", [{"task": "other"}, {"rows": 8}, {"columns": 6}, {"identity": "b"}])
def test_the_columns_of_another_task_are_set_aside(tmp_path, change):
    first = {"task": "task", "rows": 7, "columns": 5, "identity": "a"}
    for given, left in ((first, 0), (first | change, 0), (first | change, 2)):
        files = MeasurementFiles(tmp_path, given["task"])
        matrix = files.matrix("w", given["rows"], given["columns"], torch.float32, given["identity"])
        assert matrix.finished == left
        if not left:
            matrix.append(torch.ones(given["rows"], 2))
    assert (tmp_path / "w.columns.old").is_file()
    files.delete()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("damage", ["cut", "no json", "no record", "a list", "gone"])
def test_damaged_files_are_begun_anew(tmp_path, damage):
    MeasurementFiles(tmp_path, "task").matrix("w", 7, 5, torch.float32, "a").append(torch.ones(7, 2))
    columns, record = tmp_path / "w.columns", tmp_path / "w.columns.json"
    if damage == "cut":
        columns.write_bytes(columns.read_bytes()[:-1])
    elif damage == "gone":
        columns.unlink()
    elif damage == "no record":
        record.unlink()
    else:
        record.write_text("{" if damage == "no json" else "[1]")
    matrix = MeasurementFiles(tmp_path, "task").matrix("w", 7, 5, torch.float32, "a")
    assert matrix.finished == 0 and columns.stat().st_size == 7 * 5 * 4


def test_a_block_counts_only_once_it_is_recorded(tmp_path):
    matrix = MeasurementFiles(tmp_path, "task").matrix("w", 4, 4, torch.float32, "a")
    matrix.append(torch.ones(4, 2))
    matrix.write_rows(0, torch.full((4, 4), 9.0))  # as a block that was being written when the process was killed
    again = MeasurementFiles(tmp_path, "task").matrix("w", 4, 4, torch.float32, "a")
    assert again.finished == 2 == json.loads((tmp_path / "w.columns.json").read_text())["finished"]


def test_more_than_the_disk_holds_is_refused_before_anything_is_written(tmp_path):
    files = MeasurementFiles(tmp_path, "task")
    assert 0 < files.free_bytes() < 2**60
    with pytest.raises(InputError, match="no room for"):
        files.matrix("w", 2**40, 2**18, torch.float32, "a")
    assert not list(tmp_path.iterdir())


def test_what_was_set_aside_makes_room_where_the_disk_does_not_hold_both(tmp_path, monkeypatch):
    MeasurementFiles(tmp_path, "first").matrix("w", 7, 5, torch.float32, "a")
    allocate = os.posix_fallocate

    def full(*arguments):
        if (tmp_path / "w.columns.old").exists():
            raise OSError(errno.ENOSPC, "No space left on device")
        allocate(*arguments)

    monkeypatch.setattr(os, "posix_fallocate", full)
    second = MeasurementFiles(tmp_path, "second").matrix("w", 7, 5, torch.float32, "a")
    second.append(torch.ones(7, 5))
    assert second.finished == 5 and not (tmp_path / "w.columns.old").exists()


@pytest.mark.parametrize("options", [{"method": "paper"}, {"passes": 1}, {"passes": 2}])
def test_a_killed_decomposition_goes_on_from_its_files_to_the_same_bits(tmp_path, options):
    settings = SketchSettings(pairs=20, measurements=64, probes=8, block=8, **options)
    expected = sketched_eigh(spectrum(), settings, 3)
    for after in (5, 2):
        with pytest.raises(KeyboardInterrupt):
            sketched_eigh(Stopping(spectrum(), after), settings, 3, store=MeasurementFiles(tmp_path, "task"))
    last = Stopping(spectrum())
    found = sketched_eigh(last, settings, 3, store=MeasurementFiles(tmp_path, "task"))
    assert last.blocks == 9 - 7
    assert np.array_equal(found.values, expected.values) and torch.equal(found.vectors, expected.vectors)
    assert found.errors == expected.errors


def test_another_seed_does_not_take_the_columns_of_the_first(tmp_path):
    settings = SketchSettings(pairs=5, measurements=20, probes=0, block=20, passes=1)
    sketched_eigh(spectrum(), settings, 3, store=MeasurementFiles(tmp_path, "task"))
    operator = Stopping(spectrum())
    found = sketched_eigh(operator, settings, 4, store=MeasurementFiles(tmp_path, "task"))
    assert operator.blocks == 1
    assert np.array_equal(found.values, sketched_eigh(spectrum(), settings, 4).values)
