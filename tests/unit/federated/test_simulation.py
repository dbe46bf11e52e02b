"""Rounds of a federation followed by hand: weights, error memories, buffers, bytes, diagnostics, divergence."""

import math
from unittest.mock import Mock

import pytest
import torch
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

from hessketch.curvature.losses import mean_loss_and_accuracy, mean_squared_error
from hessketch.errors import InputError, NotFiniteError
from hessketch.federated.messages import serialise
from hessketch.federated.simulation import Simulation
from hessketch.federated.traffic import buffers_message

WEIGHTS = [size / COUNT for size in SIZES]
P = dimension()
EXACT = {
    "uncompressed": lambda p: method("uncompressed", p),
    "count_sketch": lambda p: method("count_sketch", p, rows=1, columns=p, placement="shift"),
    "top_r": lambda p: method("top_r", p, count=p),
}
"""Methods that lose nothing: all numbers, a sketch that is orthogonal, the p largest of p entries."""


def spied(of) -> list[tuple]:
    """Filled with the sum that a method applies in each round, and the change of the weights."""
    seen, original = [], of.change

    def change(total, step, rate):
        result = original(total, step, rate)
        seen.append((total.clone(), result.clone()))
        return result

    of.change = change
    return seen


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


def test_loss_and_accuracy_are_those_of_the_participants_examples_where_the_round_starts():
    sim = simulation("uncompressed", participation=0.6)
    for _ in range(3):
        chosen = torch.cat([parts()[c] for c in sim.participants()])
        outputs = sim.model(examples().inputs[chosen]).detach()
        targets = examples().targets[chosen]
        expected = float(torch.nn.functional.cross_entropy(outputs, targets))
        row = sim.round()
        assert row["train_loss"] == pytest.approx(expected, rel=1e-12)
        assert row["train_accuracy"] == float((outputs.argmax(1) == targets).double().mean())


HEADER, COUNTER = 9, 9 + 8


def float32(name, kind="batch", **changes):
    """A federation as it is trained, its method and its number of parameters."""
    of = method(name, dimension(kind))
    return simulation(of, kind, dtype=torch.float32, **changes), of, dimension(kind)


@pytest.mark.parametrize(
    ("name", "sent"),
    [
        ("uncompressed", lambda p: HEADER + 4 * p),
        ("count_sketch", lambda p: HEADER + 4 * 2 * (p // 6)),
        ("count_sketch_ef", lambda p: HEADER + 4 * 2 * (p // 6)),
        ("top_r", lambda p: 2 * HEADER + 8 * (p // 3)),
        ("fetch_sgd_ef", lambda p: HEADER + 4 * 3 * (p // 9)),
    ],
)
@pytest.mark.parametrize("kind", ["mlp", "batch"])
def test_bytes_are_those_of_the_messages_counted_by_hand_and_really_serialised(name, sent, kind):
    sim, of, p = float32(name, kind)
    totals = spied(of)
    statistics = HEADER + 4 * 2 * 4 if kind == "batch" else 0  # running mean and variance of 4 channels
    for step in range(3):
        update = updates_of_round(sim)[1]
        row = sim.round()
        assert row["upload_bytes"] == 1 + sent(p) + statistics
        client = [*of.upload(of.encode(update, step)), *buffers_message(sim.buffers)]
        assert len(serialise(client)) == row["upload_bytes"]
        server = [*of.download(*totals[-1]), *buffers_message(sim.buffers)]
        assert len(serialise(server)) == row["download_bytes"]
        union = int(totals[-1][0].count_nonzero())
        down = {
            "uncompressed": HEADER + 4 * p,
            "top_r": min(2 * HEADER + 8 * union, HEADER + 4 * p),
            "fetch_sgd_ef": 2 * HEADER + 8 * 5,
        }.get(name, sent(p) + COUNTER)
        assert row["download_bytes"] == 1 + down + statistics


@pytest.mark.parametrize("name", ["count_sketch", "uncompressed"])
def test_who_was_absent_first_gets_what_it_missed_or_the_whole_weights_if_shorter(name):
    sim, of, p = float32(name, "batch", participation=0.4)
    totals = spied(of)
    missed, caught_up, capped = dict.fromkeys(range(5), 0), False, False
    whole = 1 + 2 * HEADER + 4 * p + 4 * 8
    for _ in range(12):
        chosen = sim.participants()
        row = sim.round()
        broadcast = len(serialise([*of.download(*totals[-1]), *buffers_message(sim.buffers)]))
        expected = sum(broadcast + min(missed[c], whole) for c in chosen) / len(chosen)
        assert row["download_bytes"] == pytest.approx(expected, rel=1e-12)
        caught_up |= any(missed[c] for c in chosen)
        capped |= any(missed[c] > whole for c in chosen)
        missed = {c: 0 if c in chosen else count + broadcast for c, count in missed.items()}
    assert caught_up and capped
    assert row["participants"] == 2


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("count_sketch", {}),
        ("count_sketch", {"placement": "shift"}),
        ("count_sketch", {"fresh": True, "rows": 1, "columns": 40}),
        ("count_sketch_ef", {}),
    ],
)
def test_the_error_of_the_lift_is_what_theory_says_over_rounds(name, options):
    of = method(name, P, **options)
    sim = simulation(of, learning_rate=0.01, local_steps=1)
    rows = [sim.round() for _ in range(150)]
    measured = sum(row["lift_error"] for row in rows) / len(rows)
    theory = sum(row["lift_error_theory"] for row in rows) / len(rows)
    assert measured == pytest.approx(theory, rel=0.1)
    if not options:
        scale = 1 if name == "count_sketch" else of.scale
        assert theory == pytest.approx((1 - scale) ** 2 + scale**2 * (P - 1) / of.upload_numbers)


def test_the_error_of_top_r_is_below_its_bound_and_uncompressed_has_none():
    for name in ("top_r", "top_r_ef"):
        for row in [simulation(name).round() for _ in range(3)]:
            assert 0 < row["lift_error"] < row["lift_error_theory"] == pytest.approx(1 - (P // 3) / P)
    row = simulation("uncompressed").round()
    assert row["lift_error"] == row["lift_error_theory"] == row["error_norm"] == 0
    row = simulation("fetch_sgd").round()
    assert row["lift_error"] > 0 and math.isnan(row["lift_error_theory"])


def test_the_lift_error_is_that_of_what_was_applied_and_the_update_norm_that_of_the_mean():
    sim = simulation("count_sketch")
    for _ in range(3):
        mean = sum(WEIGHTS[c] * update for c, update in updates_of_round(sim).items())
        before = sim.theta
        row = sim.round()
        applied = before - sim.theta
        assert row["update_norm"] == pytest.approx(float(mean.norm()), rel=1e-9)
        error = float((applied - mean).square().sum() / mean.square().sum())
        assert row["lift_error"] == pytest.approx(error, rel=1e-9)


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
