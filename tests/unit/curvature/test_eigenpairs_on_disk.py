"""Many eigenpairs of the Hessian of a network of half a million parameters, with their measurements on disk."""

import numpy as np
import pytest
import torch
from torch import nn

from hessketch.curvature.losses import cross_entropy
from hessketch.curvature.measurement_files import MeasurementFiles
from hessketch.curvature.operators import hessian
from hessketch.linalg.sketched_eigh import SketchSettings, room_needed, sketched_eigh


def trained_hessian():
    """Of a perceptron after a few steps of training on ten noisy classes."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 200), nn.ReLU(), nn.Linear(200, 10))
    targets = torch.randint(0, 10, (20,))
    inputs = torch.randn(20, 784) + torch.randn(10, 784)[targets]
    steps = torch.optim.Adam(model.parameters(), 1e-3)
    for _ in range(7):
        steps.zero_grad()
        cross_entropy(model(inputs), targets).mean().backward()
        steps.step()
    return hessian(model.eval(), cross_entropy, [(inputs, targets)])


@pytest.mark.slow
def test_two_hundred_eigenpairs_of_half_a_million_parameters_stream_to_disk(tmp_path):
    operator = trained_hessian()
    p = operator.shape[0]
    assert p > 500_000
    settings = SketchSettings(pairs=200, measurements=212, passes=2, probes=2, block=32)
    room = room_needed(p, settings, operator.dtype)
    memory = room.vectors + room.work
    assert memory < 0.6 * (room.columns + memory) and memory < 2**30  # what it would take without a disk
    found = sketched_eigh(operator, settings, 1, store=MeasurementFiles(tmp_path, "test"), memory=memory)
    assert found.products == 214 and len(found.values) == 200
    assert sum(path.stat().st_size for path in tmp_path.glob("*.columns")) == room.columns
    leading, values = found.vectors[:, :5], torch.from_numpy(found.values[:5]).float()
    residuals = (operator @ leading - leading * values).norm(dim=0) / values.abs()
    assert residuals[0] < 0.02 and residuals.max() < 0.3
    some = found.vectors[:, ::10]
    assert float((some.T @ some - torch.eye(some.shape[1])).abs().max()) < 1e-5
    assert (np.diff(np.abs(found.values)) <= 0).all()
