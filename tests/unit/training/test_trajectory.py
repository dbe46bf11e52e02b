"""SGD that is followed, against SGD written out by hand: what is kept, what a kill loses, what a divergence leaves."""

import copy
import math
from dataclasses import replace
from itertools import chain, count, islice

import pytest
import torch
from torch import nn

from hessketch.curvature.losses import LOSSES, mean_loss_and_accuracy
from hessketch.data.examples import Examples
from hessketch.errors import InputError, NotFiniteError
from hessketch.seeds import derive_seed
from hessketch.training.sgd import epoch_batches
from hessketch.training.trajectory import TrajectorySettings, follow, steps_of_epochs

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


def assert_close(state, expected):
    assert state.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(state[name], tensor, rtol=1e-10, atol=1e-12)


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


@pytest.mark.parametrize("batch_size", [8, 0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_killed_training_ends_with_what_an_uninterrupted_one_has_to_the_last_bit(tmp_path, batch_size, dtype):
    """Killed while weights are kept, in the midst of an epoch, and after the last step was saved."""
    settings = replace(SETTINGS, steps=130, batch_size=batch_size, momentum=0.9, decay_factor=0.3)
    arguments = {"settings": settings, "keep_at": [0, 1, 50, 77, 130], "make": lambda: network(dtype)}
    arguments["splits"] = (examples(25, 0, dtype), examples(11, 1, dtype))
    expected = Following(**arguments)
    whole = expected.run()
    killed, resume = Following(**arguments), {"resume_file": tmp_path / "resume.safetensors", "save_every_seconds": 0}

    def die_after(last):
        def progress(done, total):
            if done >= last:
                raise Killed

        return progress

    for death, resumed_from in (
        ({"die_in_keep": 0}, None),
        ({"die_in_keep": 1}, None),
        ({"progress": die_after(20)}, 20),
        ({"die_in_keep": 77}, 75),
        ({"progress": die_after(101)}, 101),
        ({"progress": die_after(130)}, 130),
    ):
        with pytest.raises(Killed):
            killed.run(**death, **resume)
        assert (tmp_path / "resume.safetensors").is_file() == (resumed_from is not None)
    result = killed.run(**resume)
    assert result.resumed_from_step == 130 and whole.resumed_from_step == 0
    assert_same(killed, result, expected, whole)


@pytest.mark.parametrize("switch", [20, 21, 22])
def test_a_training_killed_on_either_side_of_its_switch_ends_with_the_same_weights(tmp_path, switch):
    """Killed once before it or at it, and once after it: the state is of step 20, then of step 31."""
    settings = replace(SETTINGS, momentum=0.9, switch_step=switch, later_batch_size=3)
    expected, killed = Following(settings=settings), Following(settings=settings)
    whole = expected.run()
    options = {"resume_file": tmp_path / "resume.safetensors", "save_every_seconds": 0}
    for last in (20, 31):

        def die(done, total, last=last):
            if done == last:
                raise Killed

        with pytest.raises(Killed):
            killed.run(progress=die, **options)
    result = killed.run(**options)
    assert result.resumed_from_step == 31
    assert_same(killed, result, expected, whole)


def test_steps_that_were_kept_before_a_kill_are_not_kept_again(tmp_path):
    options = {"resume_file": tmp_path / "resume.safetensors", "save_every_seconds": 0}
    killed, resumed = Following(), Following()
    with pytest.raises(Killed):
        killed.run(die_in_keep=23, **options)
    result = resumed.run(**options)
    assert list(killed.kept) == [0, 1, 17] and list(resumed.kept) == [23, 40]
    assert result.resumed_from_step == 22
    assert [row["step"] for row in result.history] == list(range(41))


def test_nothing_is_saved_before_it_is_time(tmp_path):
    Following().run(resume_file=tmp_path / "resume.safetensors", save_every_seconds=1000)
    assert not list(tmp_path.iterdir())


OTHERS = {
    "rate": {"settings": replace(SETTINGS, learning_rate=0.06)},
    "steps": {"settings": replace(SETTINGS, steps=41)},
    "batch size": {"settings": replace(SETTINGS, batch_size=9)},
    "momentum": {"settings": replace(SETTINGS, momentum=0.1)},
    "weight decay": {"settings": replace(SETTINGS, weight_decay=0.1)},
    "decay": {"settings": replace(SETTINGS, decay_factor=0.5)},
    "switch": {"settings": replace(SETTINGS, switch_step=30, later_batch_size=4)},
    "loss": {"loss": "mean_squared_error"},
    "kept steps": {"keep_at": [0, 40]},
    "examples": {"splits": (examples(24), TEST)},
    "test examples": {"splits": (TRAIN, examples(12, 1))},
}


@pytest.mark.parametrize("changes", OTHERS.values(), ids=OTHERS)
def test_a_state_of_other_settings_is_not_continued(tmp_path, changes):
    options = {"resume_file": tmp_path / "resume.safetensors", "save_every_seconds": 0}
    with pytest.raises(Killed):
        Following().run(die_in_keep=23, **options)
    other, fresh = Following(**changes), Following(**changes)
    result = other.run(resume_file=tmp_path / "resume.safetensors")
    assert result.resumed_from_step == 0
    assert_same(other, result, fresh, fresh.run())


@pytest.mark.parametrize("options", [{"seed": SEED + 1}, {"identity": {"run": "another"}}], ids=["seed", "identity"])
def test_a_state_of_another_seed_or_identity_is_not_continued(tmp_path, options):
    state = tmp_path / "resume.safetensors"
    with pytest.raises(Killed):
        Following().run(die_in_keep=23, resume_file=state, save_every_seconds=0, identity={"run": "this"})
    following = Following()
    result = following.run(resume_file=state, **{"identity": {"run": "this"}, **options})
    assert result.resumed_from_step == 0 and list(following.kept) == KEPT


def test_a_damaged_state_is_not_continued(tmp_path):
    state = tmp_path / "resume.safetensors"
    with pytest.raises(Killed):
        Following().run(die_in_keep=23, resume_file=state, save_every_seconds=0)
    state.write_bytes(state.read_bytes()[:100])
    following, fresh = Following(), Following()
    result = following.run(resume_file=state)
    assert result.resumed_from_step == 0
    assert_same(following, result, fresh, fresh.run())


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
