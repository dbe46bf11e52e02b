"""Random words that follow from a key: the same on every machine and in every version of torch."""

import numpy as np
from numpy.typing import NDArray

from hessketch.errors import InputError


def random_words(count: int, seed: int, *numbers: int) -> NDArray[np.uint64]:
    """`count` random uint64 that follow from a seed below 2^64 and numbers below 2^32 (a round, a row) alone.

    Philox4x64-10 (Salmon et al. 2011), a hash of a counter under a key: word i is a function of (key, i). It is integer
    arithmetic that NumPy promises not to change (NEP 19), so parties that share a seed share the words, and no
    generator's state has to be kept. Raises InputError for other keys.
    """
    if not 0 <= seed < 2**64 or any(not 0 <= number < 2**32 for number in numbers):
        raise InputError(f"key {(seed, *numbers)}; allowed: a seed from 0 below 2^64, then numbers from 0 below 2^32")
    return np.random.Philox(np.random.SeedSequence(seed, spawn_key=numbers)).random_raw(count)


def uniform_integers(words: NDArray[np.uint64], below: int) -> NDArray[np.int32]:
    """int32 in [0, below) from the upper halves of words; `below` is at most 2^31.

    By multiplication instead of a remainder; no value is likelier than another by more than 2^-32.
    """
    return (((words >> np.uint64(32)) * np.uint64(below)) >> np.uint64(32)).astype(np.int32)


def random_signs(words: NDArray[np.uint64]) -> NDArray[np.float32]:
    """float32 of 1 and -1 from the lowest bits of words."""
    return 1 - 2 * (words & np.uint64(1)).astype(np.float32)
