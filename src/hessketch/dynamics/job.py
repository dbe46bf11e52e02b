"""Everything that is measured along followed trainings, from trajectories to tables on disk, resuming after a kill."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas
import torch

from hessketch.curvature.job import tensors_digest
from hessketch.data.followed_runs import Followed, point_columns
from hessketch.described import described, require_allowed
from hessketch.dynamics.eigenspaces import eigenspaces
from hessketch.dynamics.exact import exact_curvature
from hessketch.dynamics.generalization_bound import are_priors, generalization_bounds
from hessketch.dynamics.loss_change import loss_changes
from hessketch.errors import InputError, NotFiniteError
from hessketch.networks.registry import network_of
from hessketch.progress import Progress
from hessketch.provenance import Stopwatch, environment
from hessketch.runs import Run, rate_of
from hessketch.seeds import derive_seed
from hessketch.trainers import Trainer
from hessketch.waiting_tables import WaitingTables, with_columns

TABLES = ("eigenvalues", "curvature", "overlaps", "angles", "loss_changes", "bounds")


@dataclass(frozen=True)
class DynamicsSettings:
    """What is measured at each checkpoint; see `eigenspaces`, `loss_changes` and `generalization_bounds`."""

    top: int = described(10, "leading eigenvalues that are followed, and whose eigenspaces are compared")
    exact_up_to: int = described(2000, "parameters up to which matrices are formed and decomposed whole")
    samples: int = described(1000, "mini-batches sampled from each point")
    bound_probability: float = described(0.05, "probability with which a bound on a loss change may fail, on each side")
    confidence: float = described(0.95, "probability with which the generalisation bound holds")
    posterior_samples: int = described(200, "networks drawn from the posterior")
    probes: int = described(16, "probes of the moments of a step where matrices are not formed")
    products: int = described(100, "Hessian products for its diagonal where matrices are not formed")
    batch_size: int = described(500, "examples in one pass of a curvature product")

    def __post_init__(self) -> None:
        """Raises InputError for values that no measurement could use."""
        rules = {
            "top": (self.top >= 1, "a whole number of at least 1"),
            "exact_up_to": (self.exact_up_to >= 0, "a whole number of at least 0"),
            "samples": (self.samples >= 2, "a whole number of at least 2"),
            "bound_probability": (0 < self.bound_probability < 0.5, "a number between 0 and 0.5"),
            "confidence": (0 < self.confidence < 1, "a number between 0 and 1"),
            "posterior_samples": (self.posterior_samples >= 2, "a whole number of at least 2"),
            "probes": (self.probes >= 2, "a whole number of at least 2"),
            "products": (self.products >= 2, "a whole number of at least 2"),
            "batch_size": (self.batch_size >= 1, "a whole number of at least 1"),
        }
        require_allowed(self, rules)


def measure_runs(
    runs: Sequence[Run],
    followed: Callable[[Run], Followed],
    settings: DynamicsSettings,
    sigmas: Sequence[float],
    output: Path,
    *,
    along: Callable[[Run], bool],
    device: torch.device,
    memory: int | None = None,
    progress: Progress | None = None,
) -> dict:
    """Measures every run and writes TABLES and `record.json` into `output`; the record.

    Where `along(run)`, eigenvalues, eigenspaces and loss changes are taken at every checkpoint; the generalisation
    bound (with a prior of each of `sigmas`) at the last one of every run that finished. Each row starts with the
    columns of `point_columns`. The tables of a finished run are kept in `output/partial` until all are done, so that a
    killed job goes on where it was. Checkpoints of a run that diverged whose numbers are too large to be measured are
    left out, and the record says why. Raises InputError for a run whose initial weights were not kept, and, before any
    is measured, for `sigmas` that are no priors.
    """
    if not are_priors(sigmas):
        raise InputError(f"sigmas {list(sigmas)} given; allowed: one or more different numbers above 0")
    progress, watch = progress or Progress("sgd dynamics"), Stopwatch()
    waiting = WaitingTables(output, TABLES)
    for number, run in enumerate(runs, start=1):
        one = followed(run)
        _require_start(one)
        folder = waiting.part(_task(one, settings, sigmas, along(run)))
        if waiting.is_done(folder):
            progress.say(f"{run.path}: already measured, resumed")
            continue
        progress.say(f"run {number} of {len(runs)}: {run.path}")
        measuring = _Measuring(one, settings, sigmas, device, memory, progress)
        tables = measuring.tables(along(run))
        record = {"run": run.path, "seconds": measuring.watch.seconds(), "left_out": measuring.left_out}
        waiting.keep(folder, tables, record)
    record = {"settings": asdict(settings), "sigmas": list(sigmas), "environment": environment(device), **watch.cost()}
    return waiting.publish(record)


def _require_start(one: Followed) -> None:
    if not one.checkpoints or one.checkpoints[0][0]["step"] != 0:
        raise InputError(
            f"{one.run.path}: no weights of step 0 were kept, which the bound starts from; keep step 0 too"
        )


def _task(one: Followed, settings: DynamicsSettings, sigmas: Sequence[float], along: bool) -> dict[str, Any]:
    """What a run's tables depend on."""
    tensors = [tensor for _, state in one.checkpoints for tensor in state.values()]
    data = [one.train.inputs, one.train.targets, one.test.inputs, one.test.targets]
    return {
        "run": one.run.path,
        "tensors": tensors_digest([*tensors, *data]),
        "settings": asdict(settings),
        "sigmas": list(sigmas),
        "along": along,
        "finished": one.finished,
    }


class _Measuring:
    """The measurements of one run."""

    def __init__(
        self,
        one: Followed,
        settings: DynamicsSettings,
        sigmas: Sequence[float],
        device: torch.device,
        memory: int | None,
        progress: Progress,
    ):
        self._one, self._settings, self._sigmas = one, settings, sigmas
        self._memory, self._progress, self.watch = memory, progress, Stopwatch()
        self.left_out: dict[str, str] = {}  # step to reason
        self._train, self._test = one.train.to(device), one.test.to(device)
        self._batch_size = Trainer.parse(one.run.trainer).batch_size or len(one.train)
        self._model = network_of(one.architecture).to(device).eval()
        self._parameters = sum(parameter.numel() for parameter in self._model.parameters())
        # One seed for all runs of a seed: what differs between them is then not chance of the samples.
        self._seed = derive_seed(one.run.seed, f"{one.run.dataset}/{one.run.network_label}", "sgd dynamics")

    def tables(self, along: bool) -> dict[str, pandas.DataFrame]:
        """TABLES of the run; those without rows have the point's columns alone."""
        parts: dict[str, list[pandas.DataFrame]] = {name: [] for name in TABLES}
        report = self._progress.stage("checkpoint")
        last = len(self._one.checkpoints)
        for number, (facts, state) in enumerate(self._one.checkpoints, start=1):
            bound = number == last and self._one.finished
            point = point_columns(self._one, facts, self._parameters, step=facts["step"], epoch=facts["epoch"])
            for name, table in self._measured(facts, state, along, bound).items():
                parts[name].append(with_columns(point, table))
            report(number, last)
        nothing = with_columns(point, pandas.DataFrame(index=[0])).iloc[:0]
        return {name: pandas.concat(frames, ignore_index=True) if frames else nothing for name, frames in parts.items()}

    def _measured(self, facts, state, along: bool, bound: bool) -> dict[str, pandas.DataFrame]:
        """`_at`, its errors naming run and step; of a run that diverged nothing where they arise.

        InputError too: of weights that have grown beyond all measure float32 gives products that are not symmetric.
        """
        try:
            return self._at(state, along, bound)
        except (NotFiniteError, InputError) as error:
            where = f"{self._one.run.path}, step {facts['step']}"
            if self._one.finished:
                raise type(error)(f"{where}: {error}") from error
            self._progress.say(f"{where}: left out ({error})")
            self.left_out[str(facts["step"])] = str(error)
            return {}

    def _at(self, state, along: bool, bound: bool) -> dict[str, pandas.DataFrame]:
        if not along and not bound:
            return {}
        self._model.load_state_dict(dict(state))
        run, settings = self._one.run, self._settings
        tables: dict[str, pandas.DataFrame] = {}
        exact = None
        if self._parameters <= settings.exact_up_to:
            exact = exact_curvature(
                self._model, run.loss, self._train, batch_size=settings.batch_size, memory=self._memory
            )
        if along:
            tables |= eigenspaces(
                self._model, run.loss, self._train, settings.top, exact_up_to=settings.exact_up_to, exact=exact,
                seed=self._seed, batch_size=settings.batch_size, memory=self._memory,
            )  # fmt: skip
            tables["loss_changes"] = self._loss_changes(run, exact)
        if bound:
            tables["bounds"] = self._bounds(run, exact)
        return tables

    def _loss_changes(self, run: Run, exact) -> pandas.DataFrame:
        return loss_changes(
            self._model,
            run.loss,
            self._train,
            batch_size=self._batch_size,
            learning_rate=rate_of(run),
            samples=self._settings.samples,
            bound_probability=self._settings.bound_probability,
            probes=self._settings.probes,
            exact=exact,
            seed=self._seed,
            progress=self._progress.stage("loss changes: mini-batch or product"),
        )

    def _bounds(self, run: Run, exact) -> pandas.DataFrame:
        return generalization_bounds(
            self._model,
            self._one.checkpoints[0][1],
            run.loss,
            self._train,
            self._test,
            sigmas=self._sigmas,
            confidence=self._settings.confidence,
            posterior_samples=self._settings.posterior_samples,
            products=self._settings.products,
            exact=exact,
            seed=self._seed,
        )
