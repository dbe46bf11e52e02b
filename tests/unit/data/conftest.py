"""Data sets whose catalog entries are made small."""

from dataclasses import replace

import pytest
from small_files import small_split

from hessketch.data import catalog
from hessketch.data.catalog import DATASETS


@pytest.fixture
def small(monkeypatch):
    """Makes the data set of a name small in the catalog and gives its content: split -> (images, labels)."""
    monkeypatch.delitem(catalog._DEBIAN_FOLDERS, "fashion_mnist")

    def shrink(name):
        train, test = (10, 5) if name == "cifar10" else (2, 1)
        full = DATASETS[name]
        of_train, of_test = (train,) * full.classes, (test,) * full.classes
        monkeypatch.setitem(DATASETS, name, replace(full, train_per_class=of_train, test_per_class=of_test))
        return {"train": small_split(full, of_train, seed=0), "test": small_split(full, of_test, seed=1)}

    return shrink
