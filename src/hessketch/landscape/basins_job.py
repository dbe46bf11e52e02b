"""Lines and paths between the ends of trainings by large and by small batches, to tables, resuming after a kill."""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pandas
import torch
from torch import Tensor, nn

from hessketch.curvature.job import tensors_digest
from hessketch.curvature.losses import loss_function
from hessketch.curvature.operators import CurvatureOperator
from hessketch.data.examples import Examples
from hessketch.described import described, require_allowed
from hessketch.errors import InputError, NotFiniteError
from hessketch.landscape.ends import Pair, Solution, pairs_of
from hessketch.landscape.lines import MEASURED, barrier, line, measured_along, weights_space
from hessketch.landscape.paths import PathSettings, find_path
from hessketch.landscape.spectra_job import parameters_of
from hessketch.linalg.largest_eigenpairs import largest_eigenpairs
from hessketch.networks.registry import network_of
from hessketch.progress import Progress
from hessketch.provenance import Stopwatch, environment
from hessketch.runs import IDENTITY, Run
from hessketch.seeds import derive_seed
from hessketch.waiting_tables import WaitingTables

TABLES = ("paths", "barriers")
_CURVATURE_BATCH = 500


@dataclass(frozen=True)
class BasinSettings:
    """What is measured between two ends, besides how a path is searched for (PathSettings)."""

    points: int = described(40, "points on each unit of t, which is -1 to 2 on a line and 0 to 1 on a found path")
    top: int = described(0, "leading Hessian eigenvectors that the move is compared with; 0 for one a class")

    def __post_init__(self) -> None:
        """Raises InputError for values that no measurement could use."""
        rules = {
            "points": (self.points >= 2, "a whole number of at least 2"),
            "top": (self.top >= 0, "a whole number of at least 1, or 0 for one a class"),
        }
        require_allowed(self, rules)


def measure_basins(
    runs: Sequence[Run],
    solution_of: Callable[[Run], Solution],
    settings: BasinSettings,
    path: PathSettings,
    output: Path,
    *,
    device: torch.device,
    memory: int | None = None,
    save_every_seconds: float = 30.0,
    progress: Progress | None = None,
) -> dict:
    """Measures the straight line and a found path between the ends of each of `pairs_of(runs)`; the record.

    Writes TABLES and `record.json` into `output`. Train losses are over the training examples of the first end
    (`same_examples` says whether the second was trained on them too). A path's mini-batches are of all these examples
    where there are fewer than its `batch_size`; the record says of each pair how many. Finished pairs wait in
    `output/partial` until all are done, with the state of a path's search under way, so that a killed job goes on where
    it was. Pairs of a run that diverged are left out, and the record says why. Raises as `pairs_of`, before anything is
    measured InputError for more leading eigenvectors than parameters, and as `find_path`, errors naming the pair.
    """
    progress, watch, waiting = progress or Progress("basins"), Stopwatch(), WaitingTables(output, TABLES)
    pairs = pairs_of(runs)
    for pair in pairs:
        _require_measurable(pair, solution_of(pair.first), settings)
    measuring = _Measuring(settings, path, device, memory, save_every_seconds, progress)
    for number, pair in enumerate(pairs, start=1):
        ends = solution_of(pair.first), solution_of(pair.second)
        folder = waiting.part(_task(pair, ends, settings, path))
        if waiting.is_done(folder):
            progress.say(f"{_named(pair)}: already measured, resumed")
            continue
        progress.say(f"pair {number} of {len(pairs)}, {_named(pair)}")
        waiting.keep(folder, *_measured(measuring, pair, ends, folder, progress))
    record = {"settings": asdict(settings), "path": asdict(path), "environment": environment(device), **watch.cost()}
    return waiting.publish(record, _joined)


def _require_measurable(pair: Pair, first: Solution, settings: BasinSettings) -> None:
    """An InputError that would end the job after a path was searched for."""
    p, top = parameters_of(first.architecture), _leading(settings, first)
    if top > p:
        raise InputError(f"{_named(pair)}: {top} leading eigenvectors asked of {p} parameters; allowed: 1 to {p}")


def _leading(settings: BasinSettings, first: Solution) -> int:
    return settings.top or first.train.classes


def _batch_size(path: PathSettings, first: Solution) -> int:
    """Examples in a step of the path's search: no more than there are."""
    return min(path.batch_size or len(first.train), len(first.train))


def _named(pair: Pair) -> str:
    return f"{pair.name}: {pair.first.path} and {pair.second.path}"


def _measured(
    measuring: "_Measuring", pair: Pair, ends: Sequence[Solution], folder: Path, progress: Progress
) -> tuple[dict[str, pandas.DataFrame], dict[str, Any]]:
    """The tables and the record of one pair; `folder` keeps the state of its search."""
    watch, left_out = Stopwatch(), _left_out(ends)
    tables = {name: pandas.DataFrame() for name in TABLES}
    if left_out:
        progress.say(f"{_named(pair)}: left out ({left_out})")
    else:
        try:
            tables = measuring.tables(pair, ends[0], ends[1], folder / "search.safetensors")
        except (InputError, NotFiniteError) as error:
            raise type(error)(f"{_named(pair)}: {error}") from error
    names = {"pair": pair.name, "first": pair.first.path, "second": pair.second.path}
    batch_size = _batch_size(measuring.path, ends[0])
    return tables, {**names, "path_batch_size": batch_size, "left_out": left_out, "seconds": watch.seconds()}


def _joined(name: str, frames: list[pandas.DataFrame]) -> pandas.DataFrame:
    """The tables of all pairs as one, with its columns where every pair was left out."""
    full = [frame for frame in frames if len(frame)] or [pandas.DataFrame(columns=COLUMNS[name])]
    return pandas.concat(full, ignore_index=True)


def _left_out(ends: Sequence[Solution]) -> str | None:
    """Why a pair is not measured: a run that diverged has no end."""
    reasons = [f"{end.run.path} diverged at {end.diverged_at}" for end in ends if end.diverged_at]
    return "; ".join(reasons) or None


def _task(pair: Pair, ends: Sequence[Solution], settings: BasinSettings, path: PathSettings) -> dict[str, Any]:
    """What a pair's tables depend on."""
    tensors = [tensor for end in ends for tensor in end.weights.values()]
    data = [t for end in ends for part in (end.train, end.test) for t in (part.inputs, part.targets)]
    return {
        "pair": [pair.name, pair.first.path, pair.second.path],
        "diverged": [end.diverged_at for end in ends],
        "tensors": tensors_digest([*tensors, *data]),
        "settings": asdict(settings),
        "path": asdict(path),
    }


_KEYS = [name for name in IDENTITY if name not in ("trainer", "seed")]
_KEYS += ["pair", "seed", "second_seed", "first_trainer", "second_trainer", "path"]
_SIZES = ["n", "p", "classes"]
_ENDS = [f"{end}_{name}" for end in ("first", "second") for name in MEASURED]
_MOVES = ["distance", "length", "move_in_top", "move_chance", "path_steps", "same_examples"]
COLUMNS = {
    "paths": [*_KEYS, "t", *MEASURED, *_SIZES],
    "barriers": [*_KEYS, "barrier", "highest_loss", "test_barrier", *_ENDS, *_MOVES, *_SIZES],
}


class _Measuring:
    """The measurements of a pair; the leading eigenvectors of a first end are kept for the pairs that share it."""

    def __init__(self, settings, path: PathSettings, device, memory: int | None, save_every: float, progress: Progress):
        self._settings, self.path, self._device, self._memory = settings, path, device, memory
        self._save_every, self._progress = save_every, progress
        self._top: tuple[str, Tensor] = ("", torch.empty(0))

    def tables(self, pair: Pair, first: Solution, second: Solution, search: Path) -> dict[str, pandas.DataFrame]:
        """TABLES of the pair; `search` is the file that the state of the path's search is kept in."""
        models = [network_of(end.architecture).to(self._device).eval() for end in (first, second)]
        for model, solution in zip(models, (first, second), strict=True):
            model.load_state_dict(dict(solution.weights))
        space, other = (weights_space(model) for model in models)
        theta, end = space.theta, other.theta
        train, test = first.train.to(self._device), first.test.to(self._device)
        facts = self._facts(pair, first, second, len(theta))
        search_settings = replace(self.path, batch_size=_batch_size(self.path, first))
        path = find_path(
            models[0], theta, end, pair.first.loss, train, search_settings, self._seed(pair),
            resume_file=search, save_every_seconds=self._save_every,
            progress=self._progress.stage(f"{pair.name}, seed {pair.first.seed}: step of the path"),
        )  # fmt: skip
        distance = float((end.double() - theta.double()).norm())
        count = _leading(self._settings, first)
        move = {"distance": distance, "move_chance": count / len(theta)}
        move["move_in_top"] = self._move_in_top(pair.first, models[0], train, end - theta, count)
        move["same_examples"] = _same(first.train, second.train)
        points = self._settings.points
        whole = torch.arange(-points, 2 * points + 1, dtype=torch.float64, device=self._device) / points
        inside = whole[points : 2 * points + 1]
        curves = {
            "line": (whole, lambda t: line(theta, end, t), {"length": distance, "path_steps": 0}),
            "found": (inside, path.at, {"length": path.length(), "path_steps": self.path.steps}),
        }
        rows: dict[str, list[pandas.DataFrame]] = {name: [] for name in TABLES}
        for name, (t, place, own) in curves.items():
            along = measured_along(space, place, t, pair.first.loss, train, test)
            rows["paths"].append(along.assign(path=name, **facts))
            rows["barriers"].append(pandas.DataFrame([{**facts, "path": name, **summary(along), **move, **own}]))
        search.unlink(missing_ok=True)
        return {name: pandas.concat(frames, ignore_index=True)[COLUMNS[name]] for name, frames in rows.items()}

    def _facts(self, pair: Pair, first: Solution, second: Solution, parameters: int) -> dict[str, Any]:
        identity = {name: value for name, value in first.run.identity().items() if name not in ("trainer", "seed")}
        return {
            **identity,
            "pair": pair.name,
            "seed": first.run.seed,
            "second_seed": second.run.seed,
            "first_trainer": first.run.trainer,
            "second_trainer": second.run.trainer,
            "n": len(first.train),
            "p": parameters,
            "classes": first.train.classes,
        }

    def _seed(self, pair: Pair) -> int:
        return derive_seed(pair.first.seed, f"{pair.first.path} {pair.second.path}", "path")

    def _move_in_top(self, run: Run, model: nn.Module, train: Examples, move: Tensor, count: int) -> float:
        """Share of |move|^2 inside the span of the Hessian's eigenvectors of largest value; NaN where not converged."""
        if self._top[0] != run.path:
            operator = CurvatureOperator(
                "hessian", model, loss_function(run.loss), train.batches(_CURVATURE_BATCH), memory=self._memory
            )
            generator = torch.Generator().manual_seed(derive_seed(run.seed, run.path, "largest eigenpairs"))
            found = largest_eigenpairs(operator, count, generator, memory=self._memory)
            self._top = run.path, found.vectors if found.converged else torch.full_like(found.vectors, math.nan)
        vectors = self._top[1].to(move.device).double()
        square = move.double().square().sum()
        return float((vectors.T @ move.double()).square().sum() / square) if vectors.shape[1] else math.nan


def _same(first: Examples, second: Examples) -> bool:
    return torch.equal(first.inputs, second.inputs) and torch.equal(first.targets, second.targets)


def summary(along: pandas.DataFrame) -> dict[str, float]:
    """Barriers of the train and test loss between t = 0 and 1, the highest train loss there, and all of both ends."""
    inside = along[(along["t"] >= 0) & (along["t"] <= 1)]
    t, losses, tests = (torch.tensor(inside[name].to_numpy()) for name in ("t", "train_loss", "test_loss"))
    ends = {
        f"{end}_{name}": float(inside[name].iloc[place])
        for end, place in (("first", 0), ("second", -1))
        for name in MEASURED
    }
    highest = {"barrier": barrier(t, losses), "highest_loss": float(losses.max()), "test_barrier": barrier(t, tests)}
    return {**highest, **ends}
