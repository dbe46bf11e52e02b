"""Methods of one size, and vectors to send."""

import pytest
import torch

from hessketch.federated.methods.registry import build_method
from hessketch.federated.settings import FederatedSettings
from hessketch.trainers import Trainer

DIMENSION, SEED = 1200, 21
SETTINGS = {
    "": FederatedSettings(),
    "three rows shifted": FederatedSettings(rows=3, placement="shift"),
    "fixed hashes": FederatedSettings(hashes="fixed", placement="shift"),
    "as in the public code": FederatedSettings(fetch_momentum=0.9, fetch_rate="after"),
    "as published": FederatedSettings(fetch_momentum=0.9, fetch_masking=False, fetch_error="subtract"),
}
LABELS = (
    "uncompressed",
    "count_sketch-x10",
    "count_sketch_ef-x10",
    "top_r-x10",
    "top_r_ef-x2.5",
    "fetch_sgd-x10",
    "fetch_sgd_ef-x10",
)
every_method = pytest.mark.parametrize("label", LABELS)
every_setting = pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)


def build(label, settings=SETTINGS[""], dimension=DIMENSION, seed=SEED):
    return build_method(Trainer.parse(label), dimension, settings, seed)


def random_vector(dimension=DIMENSION, seed=0, dtype=torch.float32):
    return torch.randn(dimension, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def heavy_vector(places, size=10.0, noise=0.02, dimension=DIMENSION):
    x = noise * random_vector(dimension, 5)
    x[places] = size * (1 - 2 * (torch.arange(len(places)) % 2)).float()
    return x


def tables(method):
    return method.state()["momentum"][0].tolist(), method.state()["error"][0].tolist()
