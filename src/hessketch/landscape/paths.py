"""A path of low loss between two trained networks, found by minimisation (Garipov et al. 2018; Draxler et al. 2018)."""

import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from math import comb
from pathlib import Path

import torch
from torch import Tensor, nn

from hessketch.curvature.job import tensors_digest
from hessketch.curvature.losses import Loss, loss_function
from hessketch.curvature.points import ParameterSpace
from hessketch.curvature.precision import arithmetic
from hessketch.data.examples import Examples
from hessketch.described import described, require_allowed
from hessketch.errors import InputError, NotFiniteError
from hessketch.landscape.lines import weights_space
from hessketch.linalg.vectors import ProgressCallback, no_progress
from hessketch.records import read_tensors, write_tensors
from hessketch.seeds import derive_seed

KINDS = ("bezier", "polyline")
_BLOCK = 100  # steps between looks at the losses; random numbers are drawn for as many, so a path resumes between them
_PIECES = 200  # between two control points, where lengths are added up


@dataclass(frozen=True)
class PathSettings:
    """How a path is searched for.

    The defaults were chosen on digits at 8x8 (1,297 examples; MLPs of 870 and 1,930 parameters, trained for 1000 steps
    with batches of 250, and of 10 from another seed; 3 seeds): of a barrier of up to 3.2 nats on the straight line less
    than 1e-4 is left on each path, in about a second on one core. A rate of 0.003 left up to 3e-3 there; 0.01 left as
    little, by longer detours. More steps lengthen a path and can raise the test loss along it: what is minimised is the
    train loss, also where the line is low already.
    """

    kind: str = described("bezier", "a Bezier curve through its two ends, or straight pieces", KINDS)
    bends: int = described(5, "control points between the ends, which are moved")
    steps: int = described(1000, "steps of Adam that move them")
    batch_size: int = described(100, "examples in a step, as many as there are where they are fewer; 0 for all")
    learning_rate: float = described(0.005, "rate of Adam, which falls to 0 over the second half of the steps")
    momentum: float = described(0.9, "momentum of Adam, in [0, 1)")

    def __post_init__(self) -> None:
        """Raises InputError for values that no search could use."""
        rules = {
            "bends": (self.bends >= 1, "a whole number of at least 1"),
            "steps": (self.steps >= 1, "a whole number of at least 1"),
            "batch_size": (self.batch_size >= 0, "a whole number of at least 1, or 0 for all examples"),
            "learning_rate": (0 < self.learning_rate < math.inf, "a number above 0"),
            "momentum": (0 <= self.momentum < 1, "a number in [0, 1)"),
        }
        require_allowed(self, rules)

    def rate_at(self, step: int) -> float:
        """Learning rate of a step, counted from 0."""
        return self.learning_rate * min(1.0, 2 * (1 - step / self.steps))


def basis_weights(kind: str, bends: int, t: Tensor) -> Tensor:
    """Weights (k, bends + 2) of the control points at t (k,) in [0, 1], float64: each row sums to 1.

    Bernstein polynomials for a Bezier curve (Garipov et al. 2018, section 3, of any degree), hat functions for
    straight pieces. At t = 0 and t = 1 all weight is on that end, exactly.
    """
    t, pieces = t.double()[:, None], bends + 1
    i = torch.arange(pieces + 1, dtype=torch.float64, device=t.device)
    if kind == "bezier":
        binomial = torch.tensor([comb(pieces, j) for j in range(pieces + 1)], dtype=torch.float64, device=t.device)
        return binomial * t**i * (1 - t) ** (pieces - i)
    return (1 - (t * pieces - i).abs()).clamp(min=0)


@dataclass(frozen=True)
class Curve:
    """A curve through parameter space: its control points (bends + 2, p), the two ends among them."""

    kind: str
    points: Tensor

    def at(self, t: Tensor) -> Tensor:
        """Its points (k, p) at t (k,) in [0, 1]; the ends at 0 and 1 exactly."""
        with arithmetic():
            return basis_weights(self.kind, len(self.points) - 2, t).to(self.points) @ self.points

    def length(self) -> float:
        """Length of the curve: of pieces between points of it, by the inner products of its control points alone."""
        moves = (self.points - self.points[0]).double()
        t = torch.linspace(0, 1, _PIECES * (len(self.points) - 1) + 1, dtype=torch.float64, device=moves.device)
        steps = basis_weights(self.kind, len(self.points) - 2, t).diff(dim=0)
        return float((steps @ (moves @ moves.T) * steps).sum(1).clamp(min=0).sqrt().sum())


def find_path(
    model: nn.Module,
    first: Tensor,
    second: Tensor,
    loss: str,
    examples: Examples,
    settings: PathSettings,
    seed: int,
    *,
    resume_file: Path | None = None,
    save_every_seconds: float = 30.0,
    progress: ProgressCallback | None = None,
) -> Curve:
    """A path between `first` and `second` (p,) along which the mean loss over the examples is low.

    Minimises the loss expected at a uniform t in [0, 1] over the inner control points, which start evenly spread on
    the straight line: a t and a mini-batch a step, drawn with replacement from `seed` (Garipov et al. 2018, equation
    2; Draxler et al. 2018 move such points by a nudged elastic band). The model, in eval mode, lends its structure and
    dtype alone, its weights stay. With `resume_file` the state is saved every `save_every_seconds` and a search for the
    same path continues from it, to the same result bit for bit on a CPU; the caller deletes it when done.

    Raises InputError as `weights_space`, for an unknown loss, ends of another size, and mini-batches larger than the
    examples; NotFiniteError naming the first step whose loss is not finite.
    """
    space, function = weights_space(model), loss_function(loss)
    _require_sound(space, first, second, examples, settings)
    ends = [space.converted(end.detach()) for end in (first, second)]
    search = _Search(space, ends, settings)
    given = [*ends, examples.inputs, examples.targets]
    same = {**asdict(settings), "loss": loss, "seed": seed, "given": tensors_digest(given)}
    begun = search.load(resume_file, same) if resume_file else 0
    inputs, targets = space.converted(examples.inputs), space.converted(examples.targets)
    report, last_saved = progress or no_progress, time.monotonic()
    for start in range(begun, settings.steps, _BLOCK):
        losses = []
        with arithmetic():
            for step, weights, chosen in _draws(start, len(examples), settings, seed, ends[0]):
                batch = (inputs, targets) if chosen is None else (inputs[chosen], targets[chosen])
                losses.append(search.step(step, weights, function, *batch))
        _require_finite(losses, search.curve(), start)
        done = start + len(losses)
        if resume_file is not None and time.monotonic() - last_saved >= save_every_seconds:
            search.save(resume_file, done, same)
            last_saved = time.monotonic()
        report(done, settings.steps)
    return search.curve()


class _Search:
    """The inner control points and Adam's moments of them."""

    def __init__(self, space: ParameterSpace, ends: list[Tensor], settings: PathSettings):
        self._space, self._ends, self._settings = space, ends, settings
        t = torch.arange(1, settings.bends + 1, device=space.device)[:, None] / (settings.bends + 1)
        self._inner = torch.lerp(ends[0], ends[1], t.to(ends[0])).requires_grad_()
        self._adam = torch.optim.Adam([self._inner], lr=settings.learning_rate, betas=(settings.momentum, 0.999))

    def step(self, step: int, weights: Tensor, loss: Loss, inputs: Tensor, targets: Tensor) -> Tensor:
        """Moves the points by a step; the loss before it, still on the device."""
        for group in self._adam.param_groups:
            group["lr"] = self._settings.rate_at(step)
        value = self._space.limit.run(lambda size: self._backward(weights, loss, inputs, targets, size), len(targets))
        self._adam.step()
        return value

    def _backward(self, weights: Tensor, loss: Loss, inputs: Tensor, targets: Tensor, size: int) -> Tensor:
        """The loss, its gradient left in the inner points: of so many examples at once."""
        self._adam.zero_grad(set_to_none=True)
        total = torch.zeros((), dtype=self._inner.dtype, device=self._inner.device)
        for part, labels in zip(inputs.split(size), targets.split(size), strict=True):
            value = self.loss(weights, loss, part, labels) * (len(labels) / len(targets))
            value.backward()
            total += value.detach()
        return total

    def loss(self, weights: Tensor, loss: Loss, inputs: Tensor, targets: Tensor) -> Tensor:
        """The mean loss where the control points have these weights (bends + 2,), a function of the inner ones."""
        theta = weights[0] * self._ends[0] + weights[1:-1] @ self._inner + weights[-1] * self._ends[1]
        return loss(self._space.outputs(theta, inputs), targets).mean()

    def curve(self) -> Curve:
        return Curve(self._settings.kind, torch.cat([self._ends[0][None], self._inner.detach(), self._ends[1][None]]))

    def save(self, file: Path, done: int, same: dict) -> None:
        moments = self._adam.state[self._inner]
        tensors = {"points": self._inner, "mean": moments["exp_avg"], "square": moments["exp_avg_sq"]}
        write_tensors(tensors, file, {"done": done, "same": same})

    def load(self, file: Path, same: dict) -> int:
        """Steps done in the state that was saved; 0, and nothing is restored, where there is none of this search."""
        if not file.is_file():
            return 0
        try:
            tensors, metadata = read_tensors(file)
        except InputError:  # damaged: starting anew is always right
            return 0
        if metadata.get("same") != same:
            return 0
        self._inner.data.copy_(tensors["points"])
        self._adam.state[self._inner] = {
            "step": torch.tensor(float(metadata["done"])),
            "exp_avg": tensors["mean"].to(self._inner),
            "exp_avg_sq": tensors["square"].to(self._inner),
        }
        return metadata["done"]


def _draws(
    start: int, n: int, settings: PathSettings, seed: int, like: Tensor
) -> Iterator[tuple[int, Tensor, Tensor | None]]:
    """(step, weights of the control points, indices of its examples or None for all) of a block of steps.

    From the seed and `start` alone; the weights, at a uniform t, with the dtype and device of `like`.
    """
    generator = torch.Generator().manual_seed(derive_seed(seed, f"step {start}", "path"))
    count = min(_BLOCK, settings.steps - start)
    t = torch.rand(count, generator=generator, dtype=torch.float64)
    weights = basis_weights(settings.kind, settings.bends, t).to(like)
    whole = settings.batch_size in (0, n)
    chosen = None if whole else torch.randint(n, (count, settings.batch_size), generator=generator).to(like.device)
    for place in range(count):
        yield start + place, weights[place], None if chosen is None else chosen[place]


def _require_sound(space: ParameterSpace, first: Tensor, second: Tensor, examples: Examples, settings) -> None:
    p = len(space.theta)
    for name, end in (("first", first), ("second", second)):
        if tuple(end.shape) != (p,):
            raise InputError(f"{name} has shape {tuple(end.shape)}, the network {p} parameters; give ({p},)")
        if not torch.isfinite(end).all():
            raise NotFiniteError(f"the {name} end of the path is not finite")
    if settings.batch_size > len(examples):
        raise InputError(
            f"mini-batches of {settings.batch_size} asked for, {len(examples)} examples given; allowed: at most so "
            "many, or 0 for all"
        )


def _require_finite(losses: list[Tensor], curve: Curve, start: int) -> None:
    bad = (~torch.isfinite(torch.stack(losses).cpu())).nonzero()  # one synchronisation for many steps
    step = int(bad[0]) + 1 if len(bad) else len(losses)
    if len(bad) or not torch.isfinite(curve.points).all():
        raise NotFiniteError(f"step {start + step} of the path's search: not finite; take a smaller learning_rate")
