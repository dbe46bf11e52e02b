"""The measurements of one run: every point, split and method, then the stability along the training."""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import pandas
import torch
from torch import Tensor

from hessketch.curvature.losses import loss_function
from hessketch.curvature.measurement_files import MeasurementFiles
from hessketch.curvature.operators import CurvatureOperator, select_parameters
from hessketch.eigenspaces.eigenpairs import (
    Eigenspace,
    exact_eigenspace,
    krylov_eigenspace,
    quality,
    sketch_settings,
    sketched_eigenspace,
)
from hessketch.eigenspaces.masks import layer_sizes, live_parameters
from hessketch.eigenspaces.overlaps import Weights, mask_tables
from hessketch.eigenspaces.settings import EigenspaceSettings, ratio_size
from hessketch.eigenspaces.stability import eigenspace_stability, mask_stability
from hessketch.eigenspaces.subjects import Point, Subject, point_columns, size_columns
from hessketch.eigenspaces.tables import POINT_TABLES, TABLES, joined, with_columns
from hessketch.errors import InputError, NotFiniteError
from hessketch.linalg.memory import free_memory
from hessketch.linalg.sketched_eigh import SketchSettings, room_needed
from hessketch.linalg.vectors import random_unit_vector
from hessketch.networks.registry import network_of
from hessketch.progress import Progress
from hessketch.provenance import Stopwatch
from hessketch.records import read_table, read_tensors, write_record, write_table, write_tensors
from hessketch.seeds import derive_seed

Found = TypeVar("Found")

# Up to so many parameters the eigenspaces of the stability are those of the whole matrix (870 and 500 examples: 0.5 s),
# beyond what `many_eigenpairs` picks.
_FORMED = 1000


class Measuring:
    """One run. `folder` keeps what is finished of it, and nothing of another task."""

    def __init__(
        self,
        subject: Subject,
        settings: EigenspaceSettings,
        folder: Path,
        device: torch.device,
        memory: int | None,
        progress: Progress,
    ):
        self._subject, self._settings, self._folder = subject, settings, folder
        self._device, self._progress, self._watch = device, progress, Stopwatch()
        # Half for graphs that are kept between products, half for vectors.
        self._memory, self._half = memory, None if memory is None else memory // 2
        self._loss = loss_function(subject.run.loss)
        self._examples = {split: subject.examples(split).to(device) for split in settings.splits}
        self._model = network_of(subject.architecture).to(device).eval()
        self._layers = layer_sizes({name: tuple(q.shape) for name, q in select_parameters(self._model).items()})
        self._parameters = sum(self._layers.values())
        self._pairs = settings.pairs_of(self._parameters)
        # One seed for all runs of a seed: what differs between them is then not chance of the sketch.
        run = subject.run
        self._seed = derive_seed(run.seed, f"{run.dataset}/{run.network_label}", "eigenspaces")
        self._left_out: dict[str, str] = {}  # point to reason

    @property
    def methods(self) -> list[str]:
        """Those that this network has, the exact one first: others are held against it."""
        too_large = {"exact"} if self._parameters > self._settings.exact_up_to else set()
        return sorted(set(self._settings.methods) - too_large, key=lambda name: (name != "exact", name))

    def tables(self) -> dict[str, pandas.DataFrame]:
        """TABLES of the run."""
        parts: dict[str, list[pandas.DataFrame]] = {name: [] for name in TABLES}
        wanted = [(point, split) for point in self._subject.points for split in self._settings.splits]
        report = self._progress.stage("point and split")
        for number, (point, split) in enumerate(wanted, start=1):
            for name, table in self._finished(point, split).items():
                parts[name].append(table)
            report(number, len(wanted))
        parts["stability"] += self._stability()
        return {name: joined(name, frames) for name, frames in parts.items()}

    def facts(self) -> dict[str, Any]:
        """How the run was measured, for a record."""
        return {
            "methods": self.methods,
            "pairs": self._pairs,
            "measurements": self._settings.measurements_of(self._pairs) if "sketched" in self.methods else None,
            "hessian_examples": {split: len(examples) for split, examples in self._examples.items()},
            "stability_eigenspaces": "exact" if self._formed else "many_eigenpairs: auto",
            "seed": self._seed,
            "seconds": self._watch.seconds(),
            "left_out": self._left_out,
        }

    def forget(self) -> None:
        """Removes what is kept of unfinished work."""
        for name in ("points", "stability", "measurements"):
            shutil.rmtree(self._folder / name, ignore_errors=True)

    def _finished(self, point: Point, split: str) -> dict[str, pandas.DataFrame]:
        """POINT_TABLES of a point and split, from the disk where they are there; nothing where they are left out."""
        folder = self._folder / "points" / f"{point.kind}-{point.time}-{split}"
        if not (folder / "record.json").is_file():
            found = self._guarded(point, lambda: self._measured(point, split))
            if found is None:
                return {}
            for name, table in found.items():
                write_table(table, folder / f"{name}.parquet")
            write_record({"point": point.name, "split": split}, folder / "record.json")
            shutil.rmtree(self._folder / "measurements", ignore_errors=True)
        return {name: read_table(folder / f"{name}.parquet") for name in POINT_TABLES}

    def _guarded(self, point: Point, measure: Callable[[], Found]) -> Found | None:
        """What `measure` gives, its errors naming run and point; None for a run that diverged where they arise."""
        try:
            return measure()
        except (NotFiniteError, InputError) as error:
            where = f"{self._subject.run.path}, {point.name}"
            if self._subject.finished:
                raise type(error)(f"{where}: {error}") from error
            self._progress.say(f"{where}: left out ({error})")
            self._left_out[point.name] = str(error)
            return None

    def _measured(self, point: Point, split: str) -> dict[str, pandas.DataFrame]:
        theta = self._load(point)
        operator = self._operator(split)
        probe = random_unit_vector(operator, torch.Generator().manual_seed(derive_seed(self._seed, split, "live")))
        live = live_parameters((operator @ probe)[:, None])
        columns, exact = point_columns(self._subject, point, self._parameters), None
        parts: dict[str, list[pandas.DataFrame]] = {name: [] for name in POINT_TABLES}
        for method in self.methods:
            space = self._eigenspace(method, operator, split, point)
            if len(space.values) < self._pairs:
                self._progress.say(f"{point.name}, {split}: {len(space.values)} of {self._pairs} pairs by {method}")
            exact = space if method == "exact" else exact
            place = space.vectors.device  # the host where a GPU has no room
            weights = Weights(theta.to(place), self._layers, live.to(place))
            found = {
                **mask_tables(space.vectors, weights, self._settings.ratios),
                "eigenvalues": _eigenvalues(space),
                "quality": pandas.DataFrame([quality(space, None if space is exact else exact)]),
            }
            for name, table in found.items():
                parts[name].append(with_columns({**columns, "split": split, "method": method}, table))
        return {name: joined(name, tables) for name, tables in parts.items()}

    def _load(self, point: Point) -> Tensor:
        """Puts the weights of a point into the network; they as a vector."""
        self._model.load_state_dict(dict(point.state))
        theta = torch.cat([q.detach().reshape(-1) for q in select_parameters(self._model).values()])
        if not bool(torch.isfinite(theta).all()):
            raise NotFiniteError("the weights hold NaN or infinity: they have diverged")
        return theta

    def _operator(self, split: str) -> CurvatureOperator:
        batches = self._examples[split].batches(self._settings.batch_size)
        return CurvatureOperator("hessian", self._model, self._loss, batches, memory=self._half)

    def _eigenspace(self, method: str, operator: CurvatureOperator, split: str, point: Point) -> Eigenspace:
        name = f"{point.name}, {split}, {method}"
        seed = derive_seed(self._seed, split, method)
        if method == "exact":
            return self._exact(split, self._pairs, name)
        report = self._progress.stage(f"{name}: product")
        if method == "lanczos":
            return krylov_eigenspace(operator, self._pairs, seed, memory=self._half, progress=report)
        settings = sketch_settings(self._settings, self._pairs)
        store = self._store(settings, operator.dtype, f"{point.kind}-{point.time}-{split}")
        return sketched_eigenspace(operator, settings, seed, store=store, memory=self._half, progress=report)

    def _store(self, settings: SketchSettings, dtype: torch.dtype, name: str) -> MeasurementFiles | None:
        """Files for measurements that memory does not hold."""
        room = room_needed(self._parameters, settings, dtype)
        free = max(free_memory(place) // 2 for place in {self._device, torch.device("cpu")})
        if room.columns + room.vectors + room.work <= (free if self._half is None else self._half):
            return None
        return MeasurementFiles(self._folder / "measurements" / name, "the folder says it all")

    def _exact(self, split: str, pairs: int, name: str) -> Eigenspace:
        return exact_eigenspace(
            self._model, self._loss, self._examples[split], pairs, batch_size=self._settings.batch_size,
            memory=self._memory, progress=self._progress.stage(f"{name}: row"),
        )  # fmt: skip

    def _stability(self) -> list[pandas.DataFrame]:
        """Masks and eigenspaces of the stability points two by two; a finished split's table is kept."""
        thetas: dict[int, Tensor] = {}
        for point in self._subject.stability:
            theta = self._guarded(point, lambda point=point: self._load(point).cpu())
            if theta is not None:
                thetas[point.time] = theta
        if not thetas:
            return []
        ratios, folder = self._settings.stability_ratios, self._folder / "stability"
        tables = [mask_stability(thetas, ratios)]
        for split in self._settings.splits:
            path = folder / f"{split}.parquet"
            if not path.is_file():
                bases = self._bases(thetas, split)
                report = self._progress.stage(f"stability, {split}: pair of steps")
                write_table(eigenspace_stability(split, bases, ratios, report), path)
                shutil.rmtree(folder / split, ignore_errors=True)
            tables.append(read_table(path))
        columns = {**self._subject.run.identity(), **size_columns(self._subject, self._parameters)}
        return [with_columns(columns, table) for table in tables]

    def _bases(self, steps: Mapping[int, Any], split: str) -> dict[int, Callable[[], Tensor]]:
        """Step to a function that reads its eigenspace (p, k) float32 from the disk, where it stays until compared."""
        folder, bases = self._folder / "stability" / split, {}
        points = [point for point in self._subject.stability if point.time in steps]
        self._require_disk(len(points), folder)
        report = self._progress.stage(f"stability, {split}: eigenspace")
        for number, point in enumerate(points, start=1):
            path = folder / f"{point.time}.safetensors"
            if not path.is_file():
                vectors = self._guarded(point, lambda point=point: self._stability_space(point, split).vectors)
                if vectors is None:
                    continue
                write_tensors({"vectors": vectors.float()}, path)
            bases[point.time] = lambda path=path: read_tensors(path)[0]["vectors"].to(self._device)
            report(number, len(points))
        return bases

    def _stability_size(self) -> int:
        """Columns of the eigenspaces that are compared: as many as the largest ratio asks for."""
        return ratio_size(max(self._settings.stability_ratios), self._parameters)

    @property
    def _formed(self) -> bool:
        """Whether the eigenspaces of the stability are those of the whole matrix."""
        return self._parameters <= _FORMED

    def _stability_space(self, point: Point, split: str) -> Eigenspace:
        self._load(point)
        pairs, name = self._stability_size(), f"stability, {point.name}, {split}"
        if self._formed:
            return self._exact(split, pairs, name)
        seed, report = derive_seed(self._seed, split, "stability"), self._progress.stage(f"{name}: product")
        operator = self._operator(split)
        return krylov_eigenspace(operator, pairs, seed, method="auto", memory=self._half, progress=report)

    def _require_disk(self, steps: int, folder: Path) -> None:
        """Raises InputError where the eigenspaces of so many steps exceed what is free on the disk."""
        folder.mkdir(parents=True, exist_ok=True)
        each, free = 4 * self._parameters * self._stability_size(), shutil.disk_usage(folder).free
        if steps * each > free:
            raise InputError(
                f"{self._subject.run.path}: eigenspaces of {steps} steps, {self._stability_size()} vectors of "
                f"{self._parameters} parameters each, need {steps * each / 2**30:.3g} GiB below {folder}, where "
                f"{free / 2**30:.3g} GiB are free: {free // each} steps would fit; give fewer stability steps or "
                "smaller stability ratios"
            )


def _eigenvalues(space: Eigenspace) -> pandas.DataFrame:
    ranks = range(1, len(space.values) + 1)
    return pandas.DataFrame({"rank": ranks, "eigenvalue": space.values, "residual": space.residuals})
