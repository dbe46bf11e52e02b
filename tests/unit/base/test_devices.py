"""Devices: what is asked for or a clear error, and the settings that make numbers repeatable."""

import pytest
import torch

from hessketch.devices import keep_freed_memory, prepare_device
from hessketch.errors import InputError


def test_an_unknown_device_is_refused():
    with pytest.raises(InputError, match="allowed: auto, cpu, cuda"):
        prepare_device("gpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_asking_for_a_gpu_that_is_not_there_says_so():
    with pytest.raises(InputError, match="torch sees no GPU"):
        prepare_device("cuda")


def test_a_prepared_device_is_deterministic_and_without_tf32():
    device = prepare_device("cpu")
    try:
        assert device == torch.device("cpu")
        assert torch.are_deterministic_algorithms_enabled()
        assert not torch.backends.cuda.matmul.allow_tf32
    finally:
        torch.use_deterministic_algorithms(False)


def test_keeping_freed_memory_works_on_any_platform(monkeypatch):
    keep_freed_memory()
    monkeypatch.setattr("sys.platform", "darwin")
    keep_freed_memory()
    assert torch.ones(10_000_000).sum() == 10_000_000
