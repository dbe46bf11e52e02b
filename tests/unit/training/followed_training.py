"""One small training to follow, by `follow` and by hand."""

import copy
from itertools import chain, count, islice

import torch
from torch import nn

from hessketch.curvature.losses import LOSSES
from hessketch.data.examples import Examples
from hessketch.seeds import derive_seed
from hessketch.training.sgd import epoch_batches
from hessketch.training.trajectory import TrajectorySettings, follow

SETTINGS = TrajectorySettings(learning_rate=0.05, steps=40, batch_size=8)
KEPT = [0, 1, 17, 23, 40]
SEED = 3


def examples(count: int = 25, seed: int = 0, dtype: torch.dtype = torch.float64) -> Examples:
    generator = torch.Generator().manual_seed(seed)
    targets = torch.randint(0, 3, (count,), generator=generator)
    inputs = torch.randn(count, 5, generator=generator, dtype=torch.float64) + targets[:, None]
    return Examples(inputs.to(dtype), targets, 3)


def network(dtype: torch.dtype = torch.float64, norm: bool = True) -> nn.Module:
    middle = [nn.BatchNorm1d(7)] if norm else []
    model = nn.Sequential(nn.Linear(5, 7), *middle, nn.ReLU(), nn.Linear(7, 3))
    return filled(model, 0.3).to(dtype)


def linear() -> nn.Module:
    """With the squared error its weights grow by about the same factor in each step if the rate is too large."""
    return filled(nn.Sequential(nn.Linear(5, 3)), 0.3)


def filled(model: nn.Module, scale: float) -> nn.Module:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)
    return model


TRAIN, TEST = examples(), examples(11, 1)


class Following:
    """Arguments of one training that may be called several times, and everything that it kept."""

    def __init__(self, make=network, loss="cross_entropy", settings=SETTINGS, keep_at=KEPT, splits=(TRAIN, TEST)):
        self.make, self.loss, self.settings, self.keep_at, self.splits = make, loss, settings, keep_at, splits
        self.kept = {}
        self.model = None

    def run(self, *, die_in_keep=None, seed=SEED, **options):
        self.model = self.make()

        def keep(facts):
            if facts["step"] == die_in_keep:
                raise Killed
            self.kept[facts["step"]] = (dict(facts), copy.deepcopy(self.model.state_dict()))

        return follow(
            self.model, self.loss, *self.splits, self.settings, seed, keep_at=self.keep_at, keep=keep, **options
        )


class Killed(Exception):
    pass


def parts_by_hand(settings, seed):
    """(batch size, seed of the order, last step) before the switch and after it, where epochs begin anew."""
    if not settings.later_batch_size:
        return [(settings.batch_size, seed, settings.steps)]
    later = derive_seed(seed, "after the switch", "batch order")
    return [
        (settings.batch_size, seed, settings.switch_step),
        (settings.later_batch_size, later, settings.steps),
    ]


def by_hand(model, settings, loss="cross_entropy", seed=SEED, train=TRAIN):
    """Plain SGD, one step at a time: yields (steps done, examples seen, loss of the step's mini-batch)."""
    n, velocity = len(train), None
    step = seen = 0
    for size, order, last in parts_by_hand(settings, seed):
        epochs = ([torch.arange(n)] if size in (0, n) else epoch_batches(n, size, order, epoch) for epoch in count())
        for indices in islice(chain.from_iterable(epochs), last - step):
            thirds = (3 * step >= settings.steps) + (3 * step >= 2 * settings.steps)
            rate = settings.learning_rate * settings.decay_factor**thirds
            model.train()
            value = LOSSES[loss](model(train.inputs[indices]), train.targets[indices]).mean()
            gradients = torch.autograd.grad(value, list(model.parameters()))
            pairs = zip(gradients, model.parameters(), strict=True)
            gradients = [g + settings.weight_decay * p.detach() for g, p in pairs]
            if velocity is None:
                velocity = gradients
            else:
                velocity = [settings.momentum * v + g for v, g in zip(velocity, gradients, strict=True)]
            with torch.no_grad():
                for parameter, v in zip(model.parameters(), velocity, strict=True):
                    parameter.sub_(rate * v)
            step, seen = step + 1, seen + len(indices)
            yield step, seen, value.item()


def assert_equal(state, expected):
    """To the last bit."""
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[name], tensor) for name, tensor in expected.items())


def assert_same(following, result, expected, whole):
    """Two trainings that may differ in the time they took and where they resumed."""
    assert_equal(following.model.state_dict(), expected.model.state_dict())
    assert timeless(result.history) == timeless(whole.history)
    assert (result.status, result.diverged_at) == (whole.status, whole.diverged_at)
    assert sorted(following.kept) == sorted(expected.kept)
    for step, (facts, state) in expected.kept.items():
        assert following.kept[step][0] == facts
        assert_equal(following.kept[step][1], state)


def timeless(history):
    return [{name: value for name, value in row.items() if name != "seconds"} for row in history]
