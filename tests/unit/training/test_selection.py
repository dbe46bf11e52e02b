"""Which learning rate is selected."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hessketch.errors import InputError
from hessketch.training.selection import select_best


def _record(rate: float, accuracy: float, status: str = "finished") -> dict:
    return {"learning_rate": rate, "test_accuracy": accuracy, "status": status, "diverged_at": "epoch 1, step 2"}


def test_the_best_test_accuracy_wins():
    assert select_best([_record(0.1, 0.8), _record(0.01, 0.9)])["learning_rate"] == 0.01


def test_equal_accuracies_are_decided_for_the_smaller_rate():
    assert select_best([_record(0.1, 0.9), _record(0.05, 0.9), _record(0.2, 0.9)])["learning_rate"] == 0.05


def test_a_diverged_run_is_never_selected():
    assert select_best([_record(0.1, 1.0, "diverged"), _record(0.01, 0.2)])["learning_rate"] == 0.01


def test_if_all_diverged_the_error_names_each_rate():
    with pytest.raises(InputError, match=r"every learning rate diverged: 0\.1 \(epoch 1, step 2\), 0\.2"):
        select_best([_record(0.1, 0.5, "diverged"), _record(0.2, 0.5, "diverged")])


@given(st.lists(st.tuples(st.floats(1e-3, 1), st.floats(0, 1)), min_size=1, unique_by=lambda pair: pair[0]))
def test_the_order_of_the_candidates_does_not_matter(pairs):
    records = [_record(*pair) for pair in pairs]
    assert select_best(records) == select_best(records[::-1])
