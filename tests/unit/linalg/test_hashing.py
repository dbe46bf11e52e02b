"""Words that follow from their key alone, and the integers and signs made of them."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from hessketch.errors import InputError
from hessketch.linalg.hashing import random_signs, random_words, uniform_integers

numbers = st.lists(st.integers(0, 2**32 - 1), max_size=4)
seeds = st.integers(0, 2**64 - 1)


def test_words_are_those_written_down_here():
    """Parties with different versions of NumPy, or of this code, must not stop sharing their hashes unnoticed."""
    assert random_words(3, 7, 2, 1, 0).tolist() == [11181165561233571664, 10704566803326059729, 2814825447733789390]
    assert random_words(2, 2**64 - 1).tolist() == [10924362251224890726, 17368330293776168947]


def test_integers_and_signs_of_given_words():
    words = np.array([0, 1, 2**63, 2**64 - 1, (2**62) | 1], dtype=np.uint64)
    assert uniform_integers(words, 10).tolist() == [0, 0, 5, 9, 2]
    assert random_signs(words).tolist() == [1, -1, 1, -1, -1]
    assert uniform_integers(words, 2**31).tolist() == [0, 0, 2**30, 2**31 - 1, 2**29]
    assert uniform_integers(words, 10).dtype == np.int32
    assert random_signs(words).dtype == np.float32


@settings(max_examples=50, deadline=None)
@given(seeds, numbers, st.integers(0, 20), st.integers(0, 20))
def test_a_key_has_one_stream_however_much_of_it_is_asked_for(seed, rest, few, more):
    words = random_words(few + more, seed, *rest)
    assert words.dtype == np.uint64
    assert np.array_equal(words[:few], random_words(few, seed, *rest))


@settings(max_examples=200, deadline=None)
@given(st.tuples(seeds, numbers), st.tuples(seeds, numbers))
def test_different_keys_have_different_words(one, other):
    """Two words of 64 bits: among 2^128 values none of some hundred keys meet by chance."""
    same = np.array_equal(random_words(2, one[0], *one[1]), random_words(2, other[0], *other[1]))
    assert same == (one == other)


def test_a_seed_does_not_run_into_the_numbers_behind_it():
    """Keys that would be equal if their digits were only strung together."""
    keys = [(1, 2), (1 + 2**32 * 2,), (1, 0, 2), (1, 2, 0), (2, 1), (1,), (1, 0), (1, 0, 0)]
    assert len({tuple(random_words(2, *key).tolist()) for key in keys}) == len(keys)


@pytest.mark.parametrize("below", [2, 3, 10, 1000])
def test_integers_are_uniform(below):
    counts = np.bincount(uniform_integers(random_words(200_000, 3, below), below), minlength=below)
    assert len(counts) == below
    assert stats.chisquare(counts).pvalue > 1e-4


def test_signs_are_fair_and_independent_of_the_integers():
    words = random_words(200_000, 5)
    table = stats.contingency.crosstab(uniform_integers(words, 8), random_signs(words)).count
    assert table.shape == (8, 2)
    assert stats.chisquare(table.ravel()).pvalue > 1e-4


def test_neighbouring_words_and_keys_are_uncorrelated():
    """A correlation of n independent pairs has standard deviation 1 / sqrt(n)."""
    n = 100_000
    words = np.stack([random_words(n + 1, 9, key) for key in range(4)]).astype(np.float64)
    streams = [words[0][:-1], words[0][1:], *(word[:-1] for word in words[1:])]
    correlations = np.corrcoef(streams)[np.triu_indices(len(streams), 1)]
    assert np.abs(correlations).max() < 4.5 / np.sqrt(n)


@pytest.mark.parametrize("key", [(-1,), (2**64,), (0, -1), (0, 2**32), (3, 1, 2, 2**40)])
def test_keys_out_of_range_are_refused_with_the_range(key):
    with pytest.raises(InputError) as caught:
        random_words(1, *key)
    assert str(caught.value) == f"key {key}; allowed: a seed from 0 below 2^64, then numbers from 0 below 2^32"


def test_no_global_generator_is_touched():
    before, numpy_before = torch.get_rng_state(), np.random.get_state()
    random_words(10, 1, 2, 3)
    assert torch.equal(before, torch.get_rng_state())
    assert all(np.array_equal(a, b) for a, b in zip(numpy_before, np.random.get_state(), strict=True))
