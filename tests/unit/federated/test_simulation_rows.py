"""What the row of a round says: loss, bytes, errors of the lift and their theory."""

import math

import pytest
import torch
from exact_federations import WEIGHTS, P, float32, spied
from small_federations import (
    examples,
    method,
    parts,
    simulation,
    updates_of_round,
)

from hessketch.federated.messages import serialise
from hessketch.federated.traffic import buffers_message


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
