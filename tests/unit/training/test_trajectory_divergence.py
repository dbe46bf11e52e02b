"""What a divergence leaves of a followed training, and what cannot be followed."""

import copy
import math
from dataclasses import replace

import pytest
import torch
from followed_training import (
    SETTINGS,
    TEST,
    TRAIN,
    Following,
    Killed,
    assert_equal,
    assert_same,
    by_hand,
    examples,
    linear,
    network,
)

from hessketch.curvature.losses import LOSSES, mean_loss_and_accuracy
from hessketch.errors import InputError, NotFiniteError
from hessketch.training.trajectory import TrajectorySettings

SINGLE = (examples(25, 0, torch.float32), examples(11, 1, torch.float32))


def first_not_finite(settings, evaluated):
    """Of a linear network by hand: where a loss stops being finite, and the weights evaluated last before that."""
    model = linear()
    before = copy.deepcopy(model.state_dict())
    for step, _, value in by_hand(model, settings, "mean_squared_error", train=SINGLE[0]):
        if not math.isfinite(value):
            return step, before
        if step in evaluated:
            losses = [mean_loss_and_accuracy(model, LOSSES["mean_squared_error"], s.batches(1000))[0] for s in SINGLE]
            if not math.isfinite(sum(losses)):
                return step, before
            before = copy.deepcopy(model.state_dict())
    raise AssertionError("it did not diverge")


@pytest.mark.parametrize("batch_size", [8, 0])
@pytest.mark.parametrize("rate", [0.5, 0.7, 1.5, 40.0, 1e25])
def test_a_divergence_names_its_step_and_leaves_the_weights_that_were_evaluated_last(rate, batch_size):
    settings = TrajectorySettings(learning_rate=rate, steps=1000, batch_size=batch_size)
    kept = [0, 7, 15, 300, 1000]
    following = Following(linear, "mean_squared_error", settings, kept, SINGLE)
    result = following.run()
    step, weights = first_not_finite(settings, {*kept, *range(0, 1001, 20)})
    assert (result.status, result.diverged_at) == ("diverged", f"step {step}")
    state = following.model.state_dict()
    for name, tensor in weights.items():
        torch.testing.assert_close(state[name], tensor, rtol=1e-3, atol=0)
    assert all(torch.isfinite(tensor).all() for tensor in state.values()) and not following.model.training
    assert list(following.kept) == [k for k in kept if k < step]
    assert all(math.isfinite(row["train_loss"] + row["test_loss"]) for row in result.history)
    assert result.history[-1]["step"] < step


def test_steps_of_divergence_are_told_to_one_and_lie_in_the_midst_of_an_evaluation():
    """What the test above tells apart: a name that is a step off, or one that is always that of an evaluation."""
    found = {
        rate: first_not_finite(TrajectorySettings(learning_rate=rate, steps=1000, batch_size=8), {20, 40, 60})[0]
        for rate in (0.5, 0.7, 1.5)
    }
    assert all(step > 1 and step % 20 for step in found.values()) and len(set(found.values())) == 3


def test_a_divergence_after_a_kill_is_the_same(tmp_path):
    settings = TrajectorySettings(learning_rate=0.5, steps=1000, batch_size=8)
    arguments = (linear, "mean_squared_error", settings, [0, 15], SINGLE)
    expected, killed = Following(*arguments), Following(*arguments)
    whole = expected.run()
    options = {"resume_file": tmp_path / "resume.safetensors", "save_every_seconds": 0}

    told = []

    def die(done, total):
        told.append(done)
        if len(told) % 2 == 0:  # the first call says where a run begins
            raise Killed

    for _ in range(2):
        with pytest.raises(Killed):
            killed.run(progress=die, **options)
    result = killed.run(**options)
    assert told[0] == 0 and told[2] > 0
    assert result.resumed_from_step == 20 and result.status == "diverged"
    assert_same(killed, result, expected, whole)


def test_weights_whose_loss_is_not_finite_are_neither_kept_nor_left():
    """After one step they are finite themselves, so large that their squared error is not."""
    settings = TrajectorySettings(learning_rate=1e25, steps=10)
    following = Following(linear, "mean_squared_error", settings, range(11), SINGLE)
    result = following.run()
    assert result.diverged_at == "step 1" and list(following.kept) == [0]
    assert_equal(following.model.state_dict(), linear().state_dict())


def test_nan_among_the_examples_is_named_before_any_step():
    inputs = TRAIN.inputs.clone()
    inputs[3, 1] = math.nan
    following = Following(splits=(replace(TRAIN, inputs=inputs), TEST))
    with pytest.raises(NotFiniteError, match=r"step 0: the untrained network's loss .* NaN among the examples"):
        following.run()
    assert following.kept == {}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"keep_at": [0, 41]}, "weights of step 41 asked for; allowed: steps 0 to 40"),
        ({"keep_at": [-1]}, "weights of step -1 asked for; allowed: steps 0 to 40"),
        (
            {"settings": replace(SETTINGS, batch_size=26)},
            "mini-batches of 26 asked for, 25 training .* at most so",
        ),
        (
            {"settings": replace(SETTINGS, switch_step=5, later_batch_size=26)},
            "mini-batches of 26 asked for, 25 training .* at most so",
        ),
        (
            {"settings": replace(SETTINGS, switch_step=5, later_batch_size=1)},
            "later_batch_size: 1 given; allowed with batch norm: at least 2",
        ),
        ({"settings": replace(SETTINGS, batch_size=1)}, "batch_size: 1 given; allowed with batch norm: at least 2"),
        (
            {"settings": replace(SETTINGS, batch_size=0), "splits": (examples(1), TEST)},
            "batch_size: 1 given; allowed with batch norm: at least 2",
        ),
        ({"loss": "hinge"}, "loss 'hinge' is unknown; allowed: cross_entropy"),
    ],
)
def test_what_cannot_be_followed_is_refused_before_anything_is_kept(arguments, message):
    following = Following(**arguments)
    with pytest.raises(InputError, match=message):
        following.run()
    assert following.kept == {}


def test_bad_settings_are_all_named_at_once():
    with pytest.raises(
        InputError, match=r"learning_rate: 0 given; .*steps: 0 given; .*momentum: 1 given; allowed: .*0, 1"
    ):
        TrajectorySettings(learning_rate=0, steps=0, momentum=1)
    for name, value in {"batch_size": -1, "weight_decay": -0.1, "decay_factor": 0, "learning_rate": math.inf}.items():
        with pytest.raises(InputError, match=f"{name}: {value} given"):
            TrajectorySettings(**{name: value})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"switch_step": 40}, "switch_step: 40 given; allowed: a whole number from 1 to 39, the steps less one, or 0"),
        ({"switch_step": -1}, "switch_step: -1 given"),
        ({"later_batch_size": 5}, "switch_step: 0 given; allowed: a whole number from 1 to 39, the steps less one$"),
        ({"switch_step": 41, "later_batch_size": 5}, "switch_step: 41 given; allowed: a whole number from 1 to 39"),
        ({"switch_step": 5, "later_batch_size": -1}, "later_batch_size: -1 given; allowed: .* or 0 without a switch"),
    ],
)
def test_a_switch_that_is_not_among_the_steps_is_refused(given, message):
    with pytest.raises(InputError, match=message):
        replace(SETTINGS, **given)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_follows_the_same_path():
    splits = tuple(split.to("cuda") for split in (TRAIN, TEST))
    on_gpu, on_cpu = Following(lambda: network().cuda(), splits=splits), Following()
    on_gpu.run()
    on_cpu.run()
    for step, (facts, state) in on_cpu.kept.items():
        assert on_gpu.kept[step][0]["train_loss"] == pytest.approx(facts["train_loss"], rel=1e-9)
        for name, tensor in state.items():
            torch.testing.assert_close(on_gpu.kept[step][1][name].cpu(), tensor, rtol=1e-8, atol=1e-10)
