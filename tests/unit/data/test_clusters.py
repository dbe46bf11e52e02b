"""Gaussian clusters have the distances, the variance and the splits that their docstrings promise."""

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hessketch.data.clusters import cluster_centres, gaussian_clusters


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 12), st.integers(0, 20), st.floats(0.1, 50), st.integers(0, 2**40))
@example(classes=10, more=0, separation=4.0, seed=0)
def test_with_enough_dimensions_every_two_centres_are_exactly_the_separation_apart(classes, more, separation, seed):
    centres = cluster_centres(classes, classes + more, separation, seed)
    distances = torch.pdist(centres)
    torch.testing.assert_close(distances, torch.full_like(distances, separation), rtol=1e-10, atol=0)
    norms = centres.norm(dim=1)
    torch.testing.assert_close(norms, torch.full_like(norms, separation / 2**0.5), rtol=1e-10, atol=0)


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 30), st.integers(1, 10), st.floats(0.1, 50), st.integers(0, 2**40))
def test_with_any_dimensions_the_root_mean_square_distance_is_the_separation(classes, dimensions, separation, seed):
    distances = torch.pdist(cluster_centres(classes, dimensions, separation, seed))
    assert distances.square().mean().sqrt().item() == pytest.approx(separation, rel=1e-10)


def test_directions_of_the_centres_change_with_the_seed():
    assert not torch.allclose(cluster_centres(3, 5, 1.0, 0).abs(), cluster_centres(3, 5, 1.0, 1).abs(), atol=1e-3)


def test_each_cluster_has_unit_variance_in_every_direction_around_its_centre():
    inputs, targets = gaussian_clusters(3, 4, 6.0, 20_000, seed=5, split="train")
    centres = cluster_centres(3, 4, 6.0, seed=5).float()
    for label in range(3):
        members = inputs[targets == label]
        torch.testing.assert_close(members.mean(0), centres[label], atol=0.03, rtol=0)  # 4 standard errors
        torch.testing.assert_close(members.T.cov(), torch.eye(4), atol=0.04, rtol=0)


def test_inputs_are_float32_ordered_by_class_and_the_same_on_every_call():
    inputs, targets = gaussian_clusters(4, 3, 2.0, 5, seed=1, split="test")
    assert (inputs.dtype, tuple(inputs.shape), targets.dtype) == (torch.float32, (20, 3), torch.int64)
    assert targets.tolist() == [label for label in range(4) for _ in range(5)]
    again, _ = gaussian_clusters(4, 3, 2.0, 5, seed=1, split="test")
    assert torch.equal(inputs, again)


def test_train_and_test_share_the_centres_and_not_the_noise():
    train, targets = gaussian_clusters(2, 30, 5.0, 400, seed=3, split="train")
    test, _ = gaussian_clusters(2, 30, 5.0, 400, seed=3, split="test")
    centres = cluster_centres(2, 30, 5.0, seed=3).float()[targets]
    noise, other = train - centres, test - centres
    assert abs((noise * other).mean().item()) < 4 / (800 * 30) ** 0.5  # uncorrelated, both of mean 0
    assert abs(other.mean().item()) < 4 / (800 * 30) ** 0.5


def test_clusters_far_apart_are_told_apart_by_their_nearest_centre():
    inputs, targets = gaussian_clusters(5, 20, 12.0, 100, seed=0, split="test")
    nearest = torch.cdist(inputs, cluster_centres(5, 20, 12.0, 0).float()).argmin(1)
    assert torch.equal(nearest, targets)


def test_the_global_generator_is_left_alone():
    before = torch.random.get_rng_state()
    gaussian_clusters(3, 2, 1.0, 10, seed=0, split="train")
    assert torch.equal(torch.random.get_rng_state(), before)
