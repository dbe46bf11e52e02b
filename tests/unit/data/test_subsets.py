"""Subsets are balanced and nested over sizes; label noise is exact, nested, never the true class, and uniform."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hessketch.data.subsets import balanced_subset, noisy_labels
from hessketch.errors import InputError

SEEDS = st.integers(0, 2**62)


@st.composite
def shuffled_labels(draw, most=40):
    """Labels of 2 to 6 classes, each with 1 to `most` examples, in random order."""
    counts = draw(st.lists(st.integers(1, most), min_size=2, max_size=6))
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    return labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(draw(SEEDS)))]


@settings(max_examples=60, deadline=None)
@given(shuffled_labels(), SEEDS)
def test_subsets_are_balanced_ascending_without_repeats_and_nested_over_sizes(labels, seed):
    smaller = set()
    for per_class in range(1, labels.bincount().min().item() + 1):
        indices = balanced_subset(labels, per_class, seed)
        assert indices.dtype == torch.int64
        assert (indices.diff() > 0).all()
        assert labels[indices].bincount().tolist() == [per_class] * (labels.max().item() + 1)
        assert smaller < set(indices.tolist())
        smaller = set(indices.tolist())


@settings(max_examples=40, deadline=None)
@given(shuffled_labels(), SEEDS)
def test_the_choice_within_a_class_does_not_depend_on_the_other_classes(labels, seed):
    per_class = labels.bincount().min().item()
    kept = (labels != 0).nonzero().squeeze(1)  # the data set without class 0
    chosen = kept[balanced_subset(labels[kept], per_class, seed)]
    of_all = balanced_subset(labels, per_class, seed)
    assert torch.equal(chosen, of_all[labels[of_all] != 0])


def test_without_a_size_every_example_is_taken():
    assert balanced_subset(torch.tensor([2, 0, 0, 1]), None, 0).tolist() == [0, 1, 2, 3]


def test_seeds_and_classes_draw_different_orders():
    labels = torch.arange(4).repeat_interleave(1000)
    first, second = (balanced_subset(labels, 100, seed) for seed in (0, 1))
    assert not torch.equal(first, second)
    positions = (first % 1000).view(4, 100)  # of each class, within the class
    assert len({tuple(row.tolist()) for row in positions}) == 4


def test_every_example_is_equally_likely_to_be_chosen():
    labels = torch.arange(2).repeat_interleave(10)
    times = torch.zeros(20)
    for seed in range(2000):
        times[balanced_subset(labels, 3, seed)] += 1
    assert ((times - 600).abs() < 4.5 * (2000 * 0.3 * 0.7) ** 0.5).all()  # binomial, mean 600


def test_a_class_with_too_few_examples_is_named_with_its_count():
    labels = torch.tensor([0] * 5 + [1] * 3 + [2] * 4)
    with pytest.raises(InputError, match="4 examples per class asked for, class 1 has 3; allowed: at most 3"):
        balanced_subset(labels, 4, 0)
    with pytest.raises(InputError, match="allowed: at least 1"):
        balanced_subset(labels, 0, 0)


@settings(max_examples=80, deadline=None)
@given(shuffled_labels(), st.integers(0, 99), SEEDS)
def test_every_balanced_subset_has_exactly_the_fraction_of_wrong_labels(labels, percent, seed):
    classes = labels.max().item() + 1
    noisy = noisy_labels(labels, percent / 100, classes, seed)
    assert noisy.dtype == torch.int64
    assert set(noisy.tolist()) <= set(range(classes))
    for per_class in range(1, labels.bincount().min().item() + 1):
        indices = balanced_subset(labels, per_class, seed)
        wrong = labels[indices][noisy[indices] != labels[indices]]
        assert wrong.bincount(minlength=classes).tolist() == [per_class * percent // 100] * classes


@pytest.mark.parametrize("percent", [7, 29, 57, 58])
def test_products_that_floats_round_down_lose_no_wrong_label(percent):
    labels = torch.zeros(200, dtype=torch.int64)
    noisy = noisy_labels(labels, percent / 100, 10, seed=0)
    for per_class in range(1, 201):
        wrong = noisy[balanced_subset(labels, per_class, seed=0)] != 0
        assert wrong.sum().item() == per_class * percent // 100  # 100 * 0.29 is 28.999... in floats


@settings(max_examples=30, deadline=None)
@given(shuffled_labels(), st.integers(1, 10), SEEDS)
def test_without_noise_or_with_more_classes_than_occur_true_labels_never_count_as_noise(labels, more, seed):
    classes = labels.max().item() + 1
    assert torch.equal(noisy_labels(labels, 0.0, classes, seed), labels)
    before = labels.clone()
    noisy = noisy_labels(labels, 0.5, classes + more, seed)
    counts = labels.bincount()
    wrong = labels[noisy != labels].bincount(minlength=classes)
    assert torch.equal(wrong, counts // 2)
    assert torch.equal(labels, before)


def test_wrong_labels_are_uniform_over_the_other_classes():
    labels = torch.arange(5).repeat_interleave(8000)
    noisy = noisy_labels(labels, 0.5, 5, seed=7)
    confusion = torch.bincount(labels * 5 + noisy, minlength=25).view(5, 5).double()
    assert confusion.diagonal().tolist() == [4000.0] * 5
    others = confusion[~torch.eye(5, dtype=torch.bool)]
    chi_square = ((others - 1000) ** 2 / 1000).sum().item()
    assert chi_square < 37.7  # 99.9 % quantile of chi-square with 5 * (4 - 1) degrees of freedom


def test_wrong_labels_of_two_classes_do_not_follow_one_pattern():
    labels = torch.arange(2).repeat_interleave(2000)
    noisy = noisy_labels(labels, 0.5, 10, seed=0)
    shifts = [((noisy - labels) % 10)[(labels == label) & (noisy != labels)] for label in (0, 1)]
    assert (shifts[0] == shifts[1]).float().mean().item() == pytest.approx(1 / 9, abs=0.05)


@pytest.mark.parametrize("noise", [-0.1, 1.0, 1.5, float("nan"), float("inf")])
def test_a_fraction_outside_zero_to_one_is_refused(noise):
    with pytest.raises(InputError, match="allowed: 0 <= noise < 1"):
        noisy_labels(torch.tensor([0, 1]), noise, 2, 0)


def test_a_single_class_has_no_wrong_label():
    assert noisy_labels(torch.zeros(3, dtype=torch.int64), 0.0, 1, 0).tolist() == [0, 0, 0]
    with pytest.raises(InputError, match="single class"):
        noisy_labels(torch.zeros(3, dtype=torch.int64), 0.5, 1, 0)


def test_the_global_generator_is_left_alone():
    before = torch.random.get_rng_state()
    labels = torch.arange(3).repeat(10)
    balanced_subset(labels, 2, 0)
    noisy_labels(labels, 0.3, 3, 0)
    assert torch.equal(torch.random.get_rng_state(), before)
