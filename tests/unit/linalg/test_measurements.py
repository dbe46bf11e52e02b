import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.fft import dct

from hessketch.errors import InputError
from hessketch.linalg.measurements import MEASUREMENTS, measurements

KINDS = pytest.mark.parametrize("kind", MEASUREMENTS)


def made(kind: str, p: int, m: int, seed: int = 0, dtype: torch.dtype = torch.float64):
    return measurements(kind, p, m, seed, dtype=dtype)


def whole(omega) -> torch.Tensor:
    return omega.columns(0, omega.shape[1])


@KINDS
def test_the_expected_square_is_m_times_the_identity(kind):
    p, m, draws = 9, 4, 1200
    squares = torch.stack([w @ w.T for w in (whole(made(kind, p, m, seed)) for seed in range(draws))])
    error = squares.std(dim=0) / draws**0.5
    off = (squares.mean(dim=0) - m * torch.eye(p, dtype=torch.float64)).abs()
    assert (off <= 4 * error + 1e-9).all()
    assert error.max() < 0.1 * m


@given(st.sampled_from(MEASUREMENTS), st.integers(1, 90), st.integers(1, 40), st.integers(0, 2**40))
def test_the_adjoint_is_the_transpose(kind, p, m, seed):
    omega = made(kind, p, min(m, p), seed)
    block = torch.randn(p, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    torch.testing.assert_close(omega.adjoint(block), whole(omega).T @ block, rtol=1e-10, atol=1e-10)


@given(st.sampled_from(MEASUREMENTS), st.integers(2, 60), st.data())
def test_some_columns_are_those_of_the_whole(kind, p, data):
    omega = made(kind, p, p, 7)
    first = data.draw(st.integers(0, p - 1))
    last = data.draw(st.integers(first + 1, p))
    torch.testing.assert_close(omega.columns(first, last), whole(omega)[:, first:last], rtol=0, atol=1e-14)


def test_trigonometric_columns_are_signed_columns_of_the_cosine_transform():
    p = 60  # a fast length itself
    columns = whole(made("trigonometric", p, p, 3)).numpy() / p**0.5
    basis = dct(np.eye(p), norm="ortho", axis=0).T  # column f of frequency f
    constant = np.argmin(np.ptp(np.abs(columns), axis=0))  # the column of frequency 0 shows the signs
    signs = np.sign(columns[:, constant])
    matches = np.abs(basis.T @ (signs[:, None] * columns))
    np.testing.assert_allclose(np.sort(matches, axis=None)[-p:], 1, atol=1e-12)  # every frequency once
    np.testing.assert_allclose(matches.sum(axis=0), 1, atol=1e-10)


def test_a_count_sketch_column_holds_each_coordinate_of_its_bucket():
    columns = whole(made("count_sketch", 50, 4))
    assert ((columns != 0).sum(dim=1) == 1).all()
    torch.testing.assert_close(columns.abs().sum(dim=1), torch.full((50,), 2.0, dtype=torch.float64))


@KINDS
def test_float32_maps_are_the_float64_ones_rounded(kind):
    a, b = made(kind, 999, 20, 5), made(kind, 999, 20, 5, torch.float32)
    assert b.columns(0, 2).dtype == torch.float32
    torch.testing.assert_close(whole(b).double(), whole(a), rtol=0, atol=3e-6)
    x = torch.ones(999, 2)
    torch.testing.assert_close(b.adjoint(x).double(), a.adjoint(x.double()), rtol=0, atol=1e-3)


@KINDS
def test_another_seed_gives_other_columns_and_the_same_seed_the_same(kind):
    first, second = whole(made(kind, 40, 10, 1)), whole(made(kind, 40, 10, 2))
    assert (first - second).norm() > 0.5 * first.norm()
    assert torch.equal(first, whole(made(kind, 40, 10, 1)))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("gausian", 5, 2), "nearest valid name: gaussian"),
        (("gaussian", 5, 6), "at most"),
        (("gaussian", 5, 0), "from 1"),
    ],
)
def test_unknown_kinds_and_sizes_are_refused(arguments, said):
    with pytest.raises(InputError, match=said):
        made(*arguments)


@KINDS
def test_a_block_of_another_height_is_refused(kind):
    with pytest.raises(InputError, match=r"allowed: \(9, k\)"):
        made(kind, 9, 3).adjoint(torch.ones(8, 1, dtype=torch.float64))
