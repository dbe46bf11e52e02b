"""The GPUs that a process may use: those that the driver lists and a scheduler or the user has left to it."""

import pytest
from fake_gpus import fake_gpus, write_tool

from hessketch.gpus import Gpu, visible_gpus

DIVIDED = """GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-5c89852c)
  MIG 1g.5gb      Device  0: (UUID: MIG-c6d4f1ef)
  MIG 2g.10gb     Device  1: (UUID: MIG-7089d0f3)
GPU 1: NVIDIA A100-SXM4-40GB (UUID: GPU-11111111)"""


@pytest.fixture
def machine(tmp_path, monkeypatch):
    for name, value in fake_gpus(tmp_path, 3).items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return tmp_path


@pytest.mark.parametrize(
    ("assigned", "indices"),
    [
        ("1", [1]),
        ("2,0", [2, 0]),
        ("0, 0,1", [0, 1]),
        ("GPU-2,1", [2, 1]),
        ("0,7,1", [0]),
        ("-1", []),
        ("", []),
        ("NoDevFiles", []),
    ],
)
def test_only_what_was_assigned_counts_and_an_unknown_entry_ends_the_list_as_cuda_has_it(
    machine, monkeypatch, assigned, indices
):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", assigned)
    assert [gpu.index for gpu in visible_gpus()] == indices


def test_all_gpus_are_visible_by_default_and_the_driver_is_asked_once(machine):
    assert visible_gpus() == visible_gpus() == [Gpu(i, "NVIDIA Test", f"GPU-{i}") for i in range(3)]
    assert (machine / "calls").read_text() == "-L\n"


def test_a_divided_gpu_counts_as_its_instances(machine, monkeypatch):
    write_tool(machine, DIVIDED)
    names = ["NVIDIA A100-SXM4-40GB MIG 1g.5gb", "NVIDIA A100-SXM4-40GB MIG 2g.10gb", "NVIDIA A100-SXM4-40GB"]
    assert [gpu.name for gpu in visible_gpus()] == names
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-7089,GPU-1111")
    assert [gpu.uuid for gpu in visible_gpus()] == ["MIG-7089d0f3", "GPU-11111111"]


@pytest.mark.parametrize("script", ["#!/bin/sh\necho no devices; exit 9\n", "no script at all"])
def test_a_driver_that_does_not_answer_means_no_gpu(machine, script):
    (machine / "bin/nvidia-smi").write_text(script)
    assert visible_gpus() == []
