"""The largest entries, against a stable sort: ties, infinities, NaN, values whose squares underflow."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hessketch.errors import InputError, NotFiniteError
from hessketch.linalg.largest import keep_largest, largest_entries

# Few different magnitudes, so that there are many ties; zeros of both signs, subnormals, infinities.
entries = st.sampled_from([0.0, -0.0, 1.0, -1.0, 2.0, -2.0, 1e-40, 1e-30, -1e-30, math.inf, -math.inf]) | st.floats(
    allow_nan=False, width=32
)
vectors = st.lists(entries, min_size=1, max_size=30)


def by_stable_sort(vector, count):
    """Indices of the largest magnitudes: a stable sort of the negated ones leaves ties in the order of indices."""
    return np.sort(np.argsort(-np.abs(vector.numpy()), kind="stable")[:count])


@settings(max_examples=300, deadline=None)
@given(vectors, st.data(), st.sampled_from([torch.float32, torch.float64]))
def test_the_largest_entries_are_those_that_a_stable_sort_puts_first(values, data, dtype):
    vector = torch.tensor(values, dtype=dtype)
    count = data.draw(st.integers(1, len(values)))
    chosen = largest_entries(vector, count)
    assert chosen.dtype == torch.int64
    assert chosen.tolist() == by_stable_sort(vector, count).tolist()


def test_of_many_equal_entries_those_of_lower_index_are_taken():
    """Long enough for every algorithm behind torch.topk, which promises nothing about ties."""
    vector = torch.ones(100_000)
    vector[1::2] = -1
    assert torch.equal(largest_entries(vector, 777), torch.arange(777))
    vector[[50_000, 99_999]] = torch.tensor([-3.0, 2.0])
    assert largest_entries(vector, 5).tolist() == [0, 1, 2, 50_000, 99_999]


def test_a_long_vector_equals_the_stable_sort():
    vector = torch.randn(200_000, generator=torch.Generator().manual_seed(0)).mul_(10).round_()
    for count in (1, 10, 5_000, 199_999, 200_000):
        assert largest_entries(vector, count).tolist() == by_stable_sort(vector, count).tolist()


def test_magnitudes_whose_squares_underflow_are_told_apart():
    vector = torch.tensor([1e-30, -3e-30, 2e-30, 0.0, -1e-30])
    assert (vector.square() == 0).all()
    assert largest_entries(vector, 2).tolist() == [1, 2]
    assert torch.equal(keep_largest(vector, 2), torch.tensor([0, -3e-30, 2e-30, 0, 0]))


def test_infinities_are_the_largest():
    assert largest_entries(torch.tensor([1.0, -math.inf, 5.0, math.inf]), 2).tolist() == [1, 3]
    assert largest_entries(torch.tensor([1.0, -math.inf, 5.0, math.inf]), 3).tolist() == [1, 2, 3]


@pytest.mark.parametrize("count", [1, 3])
def test_nan_is_refused_wherever_it_is(count):
    for place in range(3):
        vector = torch.ones(3)
        vector[place] = math.nan
        with pytest.raises(NotFiniteError, match=r"^NaN among the entries to choose the largest from$"):
            largest_entries(vector, count)
        with pytest.raises(NotFiniteError):
            keep_largest(vector, count)


@pytest.mark.parametrize("count", [-1, 0, 4])
def test_counts_out_of_range_are_refused_with_the_range(count):
    with pytest.raises(InputError) as caught:
        largest_entries(torch.ones(3), count)
    assert str(caught.value) == f"the {count} largest of 3 entries asked for; allowed: 1 to 3"


def test_no_entry_can_be_chosen_of_none():
    with pytest.raises(InputError, match="the 1 largest of 0 entries"):
        largest_entries(torch.ones(0), 1)


@settings(max_examples=100, deadline=None)
@given(vectors, st.data())
def test_what_is_kept_is_kept_as_it_is_and_the_vector_too(values, data):
    vector = torch.tensor(values)
    before = vector.clone()
    count = data.draw(st.integers(1, len(values)))
    kept, chosen = keep_largest(vector, count), largest_entries(vector, count)
    assert torch.equal(vector, before)
    assert torch.equal(kept[chosen], vector[chosen])
    others = torch.ones(len(values), dtype=torch.bool)
    others[chosen] = False
    assert (kept[others] == 0).all()
    assert kept.data_ptr() != vector.data_ptr()


def test_all_entries_kept_are_a_copy():
    vector = torch.tensor([3.0, 0.0, -1.0])
    assert torch.equal(keep_largest(vector, 3), vector)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_ties_are_resolved_on_a_gpu_as_on_the_cpu():
    vector = torch.randn(300_000, generator=torch.Generator().manual_seed(1)).mul_(3).round_()
    for count in (1, 100, 10_000, 150_000):
        assert torch.equal(largest_entries(vector.cuda(), count).cpu(), largest_entries(vector, count))
