"""torchvision is imported beside any torch, and left alone where it imports by itself."""

import subprocess
import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch

from hessketch.data import torchvision_import

MISSING = "operator torchvision::nms does not exist"


class Recorder:
    """Stands for torch.library.Library and for the import that works once the operators are declared."""

    def __init__(self):
        self.declared = []
        self.imports = 0

    def library(self, namespace, kind):
        assert (namespace, kind) == ("torchvision", "FRAGMENT")
        return SimpleNamespace(define=self.declared.append)

    def import_or_fail(self):
        self.imports += 1
        if not self.declared:
            raise RuntimeError(MISSING)
        return "the module"


@pytest.fixture
def recorder(monkeypatch):
    recorder = Recorder()
    monkeypatch.setattr(torch.library, "Library", recorder.library)
    monkeypatch.setattr(torchvision_import, "_declared", [])
    return recorder


def test_torchvision_and_its_data_sets_can_be_imported_here():
    module = torchvision_import.import_torchvision()
    assert isinstance(module, ModuleType)
    assert module.__name__ == "torchvision"
    assert callable(module.datasets.mnist.read_image_file)
    assert torchvision_import.import_torchvision() is module


def test_in_a_fresh_process_operators_are_declared_exactly_where_the_plain_import_fails():
    code = """
try:
    import torchvision.datasets
    plain = True
except RuntimeError:
    plain = False
from hessketch.data import torchvision_import
torchvision_import.import_torchvision().datasets.CIFAR10
assert bool(torchvision_import._declared) != plain, (torchvision_import._declared, plain)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_nothing_is_declared_where_torchvision_loads_by_itself(recorder, monkeypatch):
    monkeypatch.setattr(torchvision_import, "_import", lambda: "the module")
    before = set(sys.modules)
    assert torchvision_import.import_torchvision() == "the module"
    assert recorder.declared == []
    assert torchvision_import._declared == []
    assert before <= set(sys.modules)


def test_a_missing_operator_is_declared_and_half_imported_modules_are_forgotten(recorder, monkeypatch):
    modules = {"torchvision": 0, "torchvision.ops": 0, "torchvision_extra": 0, "torch": 0}
    monkeypatch.setattr(torchvision_import, "sys", SimpleNamespace(modules=modules))
    monkeypatch.setattr(torchvision_import, "_import", recorder.import_or_fail)
    assert torchvision_import.import_torchvision() == "the module"
    assert [schema.split("(")[0] for schema in recorder.declared] == ["nms", "qnms"]
    assert set(modules) == {"torchvision_extra", "torch"}
    assert len(torchvision_import._declared) == 1  # kept alive
    assert torchvision_import.import_torchvision() == "the module"
    assert len(recorder.declared) == 2


@pytest.mark.parametrize("error", [RuntimeError("compiled with different CUDA major versions"), ImportError("no PIL")])
def test_any_other_failure_is_passed_on(recorder, monkeypatch, error):
    def fail():
        raise error

    monkeypatch.setattr(torchvision_import, "_import", fail)
    with pytest.raises(type(error), match=str(error)):
        torchvision_import.import_torchvision()
    assert recorder.declared == []


def test_a_failure_that_declaring_did_not_cure_is_passed_on(recorder, monkeypatch):
    def fail():
        raise RuntimeError(MISSING)

    monkeypatch.setattr(torchvision_import, "sys", SimpleNamespace(modules={}))
    monkeypatch.setattr(torchvision_import, "_import", fail)
    for _ in range(2):
        with pytest.raises(RuntimeError, match=MISSING):
            torchvision_import.import_torchvision()
    assert len(recorder.declared) == 2  # once, not again
