"""All eigenvalues and leading eigenvectors of symmetric matrices of planted spectra, whatever their rank and signs."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hessketch.errors import InputError, NotFiniteError
from hessketch.linalg import dense_eigenpairs as module
from hessketch.linalg.dense_eigenpairs import ORDERS, dense_eigenpairs, rounding_of


def planted(values: Tensor, seed: int = 0) -> Tensor:
    """A symmetric matrix of these eigenvalues."""
    generator = torch.Generator().manual_seed(seed)
    q = torch.linalg.qr(torch.randn(len(values), len(values), generator=generator, dtype=torch.float64)).Q
    matrix = q @ (values[:, None] * q.T)
    return (matrix + matrix.T) / 2


def assert_eigenpairs(matrix: Tensor, k: int, by: str, atol: float = 1e-12) -> None:
    kept, expected = matrix.clone(), np.linalg.eigvalsh(matrix.numpy())
    everything, values, vectors = dense_eigenpairs(matrix, k, by)
    np.testing.assert_allclose(everything.numpy(), expected, atol=atol)
    if by == "value":
        np.testing.assert_allclose(values.numpy(), expected[::-1][:k], atol=atol)
    else:
        np.testing.assert_allclose(np.abs(values.numpy()), np.sort(np.abs(expected))[::-1][:k], atol=atol)
    np.testing.assert_allclose(matrix @ vectors, vectors * values, atol=atol)
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(k), atol=atol)
    assert torch.equal(matrix, kept)


@pytest.mark.parametrize("by", ORDERS)
@settings(max_examples=40)
@given(p=st.integers(1, 40), share=st.floats(0, 1), rank=st.floats(0, 1), seed=st.integers(0, 100))
def test_a_matrix_of_any_rank_gives_back_its_leading_eigenpairs_and_stays(by, p, share, rank, seed):
    values = torch.zeros(p, dtype=torch.float64)
    rank = round(rank * p)
    values[:rank] = torch.randn(rank, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_WHOLE_UP_TO", 2)
        assert_eigenpairs(planted(values, seed), max(1, round(share * p)), by)


@pytest.mark.parametrize("by", ORDERS)
@pytest.mark.parametrize("rank", [0, 3, 300])
def test_a_large_matrix_is_decomposed_in_place_and_put_together_again(by, rank, monkeypatch):
    values = torch.zeros(300, dtype=torch.float64)
    values[:rank] = torch.linspace(3, -1, 300, dtype=torch.float64)[:rank]
    monkeypatch.setattr(module._restore, "__defaults__", (128,))  # several blocks
    assert_eigenpairs(planted(values), 4, by)


@pytest.mark.parametrize("by", ORDERS)
def test_wanted_from_both_ends_come_in_their_order(by, monkeypatch):
    monkeypatch.setattr(module, "_WHOLE_UP_TO", 2)
    values = torch.zeros(30, dtype=torch.float64)
    values[:6] = torch.tensor([5.0, -4.0, 3.0, -2.0, 1.0, -0.5])
    _, found, _ = dense_eigenpairs(planted(values), 3, by)
    assert found.tolist() == pytest.approx({"magnitude": [5, -4, 3], "value": [5, 3, 1]}[by])
    assert_eigenpairs(planted(values), 7, by)  # more than there are: zeros among them


@pytest.mark.parametrize("signs", [1, -1])
@pytest.mark.parametrize("whole_up_to", [2, 256])
def test_a_definite_matrix_has_its_largest_magnitudes_at_one_end(signs, whole_up_to, monkeypatch):
    monkeypatch.setattr(module, "_WHOLE_UP_TO", whole_up_to)
    matrix = torch.diag(signs * torch.arange(1.0, 31, dtype=torch.float64))
    _, values, vectors = dense_eigenpairs(matrix, 3)
    assert values.tolist() == pytest.approx([signs * 30, signs * 29, signs * 28])
    assert vectors.abs()[[29, 28, 27], [0, 1, 2]].tolist() == pytest.approx([1, 1, 1])


def test_lapack_takes_the_threads_of_torch_and_gives_them_back(monkeypatch):
    from threadpoolctl import threadpool_info

    def threads() -> set[int]:
        return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}

    seen, before, reduction = [], threads(), module.lapack.dsytrd

    def watched(*arguments, **options):
        seen.append(threads())
        return reduction(*arguments, **options)

    monkeypatch.setattr(module.lapack, "dsytrd", watched)
    monkeypatch.setattr(module.torch, "get_num_threads", lambda: 1)
    assert_eigenpairs(planted(torch.arange(300.0, dtype=torch.float64)), 2, "value", atol=1e-9)
    assert seen == [{1}] and threads() == before


def test_rounding_is_that_of_the_size_and_the_largest_magnitude():
    eps = np.finfo(float).eps
    assert rounding_of(np.array([1.0, -3.0, 0.0])) == rounding_of(torch.tensor([1.0, -3.0, 0.0])) == 9 * eps
    values = torch.zeros(400, dtype=torch.float64)
    values[:5] = torch.arange(1.0, 6)
    found, _, _ = dense_eigenpairs(planted(values), 5)
    assert int((found.abs() > rounding_of(found)).sum()) == 5


def test_what_has_no_such_eigenpairs_is_refused():
    with pytest.raises(InputError, match="allowed: 1 to 3, float64"):
        dense_eigenpairs(torch.eye(3), 1)
    with pytest.raises(InputError, match="4 eigenpairs of a 3 x 3 matrix"):
        dense_eigenpairs(torch.eye(3, dtype=torch.float64), 4)
    with pytest.raises(InputError, match="by is 'size'; allowed: magnitude, value"):
        dense_eigenpairs(torch.eye(3, dtype=torch.float64), 1, "size")
    with pytest.raises(NotFiniteError, match="a 3 x 3 matrix holds NaN"):
        dense_eigenpairs(torch.full((3, 3), torch.nan, dtype=torch.float64), 1)
