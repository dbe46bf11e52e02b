"""Linear maps of `linalg`, and of linear federated methods: linear, and backwards the transpose of forwards."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hessketch.federated.methods.registry import build_method
from hessketch.federated.settings import FederatedSettings
from hessketch.linalg.count_sketch import CountSketch
from hessketch.linalg.deflation import Eigenpairs, deflate
from hessketch.linalg.measurements import measurements
from hessketch.linalg.sketch_sizes import MEASUREMENTS
from hessketch.trainers import Trainer

P = 90


def sketch(rows, placement):
    """A Count-Sketch, and its lift by the mean, which is its transpose over the number of rows."""

    def build(seed):
        made = CountSketch(P, rows, 10, seed=seed, placement=placement)
        return made.apply, lambda table: rows * made.lift(table)

    return build


def measured(kind):
    """Omega^T, and Omega by its columns."""

    def build(seed):
        omega = measurements(kind, P, 20, seed, dtype=torch.float64)
        return lambda x: omega.adjoint(x[:, None])[:, 0], lambda y: omega.columns(0, 20) @ y

    return build


def deflated(seed):
    """A symmetric operator without three directions, which need not be its eigenvectors to be symmetric."""
    matrix = normal((P, P), seed)
    values = np.array([3.0, -2.0, 1.0])
    pairs = Eigenpairs(values, torch.linalg.qr(normal((P, 3), seed + 1))[0], 0 * values, abs(values))
    operator = deflate(matrix + matrix.T, pairs)
    return (operator.__matmul__,) * 2


def sent(label):
    """What a client's update becomes at the server. Its transpose is not asked for: hashes of a sum are its own."""

    def build(seed):
        method = build_method(Trainer.parse(label), P, FederatedSettings(), seed)
        return lambda x: method.decode(method.encode(x, 2), 2), None

    return build


MAPS = {f"sketch, {rows} rows, {placed}": sketch(rows, placed) for rows in (1, 3) for placed in ("hash", "shift")}
MAPS |= {f"measurements, {kind}": measured(kind) for kind in MEASUREMENTS}
MAPS |= {"deflated operator": deflated}
MAPS |= {f"method {label}": sent(label) for label in ("uncompressed", "count_sketch-x5", "count_sketch_ef-x5")}
numbers = st.floats(-10, 10)
seeds = st.integers(0, 2**31)


def normal(shape, seed):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("name", MAPS)
@settings(max_examples=15)
@given(seed=seeds, a=numbers, b=numbers)
def test_a_map_is_linear(name, seed, a, b):
    forwards, _ = MAPS[name](seed % 50)
    x, y = normal(P, seed), normal(P, seed + 1)
    torch.testing.assert_close(forwards(a * x + b * y), a * forwards(x) + b * forwards(y), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", [name for name in MAPS if not name.startswith("method")])
@settings(max_examples=15)
@given(seed=seeds)
def test_backwards_is_the_transpose_of_forwards(name, seed):
    forwards, backwards = MAPS[name](seed % 50)
    x = normal(P, seed)
    image = forwards(x)
    y = normal(image.shape, seed + 1)
    torch.testing.assert_close((image * y).sum(), x @ backwards(y), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", MAPS)
def test_a_map_is_the_matrix_of_its_images_of_the_coordinates(name):
    """A dense oracle: the matrix, taken column by column, gives the same, forwards and backwards."""
    forwards, backwards = MAPS[name](7)
    matrix = torch.stack([forwards(e).flatten() for e in torch.eye(P, dtype=torch.float64)], 1)
    x = normal(P, 0)
    image = forwards(x)
    torch.testing.assert_close(image.flatten(), matrix @ x, rtol=1e-10, atol=1e-10)
    if backwards is not None:
        y = normal(image.shape, 1)
        torch.testing.assert_close(backwards(y), matrix.T @ y.flatten(), rtol=1e-10, atol=1e-10)
