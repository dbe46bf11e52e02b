"""Examples and trainings that followed runs share."""

import pytest
from followed_runs_cases import RUN, trained

from hessketch.data.prepared import prepare_dataset


@pytest.fixture(scope="package")
def data():
    """Prepared data by name, made when asked for."""
    made = {}

    def prepared(name):
        if name not in made:
            made[name] = prepare_dataset(name, "absent")
        return made[name]

    return prepared


@pytest.fixture
def training(data, tmp_path):
    return lambda *runs, folder="", **options: trained(data, tmp_path / folder, runs or (RUN,), **options)
