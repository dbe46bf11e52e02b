"""Inner products, start vectors and the checks every algorithm begins with."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from known_spectra import generator

from hessketch.errors import InputError
from hessketch.linalg.vectors import (
    column_dots,
    dimension,
    dot,
    norm,
    random_unit_vector,
    random_vectors,
    require_at_least,
)


def test_the_dimension_is_that_of_a_square_operator():
    assert dimension(torch.zeros(3, 3)) == 3


@pytest.mark.parametrize("shape", [(3, 2), (0, 0), (3,), (2, 2, 2)])
def test_an_operator_that_is_not_square_or_is_empty_has_no_dimension(shape):
    with pytest.raises(InputError, match="shape"):
        dimension(torch.zeros(shape))


@pytest.mark.parametrize("number", [1, 2.0, True, "3"])
def test_counts_must_be_integers_from_the_minimum(number):
    require_at_least(2, steps=2)
    with pytest.raises(InputError, match=r"steps is .*integers from 2"):
        require_at_least(2, steps=number)


def test_inner_products_of_float32_add_up_in_float64_across_chunks():
    n = 2**21 + 3
    vector = torch.full((n,), 0.1, dtype=torch.float32)
    exact = n * vector[0].item() ** 2
    assert dot(vector, vector).dtype == torch.float64
    assert dot(vector, vector).item() == pytest.approx(exact, rel=1e-10)
    assert norm(vector).item() == pytest.approx(math.sqrt(exact), rel=1e-10)


def test_long_vectors_pair_their_own_entries():
    n = 2**20 + 5
    a, b = torch.zeros(n), torch.zeros(n)
    a[-1], b[-1], a[0], b[0], a[7] = 3.0, 5.0, 2.0, 4.0, 9.0
    assert dot(a, b).item() == 3 * 5 + 2 * 4


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=8))
def test_the_norm_is_the_euclidean_length(entries):
    assert norm(torch.tensor(entries, dtype=torch.float64)).item() == pytest.approx(
        math.hypot(*entries), rel=1e-14, abs=1e-100
    )


def test_column_dots_are_the_diagonal_of_the_product():
    a, b = torch.randn(2, 6, 3, generator=generator(), dtype=torch.float64)
    assert torch.allclose(column_dots(a, b), torch.diag(a.T @ b), atol=1e-14)


def test_a_seed_gives_the_same_start_in_every_precision():
    double = random_vectors(torch.zeros(5, 5, dtype=torch.float64), 2, generator(3))
    single = random_vectors(torch.zeros(5, 5, dtype=torch.float32), 2, generator(3))
    assert double.shape == (5, 2)
    assert double.dtype == torch.float64 and single.dtype == torch.float32
    assert torch.equal(double, single.double())


def test_random_vectors_leave_the_global_generator_alone():
    before = torch.get_rng_state()
    random_unit_vector(torch.zeros(4, 4), generator())
    assert torch.equal(before, torch.get_rng_state())


def test_a_random_direction_has_length_one():
    vector = random_unit_vector(torch.zeros(50, 50, dtype=torch.float64), generator(1))
    assert vector.shape == (50,)
    assert norm(vector).item() == pytest.approx(1, abs=1e-14)


def test_random_directions_prefer_no_side():
    operator, source = torch.zeros(3, 3, dtype=torch.float64), generator(2)
    vectors = torch.stack([random_unit_vector(operator, source) for _ in range(3000)])
    # The mean of an entry has standard deviation 1 / sqrt(3 * 3000) = 0.0105, that of its square 0.0054.
    assert vectors.mean(0).abs().max() < 0.05
    assert (vectors**2).mean(0).sub(1 / 3).abs().max() < 0.03
