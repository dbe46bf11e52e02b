"""Trainings where a mini-batch does not fit into memory: cut where nothing depends on it, else an error."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from hessketch.curvature.losses import LOSSES, cross_entropy
from hessketch.data.examples import Examples
from hessketch.errors import InputError
from hessketch.progress import notes_said
from hessketch.training.micro_batches import mean_loss_backward, step_limit
from hessketch.training.settings import TrainingSettings
from hessketch.training.sgd import train
from hessketch.training.trajectory import TrajectorySettings, follow

pytestmark = pytest.mark.usefixtures("quick_collections")
SETTINGS = TrainingSettings(learning_rate=0.2, epochs=3, batch_size=16)


class Narrow(nn.Module):
    """A network on a device without room for more than so many examples at once."""

    def __init__(self, inner, room):
        super().__init__()
        self.inner, self.room = inner, room

    def forward(self, inputs):
        if len(inputs) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return self.inner(inputs)


def network(norm=None):
    torch.manual_seed(0)
    layers = [nn.Linear(5, 8), nn.BatchNorm1d(8) if norm == "batch" else nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, 3)]
    return nn.Sequential(*layers).double()


@pytest.fixture(scope="module")
def examples():
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(45, 5, generator=generator, dtype=torch.float64)
    return Examples(inputs, torch.randint(0, 3, (45,), generator=generator), 3)


def weights(model):
    return torch.cat([p.detach().reshape(-1) for p in model.parameters()])


@pytest.mark.parametrize("loss", LOSSES)
def test_gradients_of_micro_batches_add_up_to_that_of_the_mini_batch(examples, loss):
    model, wide = network(), network()
    value, outputs = mean_loss_backward(wide, LOSSES[loss], examples.inputs, examples.targets, step_limit(wide))
    limited = Narrow(model, 7)
    for _ in range(2):  # what the first step left in .grad is not added to
        found = mean_loss_backward(limited, LOSSES[loss], examples.inputs, examples.targets, step_limit(limited))
        torch.testing.assert_close(found, (value, outputs), rtol=1e-12, atol=1e-14)
        for parameter, expected in zip(model.parameters(), wide.parameters(), strict=True):
            torch.testing.assert_close(parameter.grad, expected.grad, rtol=1e-12, atol=1e-14)


def test_memory_that_runs_out_in_the_middle_of_a_backward_pass_leaves_no_half_gradient(examples):
    model, wide = network(), network()
    mean_loss_backward(wide, cross_entropy, examples.inputs, examples.targets, step_limit(wide))
    refusals = iter([False, True, True])  # first micro-batch done, second not

    def loss(outputs, targets):
        if len(targets) > 22 or (len(targets) > 11 and next(refusals)):
            raise torch.OutOfMemoryError("CUDA out of memory")
        return cross_entropy(outputs, targets)

    mean_loss_backward(model, loss, examples.inputs, examples.targets, step_limit(model))
    for parameter, expected in zip(model.parameters(), wide.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, expected.grad, rtol=1e-12, atol=1e-14)


def test_a_training_in_micro_batches_ends_with_the_same_weights_and_says_so_once(examples):
    wide, limited, said = network(), Narrow(network(), 9), []
    expected = train(wide, "cross_entropy", examples, examples, SETTINGS, 0)
    with notes_said(said.append):
        found = train(limited, "cross_entropy", examples, examples, SETTINGS, 0)
    torch.testing.assert_close(weights(limited), weights(wide), rtol=1e-10, atol=1e-12)
    assert [row["train_accuracy"] for row in found.history] == [row["train_accuracy"] for row in expected.history]
    assert said.count("out of memory with mini-batches of 16 examples: halved to 8") == 1


def test_a_followed_training_in_micro_batches_ends_with_the_same_weights(examples):
    wide, limited = network(), Narrow(network(), 9)
    for model in (wide, limited):
        follow(
            model, "cross_entropy", examples, examples, TrajectorySettings(steps=6), 0, keep_at=[6], keep=lambda _: None
        )
    torch.testing.assert_close(weights(limited), weights(wide), rtol=1e-10, atol=1e-12)


def test_with_batch_norm_a_mini_batch_is_not_cut_and_the_error_names_the_key(examples):
    model = Narrow(network("batch"), 9)
    before = copy.deepcopy(model.state_dict())
    why = r"mini-batches of 16 examples; batch norm takes .*: lower the batch size \(training\.batch_size"
    with pytest.raises(InputError, match=why):
        train(model, "cross_entropy", examples, examples, SETTINGS, 0)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    train(model, "cross_entropy", examples, examples, replace(SETTINGS, batch_size=9), 0)


def test_an_error_of_another_kind_is_not_taken_for_want_of_memory(examples):
    wrong = Examples(examples.inputs[:, :4], examples.targets, 3)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        train(network(), "cross_entropy", wrong, wrong, SETTINGS, 0)
