import math

import numpy as np
import pytest
import torch

from hessketch.errors import InputError
from hessketch.linalg.largest_eigenpairs import largest_eigenpairs


def with_spectrum(values: list[float], seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """A dense symmetric matrix with these eigenvalues, and its eigenvectors in their order."""
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.linalg.qr(torch.randn(len(values), len(values), generator=generator, dtype=torch.float64)).Q
    matrix = vectors * torch.tensor(values, dtype=torch.float64) @ vectors.T
    return (matrix + matrix.T) / 2, vectors


def rng(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


SPECTRUM = [5.0, 3.0, 2.0, 1.5, *np.linspace(-0.1, 0.1, 190).tolist(), -2.5, -4.0, -9.0]


def test_values_vectors_and_the_smallest_are_those_of_the_matrix():
    matrix, vectors = with_spectrum(SPECTRUM)
    found = largest_eigenpairs(matrix, 4, rng())
    assert found.converged and found.products < 100
    np.testing.assert_allclose(found.values, SPECTRUM[:4], rtol=1e-9)
    cosines = (found.vectors * vectors[:, :4]).sum(0).abs()
    assert (1 - cosines).max() < 1e-9
    assert found.smallest == pytest.approx(-9.0, rel=1e-6)


def test_the_trace_lies_within_its_error():
    matrix, _ = with_spectrum(SPECTRUM)
    found = largest_eigenpairs(matrix, 4, rng())
    assert 0 < found.trace.standard_error < 5  # of 196 eigenvalues; 32 if the negative end were left to chance
    assert abs(found.trace.value - sum(SPECTRUM)) < 4 * found.trace.standard_error


@pytest.mark.parametrize("count", [2, 3, 5])
def test_zeros_of_many_copies_are_found_once_and_counted_in_the_trace(count):
    matrix, _ = with_spectrum([4.0, 3.0, 1.0, *[0.0] * 195, -2.0, -1.0])
    found = largest_eigenpairs(matrix, count, rng())
    np.testing.assert_allclose(found.values, [4.0, 3.0, 1.0, 0.0, -1.0][:count], rtol=1e-9, atol=found.rounding)
    assert found.rounding < 1e-11 and found.products < 20
    assert abs(found.trace.value - 5) < 4 * found.trace.standard_error + 1e-9


def test_a_run_of_all_steps_knows_the_trace():
    values = [4.0, 2.0, 1.0, -1.0, -3.0]
    found = largest_eigenpairs(with_spectrum(values)[0], 5, rng())
    np.testing.assert_allclose(found.values, values, rtol=1e-12)
    assert found.trace.value == pytest.approx(3.0, rel=1e-12) and found.trace.standard_error == 0


def test_too_few_steps_give_fewer_pairs_and_no_smallest():
    matrix, _ = with_spectrum(np.linspace(-1, 1, 300).tolist())
    found = largest_eigenpairs(matrix, 3, rng(), max_steps=8)
    assert not found.converged and len(found.values) < 3 and math.isnan(found.smallest)


def test_a_count_beyond_the_dimension_and_too_little_memory_are_refused():
    matrix, _ = with_spectrum(SPECTRUM)
    with pytest.raises(InputError, match="allowed: 1 to 197"):
        largest_eigenpairs(matrix, 198, rng())
    with pytest.raises(InputError, match="more memory"):
        largest_eigenpairs(matrix, 4, rng(), memory=1000)
