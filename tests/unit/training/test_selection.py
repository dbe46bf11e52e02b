"""Which learning rate is selected."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hessketch.errors import InputError
from hessketch.training.selection import select_best, select_rate


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


def test_the_rate_is_the_one_with_the_best_mean_over_seeds():
    seeds = [_record(0.1, 0.9), _record(0.1, 0.5), _record(0.05, 0.75), _record(0.05, 0.7)]
    assert select_rate(seeds) == 0.05


def test_of_rates_with_equal_means_the_smaller_is_selected():
    assert select_rate([_record(0.2, 0.25), _record(0.1, 0.5), _record(0.1, 0.0)]) == 0.1


def test_a_rate_at_which_a_seed_diverged_is_not_selected_while_another_is_free_of_it():
    seeds = [_record(0.1, 0.9), _record(0.1, 0.9, "diverged"), _record(0.01, 0.2), _record(0.01, 0.3)]
    assert select_rate(seeds) == 0.01


def test_where_a_seed_diverged_at_every_rate_the_others_decide():
    lost = [_record(rate, float("nan"), "diverged") for rate in (0.1, 0.01, 1.0)]
    assert select_rate([*lost, _record(0.1, 0.6), _record(0.01, 0.4)]) == 0.1


def test_no_rate_is_selected_where_every_run_diverged():
    assert select_rate([_record(0.1, 0.9, "diverged"), _record(0.01, 0.9, "diverged")]) is None
    assert select_rate([]) is None


@given(
    st.lists(
        st.tuples(st.sampled_from([0.01, 0.1, 1.0]), st.floats(0, 1), st.sampled_from(["finished", "diverged"])),
        min_size=1,
    ),
    st.randoms(use_true_random=False),
)
def test_the_order_of_the_seeds_does_not_matter_to_the_rate(triples, random):
    records = [_record(*triple) for triple in triples]
    shuffled = random.sample(records, len(records))
    assert select_rate(shuffled) == select_rate(records)
