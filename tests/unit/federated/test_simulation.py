"""Rounds of a federation against gradient descent, federated averaging and their own bookkeeping of errors."""

import math
from unittest.mock import Mock

import pytest
import torch
from exact_federations import WEIGHTS, P, spied
from small_federations import (
    COUNT,
    SIZES,
    assert_close,
    by_sgd,
    dimension,
    examples,
    flat,
    method,
    network,
    parts,
    settings,
    simulation,
    updates_of_round,
)

EXACT = {
    "uncompressed": lambda p: method("uncompressed", p),
    "count_sketch": lambda p: method("count_sketch", p, rows=1, columns=p, placement="shift"),
    "top_r": lambda p: method("top_r", p, count=p),
}


@pytest.mark.parametrize("kind", ["mlp", "cnn", "group"])
@pytest.mark.parametrize("name", EXACT)
def test_one_full_batch_step_of_unequal_clients_is_gradient_descent_on_all_examples(name, kind):
    of = EXACT[name](dimension(kind))
    sim = simulation(of, kind, local_steps=1, weight_decay=0.05, server_rate=0.7)
    central, everything = network(kind), torch.arange(COUNT)
    for _ in range(5):
        sim.round()
        # Weight decay is the clients', and the server's rate multiplies theirs.
        by_sgd(central, examples(), [everything], 0.7 * 0.2, 0.05)
        assert_close(sim.theta, flat(central))
    assert float((flat(central) - flat(network(kind))).norm()) > 0.01


@pytest.mark.parametrize("kind", ["mlp", "batch"])
@pytest.mark.parametrize("name", EXACT)
def test_methods_that_lose_nothing_are_federated_averaging(name, kind):
    sim = simulation(EXACT[name](dimension(kind)), kind, server_rate=0.5, decay_factor=0.1)
    theta, buffers = flat(network(kind)), {n: b.clone() for n, b in network(kind).named_buffers()}
    for step in range(6):
        row = sim.round()
        rate = [0.5, 0.5, 0.5, 0.5, 0.05, 0.05][step]
        assert row["server_rate"] == pytest.approx(rate)
        ended = []
        for indices in parts():
            model = network(kind)
            torch.nn.utils.vector_to_parameters(theta.clone(), model.parameters())
            for buffer_name, buffer in model.named_buffers():
                buffer.copy_(buffers[buffer_name])
            ended.append(by_sgd(model, examples(), [indices] * 3, 0.2))
        mean = sum(weight * flat(model) for weight, model in zip(WEIGHTS, ended, strict=True))
        theta = theta - rate * (theta - mean)
        named = [dict(model.named_buffers()) for model in ended]
        buffers = {n: sum(w * own[n] for w, own in zip(WEIGHTS, named, strict=True)) for n in buffers}
        assert_close(sim.theta, theta)
        for buffer_name, buffer in buffers.items():
            assert_close(sim.buffers[buffer_name].double(), buffer.double())
    if buffers:
        assert int(sim.buffers["1.num_batches_tracked"]) == 6 * 3
        assert sim.buffers["1.num_batches_tracked"].dtype == torch.int64


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("count_sketch", {}),
        ("count_sketch", {"placement": "shift"}),
        ("count_sketch", {"fresh": False}),
        ("fetch_sgd", {}),
        ("fetch_sgd_ef", {"momentum": 0.5}),
        ("uncompressed", {}),
    ],
)
@pytest.mark.parametrize("participation", [1.0, 0.6])
def test_a_linear_method_encodes_once_what_the_clients_payloads_add_up_to(name, options, participation, monkeypatch):
    of = method(name, P, **options)
    sim = simulation(of, participation=participation)
    totals = spied(of)
    for step in range(4):
        updates = updates_of_round(sim)
        assert list(updates) == sorted(updates, key=lambda c: (SIZES[c], c))
        with monkeypatch.context() as patch:
            encode = Mock(side_effect=of.encode)
            patch.setattr(of, "encode", encode)
            sim.round()
        assert encode.call_count == 1
        count = sum(SIZES[c] for c in updates)
        by_hand = sum(SIZES[c] / count * of.encode(update, step) for c, update in updates.items())
        assert_close(totals[-1][0], by_hand)


@pytest.mark.parametrize("options", [{}, {"placement": "shift"}, {"rows": 1, "fresh": False}])
def test_one_memory_is_the_mean_of_the_clients_memories(options):
    of = method("count_sketch_ef", P, **options)
    sim, totals = simulation(of), spied(of)
    memories = [torch.zeros(P, dtype=torch.float64) for _ in SIZES]
    for step in range(6):
        total = 0
        for client, update in updates_of_round(sim).items():
            due = memories[client] + update
            payload = of.encode(due, step)
            memories[client] = due - of.decode(payload, step)
            total = total + WEIGHTS[client] * payload
        row = sim.round()
        assert_close(totals[-1][0], total)
        mean = sum(w * memory for w, memory in zip(WEIGHTS, memories, strict=True))
        (kept,) = sim.errors.state().values()
        assert_close(kept, mean)
        assert row["error_norm"] == pytest.approx(float(mean.norm()), rel=1e-9) and row["error_norm"] > 0


@pytest.mark.parametrize("name", ["top_r_ef", "count_sketch_ef"])
def test_with_some_clients_each_keeps_a_memory_of_its_own_and_absentees_keep_theirs(name):
    of = method(name, P)
    sim, totals = simulation(of, participation=0.4), spied(of)
    memories: dict[int, torch.Tensor] = {}
    for step in range(8):
        updates, total = updates_of_round(sim), 0
        assert sorted(updates) == sim.participants() and len(updates) == 2
        count = sum(SIZES[c] for c in updates)
        for client, update in updates.items():
            due = memories.get(client, 0) + update
            payload = of.encode(due, step)
            memories[client] = due - of.decode(payload, step)
            total = total + SIZES[client] / count * payload
        row = sim.round()
        assert_close(totals[-1][0], total)
        found = sim.errors.state()
        assert found.keys() == {str(client) for client in memories}
        for client, memory in memories.items():
            assert_close(found[str(client)], memory)
        squares = [float(memory @ memory) for memory in memories.values()]
        assert row["error_norm"] == pytest.approx(math.sqrt(sum(squares) / len(squares)), rel=1e-9)
    assert set(memories) == set(range(len(SIZES)))


def test_participants_differ_by_round_and_follow_from_the_seed():
    torch.manual_seed(5)
    drawn = []
    sim = simulation("uncompressed", participation=0.6)
    for _ in range(30):
        drawn.append(sim.participants())
        assert sim.participants() == drawn[-1]
        assert len(set(drawn[-1])) == 3 == sim.settings.participants
        sim.step += 1
    assert len(set(map(tuple, drawn))) > 5
    assert {c for chosen in drawn for c in chosen} == set(range(5))
    torch.manual_seed(6)
    other = simulation("top_r_ef", participation=0.6, learning_rate=0.05)
    assert other.participants() == drawn[0]  # methods and rates are compared on the same clients
    other.seed += 1
    others = []
    for _ in range(30):
        others.append(other.participants())
        other.step += 1
    assert others != drawn
    assert simulation("uncompressed").participants() == list(range(5))
    assert settings(participation=0.01).participants == 1


@pytest.mark.parametrize("name", ["top_r_ef", "count_sketch_ef"])
def test_error_feedback_loses_nothing_what_was_applied_and_what_is_kept_is_what_was_due(name):
    sim = simulation(name)
    due, start = 0, sim.theta
    for _ in range(10):
        updates = updates_of_round(sim)
        due = due + sum(WEIGHTS[c] * update for c, update in updates.items())
        sim.round()
    memories = {int(holder): kept for holder, kept in sim.errors.state().items()}
    # The one memory of a linear method is a mean already.
    kept = memories[0] if name == "count_sketch_ef" else sum(WEIGHTS[c] * memory for c, memory in memories.items())
    assert float(kept.norm()) > 1e-3
    assert_close(start - sim.theta + kept, due)


def test_equal_clients_of_whom_some_take_part_lose_nothing_either():
    sim = simulation("top_r_ef", sizes=(4,) * 6, participation=0.5)
    due, start = 0, sim.theta
    for _ in range(10):
        due = due + sum(updates_of_round(sim).values()) / 3
        sim.round()
    assert_close(start - sim.theta + sum(sim.errors.state().values()) / 3, due)
