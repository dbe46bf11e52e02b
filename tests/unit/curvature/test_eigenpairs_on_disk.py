"""Many eigenpairs of the Hessian of a network of half a million parameters, with their measurements on disk."""

import numpy as np
import pytest
import torch
from torch import nn

from hessketch.curvature.losses import mean_squared_error
from hessketch.curvature.measurement_files import MeasurementFiles
from hessketch.curvature.operators import hessian
from hessketch.linalg.sketched_eigh import SketchSettings, room_needed, sketched_eigh


def trained_hessian():
    """Of a perceptron trained for a few steps: ten outputs of ten examples, so that some 100 eigenvalues are large."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(784, 600), nn.ReLU(), nn.Linear(600, 50), nn.ReLU(), nn.Linear(50, 10))
    targets = torch.randint(0, 10, (10,))
    inputs = torch.randn(10, 784) + torch.randn(10, 784)[targets]
    steps = torch.optim.Adam(model.parameters(), 1e-3)
    for _ in range(16):
        steps.zero_grad()
        mean_squared_error(model(inputs), targets).mean().backward()
        steps.step()
    return hessian(model.eval(), mean_squared_error, [(inputs, targets)])


@pytest.mark.slow
def test_two_hundred_eigenpairs_of_half_a_million_parameters_stream_to_disk(tmp_path):
    operator = trained_hessian()
    p = operator.shape[0]
    assert p > 500_000
    settings = SketchSettings(pairs=200, measurements=206, probes=2, block=32)
    room = room_needed(p, settings, operator.dtype)
    memory = room.vectors + room.work
    assert memory < 0.6 * (room.columns + memory) and memory < 2**30  # what it would take without a disk
    found = sketched_eigh(operator, settings, 1, store=MeasurementFiles(tmp_path, "test"), memory=memory)
    assert found.products == 208 and len(found.values) > 180
    assert sum(path.stat().st_size for path in tmp_path.glob("*.columns")) == room.columns
    leading, values = found.vectors[:, :100], torch.from_numpy(found.values[:100]).float()
    residuals = (operator @ leading - leading * values).norm(dim=0)  # an eigenvalue lies within each of its value
    assert (residuals / values.abs())[:50].max() < 3e-3 and residuals.max() < 6e-3 * values[0]
    some = found.vectors[:, ::10]
    assert float((some.T @ some - torch.eye(some.shape[1])).abs().max()) < 1e-5
    assert (np.diff(np.abs(found.values)) <= 0).all()
