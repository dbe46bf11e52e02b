"""Where a federation stops, what its state holds, and what it refuses."""

import math

import pytest
import torch
from exact_federations import P, float32
from small_federations import (
    SIZES,
    assert_close,
    examples,
    method,
    network,
    parts,
    settings,
    simulation,
)

from hessketch.curvature.losses import mean_loss_and_accuracy, mean_squared_error
from hessketch.errors import InputError, NotFiniteError
from hessketch.federated.simulation import Simulation


def stop_of(sim) -> tuple[str, int]:
    """Why a federation stops, and after how many rounds; its weights must be those before."""
    for done in range(100):
        theta, buffers = sim.theta.clone(), {name: b.clone() for name, b in sim.buffers.items()}
        try:
            sim.round()
        except NotFiniteError as error:
            assert torch.equal(sim.theta, theta) and torch.isfinite(theta).all() and sim.step == done
            assert all(torch.equal(sim.buffers[name], buffer) for name, buffer in buffers.items())
            return str(error), done
    raise AssertionError("it does not stop")


@pytest.mark.parametrize("name", ["uncompressed", "top_r_ef", "count_sketch_ef", "fetch_sgd_ef"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_rate_far_too_large_stops_and_names_the_round_with_the_weights_before(name, dtype):
    for rate in (1e6, 1e30):
        why, done = stop_of(simulation(name, dtype=dtype, learning_rate=rate, loss=mean_squared_error))
        assert why.startswith(f"round {done + 1}: ") and done < 20


def test_a_loss_above_a_hundred_times_the_first_stops_though_it_is_finite():
    sim = simulation("uncompressed", learning_rate=40.0, local_steps=1, loss=mean_squared_error)
    why, done = stop_of(sim)
    first = sim.first_loss
    assert done >= 1 and "training loss" in why and f"{first:.4g} at the start" in why
    now = float(mean_loss_and_accuracy(sim.model, mean_squared_error, examples().batches(100))[0])
    assert 100 * first < now < math.inf


@pytest.mark.parametrize("name", ["uncompressed", "top_r", "count_sketch_ef", "fetch_sgd"])
def test_nan_in_the_data_is_named_in_the_first_round(name):
    data = examples()
    data.inputs[4, 0, 2, 1] = math.nan
    why, done = stop_of(simulation(name, data=data))
    assert (why, done) == ("round 1: training loss nan", 0)


@pytest.mark.parametrize("name", ["uncompressed", "top_r_ef", "count_sketch", "fetch_sgd"])
def test_a_gradient_that_is_nan_at_a_finite_loss_is_named_too(name):
    def loss(outputs, targets):
        return mean_squared_error(outputs, targets) + (0 * outputs[:, 0]).abs().sqrt()

    why, done = stop_of(simulation(name, loss=loss, local_steps=1))
    assert (why, done) == ("round 1: updates", 0)


@pytest.mark.parametrize("name", ["uncompressed", "count_sketch_ef", "top_r_ef", "fetch_sgd_ef"])
def test_state_holds_all_that_the_rounds_to_come_depend_on(name):
    options = {"participation": 0.6, "local_batch_size": 2}
    first, second = float32(name, **options)[0], float32(name, **options)[0]
    for _ in range(3):
        first.round()
    tensors, numbers = first.state()
    second.load_state({key: tensor.clone() for key, tensor in tensors.items()}, numbers)
    for _ in range(3):
        rows = [{**sim.round(), "seconds": 0} for sim in (first, second)]
        assert str(rows[0]) == str(rows[1])
    assert all(torch.equal(tensor, second.weights()[key]) for key, tensor in first.weights().items())


def test_weights_are_copies_under_the_names_of_the_network():
    sim = simulation("uncompressed", "batch")
    before = sim.weights()
    assert before.keys() == network("batch").state_dict().keys()
    sim.round()
    assert_close(before["0.weight"], network("batch").state_dict()["0.weight"])
    assert not torch.equal(sim.weights()["0.weight"], before["0.weight"])
    assert not sim.model.training


@pytest.mark.parametrize(
    ("sizes", "changes"), [((3, 1, 4), {}), ((3, 4, 5), {"local_batch_size": 1})], ids=["client", "mini-batch"]
)
def test_batch_norm_over_a_single_example_is_refused_and_group_norm_takes_it(sizes, changes):
    with pytest.raises(InputError, match=r"batch norm over a single example.*allowed: 0 or at least 2"):
        simulation("uncompressed", "batch", sizes=sizes, **changes)
    assert math.isfinite(simulation("uncompressed", "group", sizes=sizes, **changes).round()["train_loss"])


def test_parts_for_another_number_of_clients_are_refused():
    with pytest.raises(InputError, match="examples of 5 clients given, settings say 6"):
        Simulation(
            network(), mean_squared_error, examples(), parts(), method("uncompressed", P), settings(clients=6), 0
        )


def test_dropout_is_refused_by_name_and_without_probability_allowed():
    def federation(p):
        model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Dropout(p), torch.nn.Linear(16, 3)).double()
        of = method("uncompressed", sum(parameter.numel() for parameter in model.parameters()))
        return Simulation(model, mean_squared_error, examples(), parts(), of, settings(), 0)

    with pytest.raises(InputError, match=r"^1 is dropout: .*give it p=0"):
        federation(0.5)
    assert math.isfinite(federation(0.0).round()["train_loss"])


def test_a_client_without_examples_is_named():
    empty = [*parts()[:-1], torch.empty(0, dtype=torch.int64)]
    with pytest.raises(InputError, match=f"client {len(SIZES) - 1} has no examples"):
        Simulation(network(), mean_squared_error, examples(), empty, method("uncompressed", P), settings(), 0)


def test_theory_is_silent_where_updates_depend_on_the_hashes_and_where_the_server_remembers():
    fixed, remembering = simulation(method("count_sketch", P, fresh=False)), simulation(method("fetch_sgd_ef", P))
    rows = [fixed.round()["lift_error_theory"] for _ in range(3)]
    assert math.isfinite(rows[0]) and math.isnan(rows[1]) and math.isnan(rows[2])
    assert math.isnan(remembering.round()["lift_error"])
