"""Free memory of the host, within the limit of a control group."""

import pytest
import torch

from hessketch.linalg import memory
from hessketch.linalg.memory import free_memory


@pytest.fixture
def group(tmp_path, monkeypatch):
    """Writes limit and use of a control group, of the version given by its place in the list."""
    pairs = [(tmp_path / f"limit{i}", tmp_path / f"used{i}") for i in range(2)]
    monkeypatch.setattr(memory, "_CGROUPS", tuple((str(limit), str(used)) for limit, used in pairs))

    def write(limit: str, used: str, version: int = 0) -> None:
        for path, text in zip(pairs[version], (limit, used), strict=True):
            path.write_text(text + "\n")

    return write


def test_without_a_control_group_it_is_what_the_host_has(group):
    free = free_memory("cpu")
    assert isinstance(free, int)
    assert 2**20 < free < 2**50


@pytest.mark.parametrize("version", [0, 1])
def test_a_control_groups_limit_less_its_use_is_what_is_left(group, version):
    group("3000000", "1000000", version)
    assert free_memory("cpu") == 2000000
    assert free_memory(torch.device("cpu")) == 2000000


def test_the_smaller_of_two_groups_counts(group):
    group("3000000", "1000000", 0)
    group("1500000", "1000000", 1)
    assert free_memory("cpu") == 500000


def test_a_group_that_is_over_its_limit_leaves_nothing(group):
    group("1000000", "1000001")
    assert free_memory("cpu") == 0


@pytest.mark.parametrize(("limit", "used"), [("max", "1000"), ("9223372036854771712", "1000"), ("1000", "")])
def test_no_limit_or_none_that_can_be_read_leaves_what_the_host_has(group, limit, used):
    group(limit, used)
    assert free_memory("cpu") > 2**20


def test_where_the_host_tells_nothing_half_of_its_memory_is_assumed(group, monkeypatch):
    numbers = {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 1000}
    monkeypatch.setattr(memory.os, "sysconf", numbers.__getitem__)
    monkeypatch.setattr(memory.Path, "read_text", lambda path: (_ for _ in ()).throw(OSError))
    assert free_memory("cpu") == 4096 * 500
