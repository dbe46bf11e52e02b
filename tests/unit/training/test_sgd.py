"""Training against SGD written out by hand; resuming, divergence and schedule."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from hessketch.curvature.losses import cross_entropy
from hessketch.data.examples import Examples
from hessketch.errors import InputError
from hessketch.training.settings import TrainingSettings
from hessketch.training.sgd import epoch_batches, train

SETTINGS = TrainingSettings(learning_rate=0.05, epochs=6, batch_size=8)


def _examples(count: int = 25, seed: int = 0, separation: float = 1.0) -> Examples:
    generator = torch.Generator().manual_seed(seed)
    targets = torch.randint(0, 3, (count,), generator=generator)
    inputs = torch.randn(count, 5, generator=generator) + separation * targets[:, None]
    return Examples(inputs, targets, 3)


def _network() -> nn.Module:
    model = nn.Sequential(nn.Linear(5, 7), nn.BatchNorm1d(7), nn.ReLU(), nn.Linear(7, 3))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return model


def _same_weights(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_training_is_sgd_with_momentum_and_weight_decay_as_written_out_by_hand():
    trained, by_hand = _network(), _network()
    examples = _examples()
    train(trained, "cross_entropy", examples, examples, SETTINGS, seed=3)
    velocity = [torch.zeros_like(p) for p in by_hand.parameters()]
    by_hand.train()
    for epoch in range(6):
        rate = [0.05, 0.05, 0.005, 0.005, 0.0005, 0.0005][epoch]
        for indices in epoch_batches(25, 8, 3, epoch):
            loss = cross_entropy(by_hand(examples.inputs[indices]), examples.targets[indices]).mean()
            gradients = torch.autograd.grad(loss, list(by_hand.parameters()))
            with torch.no_grad():
                for parameter, gradient, v in zip(by_hand.parameters(), gradients, velocity, strict=True):
                    v.mul_(0.9).add_(gradient + 5e-4 * parameter)
                    parameter.sub_(rate * v)
    for name, tensor in trained.state_dict().items():
        torch.testing.assert_close(tensor, by_hand.state_dict()[name], rtol=1e-4, atol=1e-6)


def test_the_rate_is_divided_by_ten_at_one_and_two_thirds_of_the_epochs():
    settings = TrainingSettings(learning_rate=1.0, epochs=200)
    rates = [settings.rate_at(epoch) for epoch in range(200)]
    changes = [epoch for epoch in range(1, 200) if rates[epoch] != rates[epoch - 1]]
    assert changes == [67, 134]
    assert rates[0] == 1.0 and rates[100] == pytest.approx(0.1) and rates[-1] == pytest.approx(0.01)


def test_each_epoch_visits_every_example_once_in_an_order_of_its_own():
    epochs = [torch.cat(epoch_batches(33, 8, 0, epoch)) for epoch in range(3)]
    assert all(torch.equal(order.sort().values, torch.arange(33)) for order in epochs)
    assert not torch.equal(epochs[0], epochs[1])
    assert torch.equal(epochs[0], torch.cat(epoch_batches(33, 8, 0, 0)))


def test_a_last_batch_of_one_joins_the_batch_before():
    assert [len(batch) for batch in epoch_batches(17, 8, 0, 0)] == [8, 9]
    assert [len(batch) for batch in epoch_batches(18, 8, 0, 0)] == [8, 8, 2]


def test_a_killed_training_resumes_to_the_same_weights_bit_for_bit(tmp_path):
    examples, state = _examples(), tmp_path / "resume.safetensors"

    class Kill(Exception):
        pass

    def kill_after_four(epoch, model):
        if epoch == 4:
            raise Kill

    whole, resumed = _network(), _network()
    full = train(whole, "cross_entropy", examples, examples, SETTINGS, seed=3)
    with pytest.raises(Kill):
        train(
            resumed, "cross_entropy", examples, examples, SETTINGS, 3,
            resume_file=state, save_every_seconds=0, checkpoint=kill_after_four,
        )  # fmt: skip
    resumed = _network()
    result = train(resumed, "cross_entropy", examples, examples, SETTINGS, 3, resume_file=state)
    assert result.resumed_from_epoch == 3
    assert _same_weights(whole, resumed)
    assert [row["train_loss"] for row in result.history] == [row["train_loss"] for row in full.history]


def test_the_state_of_another_training_or_a_damaged_one_is_not_resumed(tmp_path):
    examples, state = _examples(), tmp_path / "resume.safetensors"
    short = replace(SETTINGS, epochs=2)
    train(_network(), "cross_entropy", examples, examples, short, 3, resume_file=state, save_every_seconds=0)
    other = train(_network(), "cross_entropy", examples, examples, short, 4, resume_file=state)
    assert other.resumed_from_epoch == 0
    state.write_bytes(state.read_bytes()[:100])
    damaged = train(_network(), "cross_entropy", examples, examples, short, 3, resume_file=state)
    assert damaged.resumed_from_epoch == 0 and len(damaged.history) == 2


def test_a_diverging_training_stops_names_the_step_and_keeps_the_last_finite_weights():
    model, examples = _network(), _examples()
    result = train(model, "mean_squared_error", examples, examples, replace(SETTINGS, learning_rate=1e30), seed=0)
    assert result.status == "diverged"
    assert result.diverged_at.startswith("epoch 1, step ")
    assert all(torch.isfinite(tensor).all() for tensor in model.state_dict().values())
    assert _same_weights(model, _network())


def test_nan_among_the_examples_stops_a_training_and_names_the_step_or_the_test_loss():
    examples = _examples()
    place, broken = 7, replace(examples, inputs=examples.inputs.clone())
    broken.inputs[place].view(-1)[3] = torch.nan
    batches = epoch_batches(len(examples), SETTINGS.batch_size, 0, 0)
    step = next(number for number, batch in enumerate(batches, 1) if place in batch)
    for given, where in (((broken, examples), f"epoch 1, step {step}"), ((examples, broken), "epoch 1, test loss")):
        model = _network()
        result = train(model, "cross_entropy", *given, SETTINGS, seed=0)
        assert (result.status, result.diverged_at, result.history) == ("diverged", where, [])
        assert _same_weights(model, _network())


def test_checkpoints_are_offered_after_every_epoch_and_progress_is_told():
    epochs, steps = [], []
    examples = _examples()
    train(
        _network(), "cross_entropy", examples, examples, SETTINGS, 0,
        checkpoint=lambda epoch, model: epochs.append(epoch), progress=lambda done, total: steps.append((done, total)),
    )  # fmt: skip
    assert epochs == [1, 2, 3, 4, 5, 6]
    assert steps[-1] == (6, 6)


def test_the_test_set_is_evaluated_at_most_twenty_times_and_after_the_last_epoch():
    examples = _examples()
    result = train(_network(), "cross_entropy", examples, examples, replace(SETTINGS, epochs=50), 0)
    evaluated = [row["epoch"] for row in result.history if row["test_accuracy"] is not None]
    assert len(evaluated) == 20 and evaluated[-1] == 50


@pytest.mark.parametrize("loss", ["cross_entropy", "binary_cross_entropy", "mean_squared_error"])
def test_every_loss_is_learned(loss):
    examples = _examples(60, separation=3.0)
    settings = replace(SETTINGS, epochs=60, learning_rate=0.1)
    result = train(_network(), loss, examples, examples, settings, 0)
    assert result.history[-1]["test_accuracy"] > 0.8
    assert result.history[-1]["train_loss"] < result.history[0]["train_loss"] / 2


def test_bad_settings_are_all_named_at_once():
    with pytest.raises(InputError, match=r"learning_rate: 0 given; allowed: a number above 0; epochs: 0 given"):
        TrainingSettings(learning_rate=0, epochs=0)


def test_a_single_example_is_refused():
    with pytest.raises(InputError, match="at least 2"):
        train(_network(), "cross_entropy", _examples(1), _examples(), SETTINGS, 0)
