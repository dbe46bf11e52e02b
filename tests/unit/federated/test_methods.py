"""What every method is: linear or not, the error that it states, and what is drawn."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from small_methods import DIMENSION, SETTINGS, build, every_method, every_setting, heavy_vector, random_vector

from hessketch.federated.methods.top_r import LocalTopR
from hessketch.federated.methods.uncompressed import Uncompressed
from hessketch.federated.settings import FederatedSettings
from hessketch.trainers import Trainer

# What every method is


@every_method
@every_setting
def test_a_method_says_what_it_is(label, settings):
    method, trainer = build(label, settings), Trainer.parse(label)
    assert method.linear == (trainer.method != "top_r")
    # FetchSGD's memory is the server's table, no client's.
    assert method.error_feedback == (trainer.error_feedback and trainer.method != "fetch_sgd")
    payload = method.encode(random_vector(), 3)
    assert method.decode(payload, 3).shape == (DIMENSION,)
    assert method.change(payload, 3, 0.5).shape == (DIMENSION,)


@every_method
@every_setting
def test_the_mean_of_what_linear_methods_encode_is_the_encoded_mean(label, settings):
    method = build(label, settings)
    updates = torch.stack([random_vector(seed=seed, dtype=torch.float64) for seed in range(7)])
    weights = torch.linspace(1, 2, 7, dtype=torch.float64)
    weights /= weights.sum()
    encoded_mean = method.encode(weights @ updates, 4)
    mean_of_encoded = sum(weight * method.encode(update, 4) for weight, update in zip(weights, updates, strict=True))
    difference = float((encoded_mean - mean_of_encoded).abs().max())
    assert difference < 1e-12 if method.linear else difference > 0.01


@every_method
def test_nothing_global_is_drawn_and_the_update_is_left_alone(label):
    before, numpy_before = torch.get_rng_state(), np.random.get_state()
    method, update = build(label), random_vector()
    kept = update.clone()
    payload = method.encode(update, 0)
    method.decode(payload, 0)
    method.change(payload, 0, 0.3)
    assert torch.equal(update, kept)
    assert torch.equal(before, torch.get_rng_state())
    assert all(np.array_equal(a, b) for a, b in zip(numpy_before, np.random.get_state(), strict=True))


@pytest.mark.parametrize("rate", [1.0, 0.3])
@pytest.mark.parametrize("seed", range(3))
def test_methods_that_send_everything_are_federated_averaging_bit_for_bit(rate, seed):
    mean, shifted = random_vector(seed=seed), FederatedSettings(placement="shift")
    expected = rate * mean
    whole = [Uncompressed(DIMENSION), LocalTopR(DIMENSION, DIMENSION), build("count_sketch-x1", shifted, seed=seed)]
    for method in (*whole, build("count_sketch-x1", replace(shifted, hashes="fixed"), seed=seed)):
        for step in range(3):
            assert torch.equal(method.change(method.encode(mean, step), step, rate), expected)
    assert whole[2].upload_numbers == DIMENSION
    assert whole[2].expected_error(mean) == whole[1].expected_error(mean) == whole[0].expected_error(mean) == 0


def test_hashes_are_fresh_each_round_or_the_same_in_all():
    update = random_vector()
    for hashes, same in (("fresh", False), ("fixed", True)):
        method = build("count_sketch-x10", FederatedSettings(hashes=hashes))
        tables = [method.encode(update, step) for step in (0, 1, 0)]
        assert torch.equal(tables[0], tables[1]) == same
        assert torch.equal(tables[0], tables[2])


def decoded_errors(method, update, rounds):
    """|decode(encode(update)) - update|^2 / |update|^2, round by round."""
    missing = [method.decode(method.encode(update, step), step) - update for step in range(rounds)]
    return [float(part.square().sum() / update.square().sum()) for part in missing]


@pytest.mark.parametrize("label", ["count_sketch-x10", "count_sketch_ef-x10", "count_sketch_ef-x2.5"])
@pytest.mark.parametrize("settings", ["", "three rows shifted"])
@pytest.mark.parametrize("make", [random_vector, lambda: heavy_vector([3, 700])], ids=["even", "concentrated"])
def test_the_error_of_sketches_is_that_of_theory(label, settings, make):
    method, update = build(label, SETTINGS[settings]), make().double()
    measured = np.mean(decoded_errors(method, update, 150))
    assert measured == pytest.approx(method.expected_error(update), rel=0.05)


def test_what_other_methods_say_of_their_error():
    update = random_vector()
    for label in ("top_r-x10", "top_r_ef-x2.5"):
        method = build(label)
        assert method.expected_error(update) == 1 - method.count / DIMENSION
        assert 0 < decoded_errors(method, update, 1)[0] < method.expected_error(update)
    assert build("uncompressed").expected_error(update) == decoded_errors(build("uncompressed"), update, 1)[0] == 0
    assert math.isnan(build("fetch_sgd-x10").expected_error(update))
