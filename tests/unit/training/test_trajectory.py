"""SGD that is followed, against SGD written out by hand: weights, facts, order."""

import copy
from dataclasses import replace

import pytest
import torch
from followed_training import (
    KEPT,
    SEED,
    SETTINGS,
    TEST,
    TRAIN,
    Following,
    assert_equal,
    by_hand,
    examples,
    linear,
    network,
    timeless,
)

from hessketch.curvature.losses import LOSSES, mean_loss_and_accuracy
from hessketch.training.trajectory import steps_of_epochs


def assert_close(state, expected):
    assert state.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(state[name], tensor, rtol=1e-10, atol=1e-12)


FORMS = {
    "full batch": {"batch_size": 0},
    "all examples by their number": {"batch_size": 25},
    "mini-batches": {},
    "momentum": {"momentum": 0.9},
    "weight decay": {"weight_decay": 0.1, "batch_size": 0},
    "a switch in the midst of an epoch": {"switch_step": 16, "later_batch_size": 4},
    "a switch at the end of an epoch": {"switch_step": 18, "later_batch_size": 5, "momentum": 0.5},
    "a switch from the full batch": {"batch_size": 0, "switch_step": 20, "later_batch_size": 2, "decay_factor": 0.1},
    "everything": {"momentum": 0.8, "weight_decay": 0.03, "decay_factor": 0.1, "batch_size": 4},
}


@pytest.mark.parametrize("changes", FORMS.values(), ids=FORMS)
def test_every_kept_weight_is_that_of_sgd_written_out_by_hand(changes):
    following = Following(settings=replace(SETTINGS, **changes))
    result = following.run()
    model, states = network(), {0: network().state_dict()}
    for step, _, _ in by_hand(model, following.settings):
        states[step] = copy.deepcopy(model.state_dict())
    assert list(following.kept) == KEPT and result.status == "finished" and result.diverged_at is None
    for step in KEPT:
        assert_close(following.kept[step][1], states[step])
    assert_close(following.model.state_dict(), states[40])
    assert not following.model.training


def test_facts_are_taken_over_all_examples_in_eval_mode_and_those_of_step_0_before_any_step():
    following = Following()
    following.run()
    for facts, state in following.kept.values():
        model = network()
        model.load_state_dict(state)
        for split, of_split in (("train", TRAIN), ("test", TEST)):
            found = mean_loss_and_accuracy(model.eval(), LOSSES["cross_entropy"], of_split.batches(1000))
            assert found == (facts[f"{split}_loss"], facts[f"{split}_accuracy"])
    assert_equal(following.kept[0][1], network().state_dict())
    losses = [facts["train_loss"] for facts, _ in following.kept.values()]
    assert losses[-1] < 0.8 * losses[0]


# 25 examples in 3 batches of 8, 8 and 9: a last one of a single example joins the one before.
@pytest.mark.parametrize(
    "switch", [{}, {"switch_step": 10, "later_batch_size": 6}, {"switch_step": 15, "later_batch_size": 12}]
)
@pytest.mark.parametrize("batch_size", [8, 1, 7, 24, 25, 0])
def test_epochs_are_examples_seen_over_examples_across_a_switch_too(batch_size, switch):
    settings = replace(SETTINGS, batch_size=batch_size, steps=40, **switch)
    following = Following(lambda: network(norm=False), settings=settings, keep_at=range(41))
    following.run()
    seen = {0: 0} | {step: seen for step, seen, _ in by_hand(network(norm=False), settings)}
    epochs = {step: facts["epoch"] for step, (facts, _) in following.kept.items()}
    assert epochs == {step: pytest.approx(seen[step] / 25, rel=1e-12) for step in range(41)}


@pytest.mark.parametrize(("count", "batch_size"), [(25, 8), (24, 8), (9, 8), (17, 1), (6, 6), (6, 0), (7, 4)])
def test_steps_of_epochs_end_at_whole_epochs_exactly(count, batch_size):
    wanted = [0, 1, 3]
    steps = [steps_of_epochs(epochs, count, batch_size) for epochs in wanted]
    settings = replace(SETTINGS, batch_size=batch_size, steps=steps[-1])
    following = Following(linear, settings=settings, keep_at=steps, splits=(examples(count, 0, torch.float32),) * 2)
    following.run()
    assert [facts["epoch"] for facts, _ in following.kept.values()] == wanted
    assert len([None for _ in by_hand(linear(), settings, train=following.splits[0])]) == steps[-1]


def test_history_has_fifty_rows_spread_evenly_besides_the_first_and_the_kept_ones():
    following = Following(settings=replace(SETTINGS, steps=200, decay_factor=0.1), keep_at=[3, 200])
    result = following.run()
    steps = [row["step"] for row in result.history]
    assert steps == [0, 3, *range(4, 201, 4)]
    assert {3, 200} == set(following.kept)
    rates = {row["step"]: row["learning_rate"] for row in result.history}  # of the step that led there
    found = [rates[step] for step in (0, 64, 68, 132, 136, 200)]
    assert found == pytest.approx([0.05] * 2 + [0.005] * 2 + [0.0005] * 2)
    assert all(row["seconds"] > 0 for row in result.history)


def test_with_fewer_than_fifty_steps_history_has_them_all():
    assert [row["step"] for row in Following().run().history] == list(range(41))


def test_progress_is_told_up_to_the_last_step():
    told = []
    Following(settings=replace(SETTINGS, steps=100)).run(progress=lambda *done: told.append(done))
    assert told[-1] == (100, 100) and told == sorted(told) and len(told) >= 50


def test_up_to_the_switch_a_training_is_one_without_it_to_the_last_bit_and_another_from_there():
    kept = range(41)
    plain, switched = (
        Following(settings=replace(SETTINGS, momentum=0.9, **switch), keep_at=kept)
        for switch in ({}, {"switch_step": 17, "later_batch_size": 4})
    )
    whole, result = plain.run(), switched.run()
    for step in range(18):
        assert_equal(switched.kept[step][1], plain.kept[step][1])
        assert switched.kept[step][0] == plain.kept[step][0]
    assert timeless(result.history)[:18] == timeless(whole.history)[:18]
    for step in range(18, 41):
        assert not torch.equal(switched.kept[step][1]["0.weight"], plain.kept[step][1]["0.weight"])


@pytest.mark.parametrize("seed", [SEED, SEED + 1])
def test_the_seed_alone_fixes_the_order_of_mini_batches(seed):
    torch.manual_seed(0)
    first = Following()
    first.run()
    torch.manual_seed(1)
    second = Following()
    second.run(seed=seed)
    same = all(
        torch.equal(a, b) for a, b in zip(*(f.model.state_dict().values() for f in (first, second)), strict=True)
    )
    assert same == (seed == SEED)


def test_full_batches_know_no_seed():
    full = [Following(settings=replace(SETTINGS, batch_size=0)) for _ in range(2)]
    for seed, following in enumerate(full):
        following.run(seed=seed)
    assert_equal(full[0].model.state_dict(), full[1].model.state_dict())
