"""What a test registers is forgotten after it."""

import sys

import pytest

from hessketch import extensions


@pytest.fixture(autouse=True)
def _nothing_registered(monkeypatch):
    monkeypatch.setattr(extensions, "_registered", {kind: {} for kind in extensions.KINDS})
    monkeypatch.setattr(extensions, "_makers", {})
    monkeypatch.setattr(extensions, "_digests", {})
    monkeypatch.setenv(extensions.VARIABLE, "")
    modules, path = set(sys.modules), list(sys.path)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        if name.startswith("my_"):
            del sys.modules[name]
