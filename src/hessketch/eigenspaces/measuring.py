"""The measurements of one run: every point, split and method, then the stability along the training."""

import shutil
from collections.abc import Callable, Mapping
from functools import partial
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
from hessketch.eigenspaces.notes import Notes
from hessketch.eigenspaces.overlaps import Weights, mask_tables
from hessketch.eigenspaces.room import FORMED, Needs, Size
from hessketch.eigenspaces.settings import EigenspaceSettings, ratio_size
from hessketch.eigenspaces.stability import eigenspace_stability, mask_stability
from hessketch.eigenspaces.subjects import Point, Subject, point_columns, size_columns
from hessketch.eigenspaces.tables import POINT_TABLES, TABLES, joined
from hessketch.errors import InputError, NotFiniteError
from hessketch.linalg.vectors import random_unit_vector
from hessketch.networks.registry import network_of
from hessketch.progress import Progress
from hessketch.provenance import Stopwatch
from hessketch.records import is_intact, read_table, read_tensors, write_record, write_table, write_tensors
from hessketch.seeds import derive_seed
from hessketch.waiting_tables import with_columns

Found = TypeVar("Found")

_STAGE = "stability"


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
        self._loss = loss_function(subject.run.loss)
        self._examples = {split: subject.examples(split).to(device) for split in settings.splits}
        self._model = network_of(subject.architecture).to(device).eval()
        self._layers = layer_sizes({name: tuple(q.shape) for name, q in select_parameters(self._model).items()})
        self._parameters = sum(self._layers.values())
        self._pairs = settings.pairs_of(self._parameters)
        own = next(iter(select_parameters(self._model).values()))
        self._needs = Needs(Size(self._parameters, own.dtype, device), settings, memory, folder)
        self._memory, self._half = memory, self._needs.half
        self.methods = settings.methods_of(self._parameters)
        self._ratios = settings.compared_ratios(self._parameters)
        # One seed for all runs of a seed: what differs between them is then not chance of the sketch.
        run = subject.run
        self._seed = derive_seed(run.seed, f"{run.dataset}/{run.network_label}", "eigenspaces")
        self._notes = Notes(folder / "notes.json")

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
            "stability_eigenspaces": "exact" if self._parameters <= FORMED else "many_eigenpairs: auto",
            "stability_ratios_of_masks_alone": self._ratios_of_masks_alone(),
            "seed": self._seed,
            "seconds": self._watch.seconds(),
            "left_out": self._notes.of("left_out"),
            "not_converged": self._notes.of("not_converged"),
        }

    def forget(self) -> None:
        """Removes what is kept of unfinished work."""
        for name in ("points", _STAGE, "measurements"):
            shutil.rmtree(self._folder / name, ignore_errors=True)

    def _finished(self, point: Point, split: str) -> dict[str, pandas.DataFrame]:
        """POINT_TABLES of a point and split, from the disk where they are there; nothing where they are left out."""
        folder = self._folder / "points" / f"{point.kind}-{point.time}-{split}"
        files = ("record.json", *(f"{table}.parquet" for table in POINT_TABLES))
        if not all(is_intact(folder / name) for name in files):
            self._named(point.name, self._needs.require_points)
            found = self._guarded(point, split, lambda: self._measured(point, split))
            shutil.rmtree(self._folder / "measurements", ignore_errors=True)
            if found is None:
                return {}
            for name, table in found.items():
                write_table(table, folder / f"{name}.parquet")
            write_record({"point": point.name, "split": split}, folder / "record.json")
        return {name: read_table(folder / f"{name}.parquet") for name in POINT_TABLES}

    def _named(self, where: str, measure: Callable[[], Found]) -> Found:
        """What `measure` gives, its errors naming run and place."""
        try:
            return measure()
        except (NotFiniteError, InputError) as error:
            raise type(error)(f"{self._subject.run.path}, {where}: {error}") from error

    def _guarded(self, point: Point, part: str, measure: Callable[[], Found]) -> Found | None:
        """As `_named`, but for a run that diverged None in place of an error, noted as that of a part of the point.

        What is too large for memory and disk is asked for before, unguarded: here errors come from the weights alone.
        """
        place = f"{point.name}, {part}"
        if place in self._notes.of("left_out"):  # before a kill
            return None
        if self._subject.finished:
            return self._named(place, measure)
        try:
            return measure()
        except (NotFiniteError, InputError) as error:
            self._progress.say(f"{self._subject.run.path}, {place}: left out ({error})")
            self._notes.add("left_out", place, str(error))
            return None

    def _note_missing(self, space: Eigenspace, pairs: int, place: str) -> None:
        """Says and notes how many of the pairs that were asked for are there."""
        if len(space.values) < pairs:
            words = f"{len(space.values)} of {pairs} pairs converged ({space.method})"
            self._progress.say(f"{self._subject.run.path}, {place}: {words}; the others are left out")
            self._notes.add("not_converged", place, words)

    def _measured(self, point: Point, split: str) -> dict[str, pandas.DataFrame]:
        theta = self._load(point)
        operator = self._operator(split)
        probe = random_unit_vector(operator, torch.Generator().manual_seed(derive_seed(self._seed, split, "live")))
        live = live_parameters((operator @ probe)[:, None])
        columns, exact = point_columns(self._subject, point, self._parameters), None
        parts: dict[str, list[pandas.DataFrame]] = {name: [] for name in POINT_TABLES}
        for method in self.methods:
            space = self._eigenspace(method, operator, split, point)
            self._note_missing(space, self._pairs, f"{point.name}, {split}, {method}")
            if not len(space.values):
                continue
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
        store = None
        if self._needs.sketch_on_disk():
            folder = self._folder / "measurements" / f"{point.kind}-{point.time}-{split}"
            store = MeasurementFiles(folder, "the folder says it all")
        return sketched_eigenspace(operator, settings, seed, store=store, memory=self._half, progress=report)

    def _exact(self, split: str, pairs: int, name: str) -> Eigenspace:
        return exact_eigenspace(
            self._model, self._loss, self._examples[split], pairs, batch_size=self._settings.batch_size,
            memory=self._memory, progress=self._progress.stage(f"{name}: row"),
        )  # fmt: skip

    def _stability(self) -> list[pandas.DataFrame]:
        """Masks and eigenspaces of the stability points two by two; a finished split's table is kept."""
        thetas: dict[int, Tensor] = {}
        for point in self._subject.stability:
            theta = self._guarded(point, _STAGE, partial(self._load, point))
            if theta is not None:
                thetas[point.time] = theta.cpu()
        if not thetas:
            return []
        folder, alone = self._folder / _STAGE, self._ratios_of_masks_alone()
        tables = [mask_stability(thetas, self._settings.stability_ratios)]
        if alone:
            self._progress.say(
                f"{self._subject.run.path}: of the ratios {', '.join(map(str, alone))} masks alone are compared, their "
                f"eigenspaces have more than the {self._pairs} pairs that are looked at"
            )
        for split in self._settings.splits if self._ratios else ():
            path = folder / f"{split}.parquet"
            if not is_intact(path):
                bases = self._bases(thetas, split)
                report = self._progress.stage(f"stability, {split}: pair of steps")
                write_table(eigenspace_stability(split, bases, self._ratios, report), path)
                shutil.rmtree(folder / split, ignore_errors=True)
            tables.append(read_table(path))
        columns = {**self._subject.run.identity(), **size_columns(self._subject, self._parameters)}
        return [with_columns(columns, table) for table in tables]

    def _bases(self, steps: Mapping[int, Any], split: str) -> dict[int, Callable[[], Tensor]]:
        """Step to a function that reads its eigenspace (p, k) float32 from the disk, where it stays until compared."""
        folder = self._folder / _STAGE / split
        bases: dict[int, Callable[[], Tensor]] = {}
        points = [point for point in self._subject.stability if point.time in steps]
        report = self._progress.stage(f"stability, {split}: eigenspace")
        for number, point in enumerate(points, start=1):
            path = folder / f"{point.time}.safetensors"
            if not is_intact(path):
                place = f"{_STAGE}, {split}"
                self._named(f"{point.name}, {place}", lambda: self._needs.require_stability(len(points)))
                space = self._guarded(point, place, partial(self._stability_space, point, split))
                if space is None:
                    continue
                self._note_missing(space, self._stability_size(), f"{point.name}, {place}")
                write_tensors({"vectors": space.vectors.float()}, path)
            bases[point.time] = partial(self._vectors_in, path)
            report(number, len(points))
        return bases

    def _vectors_in(self, path: Path) -> Tensor:
        return read_tensors(path)[0]["vectors"].to(self._device)

    def _stability_size(self) -> int:
        """Columns of the eigenspaces that are compared: as many as the largest ratio asks for."""
        return ratio_size(max(self._ratios), self._parameters)

    def _ratios_of_masks_alone(self) -> list[float]:
        compared = self._settings.stability_ratios if self._subject.stability else ()
        return [ratio for ratio in compared if ratio not in self._ratios]

    def _stability_space(self, point: Point, split: str) -> Eigenspace:
        self._load(point)
        pairs, name = self._stability_size(), f"stability, {point.name}, {split}"
        if self._parameters <= FORMED:
            return self._exact(split, pairs, name)
        seed, report = derive_seed(self._seed, split, "stability"), self._progress.stage(f"{name}: product")
        operator = self._operator(split)
        return krylov_eigenspace(operator, pairs, seed, method="auto", memory=self._half, progress=report)


def _eigenvalues(space: Eigenspace) -> pandas.DataFrame:
    ranks = range(1, len(space.values) + 1)
    return pandas.DataFrame({"rank": ranks, "eigenvalue": space.values, "residual": space.residuals})
