"""Figures are drawn from the same synthetic tables that the studies are tested on."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "studies"))
from pathlib import Path

import pytest
from sketched_studies import study
from synthetic_federation import (
    COMPARED,
    NAMED,
)


@pytest.fixture(scope="package")
def full():
    return study((0, 1, 2), (2.5, 10.0, 100.0, 1000.0))


@pytest.fixture(scope="package")
def small():
    """One seed, one reduction, two methods, the train split."""
    return study((0,), (10.0,), NAMED[:3], COMPARED[:2], ("train",))
