"""Every example has one client, clients are as alike or unlike as asked, and impossible splits are refused."""

import re
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hessketch.errors import InputError
from hessketch.federated.partition import KINDS, partition

TEN_CLASSES = np.repeat(np.arange(10), 100)


def class_counts(labels, parts):
    """Examples of each class that each client has, (clients, classes)."""
    return np.array([np.bincount(labels[part], minlength=labels.max() + 1) for part in parts])


def unevenness(labels, parts):
    """Mean over clients of the distance in total variation between their mix of classes and the whole's."""
    counts = class_counts(labels, parts)
    mixes = counts / counts.sum(axis=1, keepdims=True)
    return 0.5 * np.abs(mixes - np.bincount(labels) / len(labels)).sum(axis=1).mean()


@st.composite
def splits(draw):
    kind = draw(st.sampled_from(KINDS))
    labels = np.array(draw(st.lists(st.integers(-2, 4), min_size=1, max_size=120)))
    each = draw(st.integers(1, 3))
    clients = draw(st.integers(1, max(1, len(labels) // (3 if kind == "iid" else 6))))
    each = min(each, len(labels) // clients)
    # At this concentration every client has an example soon; draws that fail are tested below.
    return labels, clients, kind, draw(st.integers(0, 2**63 - 1)), {"alpha": 20.0, "shards_per_client": each}


@settings(deadline=None)
@given(splits())
def test_every_example_has_exactly_one_client(split):
    labels, clients, kind, seed, options = split
    parts = partition(labels, clients, kind, seed, **options)
    assert len(parts) == clients
    assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(len(labels)))
    for part in parts:
        assert part.dtype == np.int64
        assert len(part) >= 1
        assert (np.diff(part) > 0).all()


@settings(deadline=None)
@given(splits())
def test_the_same_arguments_give_the_same_split(split):
    labels, clients, kind, seed, options = split
    np.random.seed(0)
    first = partition(labels, clients, kind, seed, **options)
    np.random.seed(1)
    second = partition(labels, clients, kind, seed, **options)
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_another_seed_gives_another_split_and_nothing_global_changes(kind):
    before = np.random.get_state()[1].copy()
    first, second = (partition(TEN_CLASSES, 10, kind, seed) for seed in (0, 1))
    assert not all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    assert np.array_equal(np.random.get_state()[1], before)


@pytest.mark.parametrize("kind", KINDS)
def test_one_client_has_everything_and_lists_do_as_well_as_arrays(kind):
    (part,) = partition([3, 1, 2], 1, kind, 0)
    assert part.tolist() == [0, 1, 2]


@given(st.integers(1, 300), st.data())
def test_iid_sizes_differ_by_at_most_one(n, data):
    clients = data.draw(st.integers(1, n))
    sizes = [len(part) for part in partition(np.zeros(n, dtype=int), clients, "iid", 0)]
    assert max(sizes) - min(sizes) <= 1


def test_iid_clients_have_every_class_about_equally():
    counts = sum(class_counts(TEN_CLASSES, partition(TEN_CLASSES, 10, "iid", seed)) for seed in range(50))
    # Each entry is hypergeometric with mean 10 and variance 9 * 900 / 999: 500 +- 20.1 in 50 seeds.
    assert np.abs(counts - 500).max() < 5 * 20.1, counts


@pytest.mark.parametrize("each", [1, 2, 5])
def test_a_client_of_shards_knows_few_labels(each):
    for seed in range(20):
        parts = partition(TEN_CLASSES, 20, "shards", seed, shards_per_client=each)
        known = [len(np.unique(TEN_CLASSES[part])) for part in parts]
        # 20, 40 and 100 shards divide the classes evenly: no shard crosses a boundary.
        assert max(known) <= each, known
        assert {len(part) for part in parts} == {50}


def test_shards_across_a_boundary_add_a_label_each_at_most():
    labels = np.repeat(np.arange(4), [50, 31, 44, 28])
    for seed in range(20):
        parts = partition(labels, 7, "shards", seed, shards_per_client=2)
        assert max(len(np.unique(labels[part])) for part in parts) <= 4
        assert max(map(len, parts)) - min(map(len, parts)) <= 2


def test_shards_are_runs_of_the_sorted_labels_whatever_the_order_of_the_file():
    labels = np.random.default_rng(0).permutation(TEN_CLASSES)
    parts = partition(labels, 10, "shards", 0, shards_per_client=1)
    assert sorted(labels[part].tolist() for part in parts) == [[label] * 100 for label in range(10)]


@pytest.mark.parametrize("alpha", [0.3, 1.0, 10.0])
def test_dirichlet_shares_of_a_class_have_the_mean_and_the_variance_of_the_distribution(alpha):
    clients, seeds, classes = 5, 400, 2
    labels = np.repeat(np.arange(classes), 1000)
    shares = np.array(
        [class_counts(labels, partition(labels, clients, "dirichlet", s, alpha=alpha)) / 1000 for s in range(seeds)]
    )
    mean, variance = 1 / clients, (clients - 1) / (clients**2 * (clients * alpha + 1))
    error = np.sqrt(variance / seeds)
    found = shares.mean(axis=0)
    assert np.abs(found - mean).max() < 5 * error, f"{found} where {mean} +- {error} was due"
    ratio = shares.var() / variance
    assert 0.85 < ratio < 1.15, f"variance {shares.var()} where {variance} was due"


def test_dirichlet_rounds_without_favouring_a_client():
    # Three examples of a class for six clients: rounded shares would go to some more than to others.
    labels = np.repeat(np.arange(40), 3)
    counts = sum(class_counts(labels, partition(labels, 6, "dirichlet", s, alpha=50.0)).sum(axis=1) for s in range(200))
    # Every client's share is 4000 in the mean; a class gives it 0, 1 or 2, with variance at most 0.5 or so.
    assert np.abs(counts - 4000).max() < 5 * np.sqrt(8000 * 0.5), counts


def test_a_small_alpha_is_more_uneven_than_a_large_one():
    found = {
        alpha: np.mean(
            [unevenness(TEN_CLASSES, partition(TEN_CLASSES, 10, "dirichlet", s, alpha=alpha)) for s in range(30)]
        )
        for alpha in (0.1, 1.0, 10.0, 1000.0)
    }
    values = list(found.values())
    assert all(more > less + 0.05 for more, less in pairwise(values)), found


@pytest.mark.parametrize("alpha", [1e13, 1e308])
def test_a_huge_alpha_gives_equal_shares(alpha):
    counts = class_counts(TEN_CLASSES, partition(TEN_CLASSES, 10, "dirichlet", 0, alpha=alpha))
    assert counts.min() >= 9
    assert counts.max() <= 11


@pytest.mark.parametrize("alpha", [1e-3, 5e-324])
def test_a_tiny_alpha_gives_a_class_to_one_client(alpha):
    labels = np.repeat(np.arange(50), 4)
    counts = class_counts(labels, partition(labels, 2, "dirichlet", 0, alpha=alpha))
    assert (counts.max(axis=0) == 4).mean() > 0.9


def test_a_draw_that_leaves_a_client_too_few_is_drawn_again():
    smallest = {
        least: min(
            len(p) for s in range(20) for p in partition(TEN_CLASSES, 10, "dirichlet", s, alpha=0.5, least=least)
        )
        for least in (1, 40)
    }
    assert smallest[1] < 40 <= smallest[40], smallest


def test_shards_of_unequal_sizes_are_dealt_again_where_a_client_has_too_few():
    # 12 shards of 2 or 3 for 3 clients with 4 each: 10 apiece needs two of each size in every hand.
    for seed in range(5):
        parts = partition(np.zeros(30, dtype=int), 3, "shards", seed, shards_per_client=4, least=10)
        assert [len(part) for part in parts] == [10, 10, 10]


def test_where_no_draw_is_enough_the_ways_out_are_named():
    with pytest.raises(InputError) as caught:
        partition(TEN_CLASSES, 100, "dirichlet", 0, alpha=0.05, least=5)
    assert str(caught.value) == (
        "dirichlet split of 1000 examples over 100 clients with alpha 0.05: in the best of 100 draws the smallest "
        "client has 0, allowed: at least 5; choose a larger alpha, fewer clients, a smaller least number of examples, "
        "or more examples"
    )


def test_the_best_of_all_draws_is_named():
    with pytest.raises(InputError, match=r"the smallest client has ([0-9]+), allowed: at least 95") as caught:
        partition(TEN_CLASSES, 10, "dirichlet", 0, alpha=3.0, least=95)
    best = int(re.search("client has ([0-9]+)", str(caught.value))[1])
    reachable = partition(TEN_CLASSES, 10, "dirichlet", 0, alpha=3.0, least=best)
    assert min(map(len, reachable)) == best
    with pytest.raises(InputError):
        partition(TEN_CLASSES, 10, "dirichlet", 0, alpha=3.0, least=best + 1)


def test_shards_that_are_never_dealt_evenly_enough_are_refused_with_the_ways_out():
    # 100 shards of 2 and 100 of 1: 15 apiece needs five of each in all 20 hands.
    with pytest.raises(InputError) as caught:
        partition(np.zeros(300, dtype=int), 20, "shards", 0, shards_per_client=10, least=15)
    assert re.fullmatch(
        "shards split of 300 examples over 20 clients with 10 shards per client: in the best of 100 draws the smallest "
        "client has 1[0-4], allowed: at least 15; choose fewer shards per client, fewer clients, a smaller least "
        "number of examples, or more examples",
        str(caught.value),
    )


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((100, "iid"), {}, "100 clients and 50 examples; allowed: at most 50 clients"),
        ((100, "dirichlet"), {}, "100 clients and 50 examples; allowed: at most 50 clients"),
        (
            (10, "iid"),
            {"least": 6},
            "10 clients with at least 6 examples each and 50 examples; allowed: a least number of at most 5, or fewer "
            "clients",
        ),
        (
            (20, "shards"),
            {"shards_per_client": 3},
            "20 clients with 3 shards each and 50 examples; allowed: at most 2 shards each, or fewer clients",
        ),
        ((5, "dirichlet"), {"alpha": 0}, "alpha 0 given; allowed: a finite number above 0"),
        ((5, "dirichlet"), {"alpha": -1.5}, "alpha -1.5 given; allowed: a finite number above 0"),
        ((5, "dirichlet"), {"alpha": float("nan")}, "alpha nan given; allowed: a finite number above 0"),
        ((5, "dirichlet"), {"alpha": float("inf")}, "alpha inf given; allowed: a finite number above 0"),
        ((0, "iid"), {}, "clients: 0 given; allowed: at least 1"),
        ((5, "shards"), {"shards_per_client": 0}, "shards per client: 0 given; allowed: at least 1"),
        ((5, "iid"), {"least": 0}, "least examples: 0 given; allowed: at least 1"),
        (
            (5, "shard"),
            {},
            "'shard' is no kind of partition; allowed: iid, shards, dirichlet; nearest valid name: shards",
        ),
        ((5, "x"), {}, "'x' is no kind of partition; allowed: iid, shards, dirichlet"),
    ],
)
def test_impossible_splits_are_refused_in_words(arguments, options, message):
    with pytest.raises(InputError) as caught:
        partition(np.arange(50) % 10, *arguments, 0, **options)
    assert str(caught.value) == message


@pytest.mark.parametrize("labels", [np.zeros((5, 2), dtype=int), np.zeros(5)])
def test_labels_that_are_no_vector_of_integers_are_refused(labels):
    with pytest.raises(InputError, match=r"labels of shape .*; allowed: shape \(n,\) of integers"):
        partition(labels, 2, "iid", 0)


def test_more_shards_than_examples_matter_to_shards_only():
    assert len(partition(np.zeros(5, dtype=int), 5, "iid", 0, shards_per_client=2)) == 5
