"""Whether a decomposition finds room, by numbers: no memory of any size is taken."""

from dataclasses import replace

import pytest
import torch

from hessketch.errors import InputError
from hessketch.linalg.measurement_store import MemoryStore
from hessketch.linalg.sketch_room import Budget, fitting, places, require_places, room_needed
from hessketch.linalg.sketch_settings import SketchSettings

SOME = SketchSettings(pairs=20, measurements=100, passes=2, probes=0)


class Disk(MemoryStore):
    """Says how much room it has."""

    def __init__(self, free: int = 0):
        super().__init__("cpu")
        self.free = free

    def free_bytes(self) -> int:
        return self.free


def test_the_host_of_a_gpu_has_a_budget_of_its_own(monkeypatch):
    free = {"cuda": 1000, "cpu": 6000}
    monkeypatch.setattr("hessketch.linalg.sketch_room.free_memory", lambda place: free[place.type])
    gpu, cpu = torch.device("cuda"), torch.device("cpu")
    assert Budget.of(gpu, None, None) == Budget(500, 3000, None)
    assert Budget.of(gpu, 700, Disk(90)) == Budget(700, 3000, 90)
    assert Budget.of(cpu, None, None) == Budget(3000, None, None)
    assert Budget.of(cpu, 700, None) == Budget(700, None, None)


HEADLINE, GB = 11_170_000, 10**9


@pytest.mark.parametrize("options", [{"method": "paper"}, {"passes": 1}, {"passes": 2}, {"passes": 4}])
def test_a_thousand_pairs_of_eleven_million_parameters_fit_beside_a_gpu_of_80_gb(options, monkeypatch):
    some = SketchSettings(pairs=1000, **options)
    free = {"cuda": 80 * GB, "cpu": 512 * GB}
    monkeypatch.setattr("hessketch.linalg.sketch_room.free_memory", lambda place: free[place.type])

    def found(store=None, memory=None):
        return require_places(HEADLINE, some, torch.float32, Budget.of(torch.device("cuda"), memory, store))

    room, disk = room_needed(HEADLINE, some, torch.float32), Disk()
    assert some.count == 2010 and room.vectors == 4 * 1000 * HEADLINE and room.work < 5 * GB
    assert (found().columns, found().vectors) == ("host", "host")
    assert (found(memory=6 * GB).columns, found(memory=6 * GB).vectors) == ("host", "host")
    free["cpu"], disk.free = 96 * GB, 200 * GB
    assert (found(disk).columns, found(disk).vectors) == ("store", "host")
    assert (found(disk, 60 * GB).columns, found(disk, 60 * GB).vectors) == ("store", "device")
    free["cpu"] = 32 * GB
    if options.get("passes") == 4:  # columns and vectors: 203 GB
        disk.free = 210 * GB
    assert (found(disk).columns, found(disk).vectors) == ("store", "store")
    disk.free = room.columns - 1
    with pytest.raises(InputError, match=r"GiB\) of the device's memory.*of the host's memory.*of disk may be taken"):
        found(disk)
    assert places(room, Budget(room.work - 1, 2**50, 2**50)) is None  # the work is on the device


def test_what_is_said_to_fit_fits_and_one_more_does_not():
    budget = Budget(2**31, None, None)
    most = fitting(10**6, SOME, torch.float32, budget)
    needed = [
        room_needed(10**6, replace(SOME, pairs=(m - 10) // 2, measurements=m), torch.float32) for m in (most, most + 1)
    ]
    assert needed[0].columns + needed[0].vectors + needed[0].work <= 2**31
    assert needed[1].columns + needed[1].vectors + needed[1].work > 2**31
    assert fitting(10**6, SOME, torch.float32, Budget(1000, None, None)) == 0
    assert fitting(10**6, SOME, torch.float32, Budget(2**31, None, 2**40)) > most
    assert fitting(10**6, SOME, torch.float32, Budget(2**31, 2**32, None)) > most
