"""SGD that is followed step by step: weights kept at chosen steps, with loss and accuracy over all examples."""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hessketch.curvature.losses import Loss, evaluation, loss_function
from hessketch.data.examples import Examples
from hessketch.described import described, require_allowed
from hessketch.errors import InputError, NotFiniteError
from hessketch.networks.layers import has_batch_norm
from hessketch.schedules import decayed, is_due
from hessketch.seeds import derive_seed
from hessketch.trainers import FULL_BATCH
from hessketch.training.captured import step_of
from hessketch.training.resume import Saving
from hessketch.training.sgd import all_finite, epoch_batches
from hessketch.training.steps import sgd_of

_EVALUATION_BATCH = 1000
_EVALUATIONS = 50


@dataclass(frozen=True)
class TrajectorySettings:
    """Settings of one followed training: plain SGD with a fixed step unless more is asked for."""

    learning_rate: float = described(0.1, "learning rate")
    steps: int = described(1000, "steps of SGD")
    batch_size: int = described(FULL_BATCH, "examples in a step; 0 for all")
    momentum: float = described(0.0, "momentum, in [0, 1)")
    weight_decay: float = described(0.0, "weight decay added to the gradient")
    decay_factor: float = described(1.0, "the rate is multiplied by this at 1/3 and 2/3 of the steps")
    switch_step: int = described(0, "steps after which a run with two batch sizes takes its later one; 0 for none")
    later_batch_size: int = described(0, "examples in a step after the switch; 0 where nothing is switched")

    def __post_init__(self) -> None:
        """Raises InputError for values that no training could use."""
        rules = {
            "learning_rate": (0 < self.learning_rate < math.inf, "a number above 0"),
            "steps": (self.steps >= 1, "a whole number of at least 1"),
            "batch_size": (self.batch_size >= 0, "a whole number of at least 1, or 0 for all examples"),
            "momentum": (0 <= self.momentum < 1, "a number in [0, 1)"),
            "weight_decay": (0 <= self.weight_decay < math.inf, "a number of at least 0"),
            "decay_factor": (0 < self.decay_factor <= 1, "a number in (0, 1]"),
            "switch_step": _switch_rule(self),
            "later_batch_size": (self.later_batch_size >= 0, "a whole number of at least 1, or 0 without a switch"),
        }
        require_allowed(self, rules)


def _switch_rule(settings: TrajectorySettings) -> tuple[bool, str]:
    """A switch lies between two steps; settings for several runs may name one that only some of them take."""
    least, without = (1, "") if settings.later_batch_size else (0, ", or 0 for none")
    allowed = f"a whole number from 1 to {settings.steps - 1}, the steps less one{without}"
    return least <= settings.switch_step < settings.steps, allowed


@dataclass(frozen=True)
class Followed:
    """What a followed training ended with; the model itself holds the final (or last finite) weights."""

    history: list[dict]  # facts of a trajectory, with learning_rate and seconds; the first row is step 0
    status: str  # "finished" or "diverged"
    diverged_at: str | None  # "step 17"
    resumed_from_step: int  # 0 when trained in one go
    captured_steps: bool  # whether steps were CUDA graphs


def steps_of_epochs(epochs: int, examples: int, batch_size: int) -> int:
    """Steps in so many passes over the examples, as `follow` takes them."""
    return epochs * _steps_of_one(examples, batch_size)


def _steps_of_one(examples: int, batch_size: int) -> int:
    return len(epoch_batches(examples, batch_size or examples, 0, 0))


def _parts(settings: TrajectorySettings) -> list[tuple[range, int]]:
    """The steps before and after the switch, if there is one, and the examples in a step of each."""
    if not settings.later_batch_size:
        return [(range(settings.steps), settings.batch_size)]
    switch = settings.switch_step
    return [(range(switch), settings.batch_size), (range(switch, settings.steps), settings.later_batch_size)]


def _epochs(step: int, examples: int, settings: TrajectorySettings) -> float:
    """Examples seen over examples; the last batch of an epoch may be smaller than others, or larger by one."""
    epochs = 0.0
    for steps, batch_size in _parts(settings):
        done = max(min(step, steps.stop) - steps.start, 0)
        whole, begun = divmod(done, _steps_of_one(examples, batch_size))
        epochs += whole + begun * batch_size / examples
    return epochs


def follow(
    model: nn.Module,
    loss: str,
    train: Examples,
    test: Examples,
    settings: TrajectorySettings,
    seed: int,
    *,
    keep_at: Sequence[int],
    keep: Callable[[Mapping[str, Any]], None],
    identity: Mapping[str, Any] | None = None,
    resume_file: Path | None = None,
    save_every_seconds: float = 30.0,
    progress: Callable[[int, int], None] | None = None,
) -> Followed:
    """Trains `model` in place; `keep(facts)` is called at each step of `keep_at` (0: before the first).

    `seed` fixes the order of the mini-batches; before a switch it is that of a training without one, after it epochs
    begin anew, with permutations of their own. Loss and accuracy are taken over all examples in eval mode at the kept
    steps, at 50 steps spread evenly and at the last. With `resume_file` the state is saved at such steps, every
    `save_every_seconds`, and a training with the same settings and `identity` continues from it (steps that were kept
    before are not kept again); the caller deletes it when done. A loss or weight that is not finite stops the training
    with status "diverged", the step named, and the model gets back its weights of the last such step. A mini-batch that
    does not fit into memory is cut into micro-batches, with batch norm an InputError (`micro_batches`).

    Raises InputError for steps to keep beyond the last, and for batches that the examples or batch norm do not allow;
    NotFiniteError where the loss of the untrained network is not finite.
    """
    _require_sound(model, train, settings, keep_at)
    loss_of = loss_function(loss)
    optimizer = sgd_of(model, settings, train.inputs.device)
    take = step_of(model, loss_of, optimizer, train)
    data = {"loss": loss, "seed": seed, "examples": [len(train), len(test)], "kept": sorted(keep_at)}
    same = {**asdict(settings), **data, **(identity or {})}
    saving = Saving(resume_file, save_every_seconds, model, optimizer, same)
    history = saving.resume()
    resumed_from = history[-1]["step"] if history else 0
    course = _Course(model, loss_of, train, test, settings, history, keep_at, keep)

    if not history:
        course.evaluate(0)
    if progress is not None:
        progress(resumed_from, settings.steps)
    pending: list[Tensor] = []
    last_finite = _copy(model)
    for step, indices in _batches(train, settings, seed, resumed_from):
        take.set_rate(decayed(settings.learning_rate, settings.decay_factor, step, settings.steps))
        model.train()
        pending.append(take(indices)[0])
        if step + 1 in keep_at or is_due(step, settings.steps, _EVALUATIONS):
            try:
                _require_finite(model, pending, step)
                course.evaluate(step + 1)
            except NotFiniteError as error:
                model.load_state_dict(last_finite)
                model.eval()
                return Followed(history, "diverged", str(error), resumed_from, take.captured)
            pending, last_finite = [], _copy(model)
            saving.save_if_due(history)
            if progress is not None:
                progress(step + 1, settings.steps)
    model.eval()
    return Followed(history, "finished", None, resumed_from, take.captured)


class _Course:
    """Evaluations on the way: rows of the history, with the seconds since the one before, and what is kept."""

    def __init__(
        self,
        model: nn.Module,
        loss: Loss,
        train: Examples,
        test: Examples,
        settings: TrajectorySettings,
        history: list[dict[str, Any]],
        keep_at: Sequence[int],
        keep: Callable[[Mapping[str, Any]], None],
    ):
        self._keep_at, self._keep = keep_at, keep
        self._model, self._loss, self._settings, self._history = model, loss, settings, history
        self._examples = len(train)
        self._splits = {name: part.batches(_EVALUATION_BATCH) for name, part in (("train", train), ("test", test))}
        self._start = time.perf_counter()

    def evaluate(self, step: int) -> None:
        """Adds facts of a trajectory to the history, and keeps the weights where asked; NotFiniteError as of losses."""
        settings, losses = self._settings, evaluation(self._model, self._loss, **self._splits)
        facts = {"step": step, "epoch": _epochs(step, self._examples, settings), **losses}
        _require_finite_losses(facts)
        rate = decayed(settings.learning_rate, settings.decay_factor, max(step - 1, 0), settings.steps)
        now = time.perf_counter()
        self._history.append({**facts, "learning_rate": rate, "seconds": now - self._start})
        self._start = now
        if step in self._keep_at:
            self._keep(facts)


def _require_sound(model: nn.Module, train: Examples, settings: TrajectorySettings, keep_at: Sequence[int]) -> None:
    beyond = [step for step in keep_at if not 0 <= step <= settings.steps]
    if beyond:
        raise InputError(f"weights of step {beyond[0]} asked for; allowed: steps 0 to {settings.steps}")
    for (_, batch_size), name in zip(_parts(settings), ("batch_size", "later_batch_size"), strict=False):
        if batch_size > len(train):
            raise InputError(
                f"mini-batches of {batch_size} asked for, {len(train)} training examples given; allowed: at most so "
                "many, or 0 for all"
            )
        if has_batch_norm(model) and (batch_size or len(train)) == 1:
            raise InputError(f"{name}: 1 given; allowed with batch norm: at least 2 (one example has no variance)")


def _batches(
    train: Examples, settings: TrajectorySettings, seed: int, first: int
) -> Iterator[tuple[int, Tensor | None]]:
    """(step, indices) from step `first` on; None for all examples.

    The order follows from seed, epoch and side of the switch alone.
    """
    examples, device = len(train), train.inputs.device
    seeds = (seed, derive_seed(seed, "after the switch", "batch order"))
    for (steps, batch_size), own in zip(_parts(settings), seeds, strict=False):
        of_epoch = _steps_of_one(examples, batch_size)
        for epoch in count(max(first - steps.start, 0) // of_epoch):
            begin = steps.start + epoch * of_epoch
            if begin >= steps.stop:
                break
            whole = batch_size in (FULL_BATCH, examples)
            batches = [None] if whole else epoch_batches(examples, batch_size, own, epoch, device)
            yield from ((s, b) for s, b in enumerate(batches, begin) if first <= s < steps.stop)


def _require_finite(model: nn.Module, losses: list[Tensor], step: int) -> None:
    """Raises NotFiniteError naming the first of the last steps whose loss or weights are not finite."""
    values = torch.stack(losses).cpu()  # one synchronisation for many steps
    bad = (~torch.isfinite(values)).nonzero()
    if len(bad):
        raise NotFiniteError(f"step {step + 2 - len(losses) + int(bad[0])}")
    if not all_finite(model):
        raise NotFiniteError(f"step {step + 1}")


def _require_finite_losses(facts: Mapping[str, Any]) -> None:
    """Raises NotFiniteError naming the step: finite weights may be so large that the losses are not."""
    if not math.isfinite(facts["train_loss"] + facts["test_loss"]):
        where = "" if facts["step"] else ": the untrained network's loss is not finite; look for NaN among the examples"
        raise NotFiniteError(f"step {facts['step']}{where}")


def _copy(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}
