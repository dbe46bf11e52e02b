"""The hierarchy of the outliers of one trained network, from its weights to tables on disk, resuming after a kill."""

import json
import math
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import torch
from torch import Tensor, nn

from hessketch.curvature.class_mean_operators import PARTS, part_operator
from hessketch.curvature.class_means import PARTS_OF_MEANS, ClassMeans, class_means, embedding, means_memory
from hessketch.curvature.class_terms import ClassTerms, class_terms, worth_keeping
from hessketch.curvature.job import evaluated, sizes, task_of
from hessketch.curvature.losses import cross_entropy
from hessketch.curvature.resume import LanczosStore
from hessketch.data.examples import Examples
from hessketch.described import described, require_allowed
from hessketch.errors import InputError
from hessketch.linalg.leading_eigenpairs import leading_eigenpairs
from hessketch.progress import Progress
from hessketch.provenance import Stopwatch, environment
from hessketch.records import read_tensors, write_record, write_table, write_tensors
from hessketch.seeds import derive_seed

LOSS = "cross_entropy"
# Rows of the means and of eigenvectors turned into float64 at a time.
_ROWS_AT_ONCE = 2**20


@dataclass(frozen=True)
class HierarchySettings:
    """How the leading eigenvalues of G, G0 and G3 are found; see `leading_eigenpairs`."""

    tolerance: float = described(1e-3, "residual of an eigenpair, relative to its eigenvalue, that is good enough")
    max_steps: int = described(1000, "most products with each of the three operators")
    batch_size: int = described(500, "examples in one pass of a product")

    def __post_init__(self) -> None:
        """Raises InputError for values that no measurement could use."""
        rules = {
            "tolerance": (0 < self.tolerance < 1, "a number between 0 and 1"),
            "max_steps": (self.max_steps >= 1, "a whole number of at least 1"),
            "batch_size": (self.batch_size >= 1, "a whole number of at least 1"),
        }
        require_allowed(self, rules)


def hierarchy_of_network(
    model: nn.Module,
    loss: str,
    examples: Examples,
    settings: HierarchySettings,
    output: Path,
    *,
    seed: int,
    columns: dict[str, Any] | None = None,
    memory: int | None = None,
    save_every: float = 30.0,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Eigenvalues of the parts of the GGN by classes (`class_means`); three tables and `record.json` into `output`.

    The tables are `parts_table`, `means_table` and `alignment_table`, each after `columns`, n, p and classes. What is
    finished of G, G0 and G3 is kept in `output/partial`, and a run leaves its state there every `save_every` seconds,
    so that a killed job goes on where it was. Where `worth_keeping` says so, products are by kept terms, not by the
    network. `memory` bounds in bytes the means, and with what they leave, in halves, graphs or terms, and Lanczos
    vectors (default: half of what is free, each). Raises InputError for another loss than cross-entropy, and as
    `class_means` and `CurvatureOperator`. Returns the record.
    """
    if loss != LOSS:
        raise InputError(
            f"loss {loss!r} given; allowed: {LOSS}, whose softmax the hierarchy of the outliers is made of"
        )
    progress, watch = progress or Progress("class means"), Stopwatch()
    device = next(model.parameters()).device
    examples = examples.to(device)
    stage = progress.stage("class means: example")
    means = class_means(model, examples, batch_size=settings.batch_size, memory=memory, progress=stage)
    if memory is not None:
        memory = max(0, memory - means_memory(means.classes, means.cross.shape[2], means.cross.dtype)) // 2
    task = task_of(model, examples, settings=asdict(settings), seed=seed)
    measuring = _Measuring(model, examples, means, settings, seed, memory, output / "partial", task, save_every)
    found = {part: measuring.eigenpairs(part, progress) for part in PARTS if part not in PARTS_OF_MEANS}
    facts = {**(columns or {}), **sizes(model, examples)}
    record = {
        **facts,
        **task,
        "examples_of_classes": means.counts.tolist(),
        "runs": {part: tensors["facts"] for part, tensors in found.items()},
        **evaluated(model, cross_entropy, examples.batches(settings.batch_size)),
        "environment": environment(device),
        **watch.cost(),
    }
    _write(means, found, derive_seed(seed, "class means", "t-SNE"), facts, record, output)
    return record


def _write(
    means: ClassMeans,
    found: dict[str, dict[str, Any]],
    seed: int,
    facts: dict[str, Any],
    record: dict[str, Any],
    output: Path,
) -> None:
    tables = {
        "parts": parts_table(means, found),
        "means": means_table(means, seed),
        "alignment": alignment_table(means, found["G"].get("vectors")),
    }
    for name, table in tables.items():
        write_table(
            pandas.concat([pandas.DataFrame(facts, index=table.index), table], axis=1), output / f"{name}.parquet"
        )
    write_record(record, output / "record.json")
    shutil.rmtree(output / "partial", ignore_errors=True)


class _Measuring:
    """Leading eigenpairs of the parts that are known by products only, each kept once it is found."""

    def __init__(
        self,
        model: nn.Module,
        examples: Examples,
        means: ClassMeans,
        settings: HierarchySettings,
        seed: int,
        memory: int | None,
        folder: Path,
        task: dict[str, Any],
        save_every: float,
    ):
        self._model, self._examples, self._means, self._settings = model, examples, means, settings
        self._seed, self._memory, self._folder, self._save_every = seed, memory, folder, save_every
        self._task = json.dumps(task, sort_keys=True)
        self._kept: list[ClassTerms | None] = []

    def _terms(self, progress: Progress) -> ClassTerms | None:
        """The terms of all examples, where to keep them is worth it, found when a part first needs them."""
        if not self._kept:
            worth = worth_keeping(self._model, self._examples, self._memory)
            stage = progress.stage("terms of the classes: example")
            self._kept.append(class_terms(self._model, self._examples, progress=stage) if worth else None)
        return self._kept[0]

    def eigenpairs(self, part: str, progress: Progress) -> dict[str, Any]:
        """`values` and `residuals` (k,), of G the `vectors` (p, k) too, and `facts` of the run."""
        path = self._folder / f"{part}.safetensors"
        try:
            tensors, metadata = read_tensors(path) if path.is_file() else ({}, {})
        except InputError:  # damaged: found anew
            tensors, metadata = {}, {}
        if metadata.get("task") == self._task:
            progress.say(f"{part}: already done, resumed")
            return {**tensors, "facts": metadata["facts"]}
        tensors, facts = self._found(part, progress)
        write_tensors(tensors, path, {"task": self._task, "facts": facts})
        return {**tensors, "facts": facts}

    def _found(self, part: str, progress: Progress) -> tuple[dict[str, Tensor], dict[str, Any]]:
        clock, settings = Stopwatch(), self._settings
        batches = self._examples.batches(settings.batch_size)
        pairs = leading_eigenpairs(
            part_operator(part, self._model, batches, self._means, terms=self._terms(progress), memory=self._memory),
            2 * self._means.classes,
            torch.Generator().manual_seed(self._seed),
            tolerance=settings.tolerance,
            max_steps=settings.max_steps,
            memory=self._memory,
            store=LanczosStore(self._folder / part, self._task, self._save_every),
            progress=progress.stage(f"{part}: product"),
        )
        if not pairs.converged:
            progress.say(f"{part}: only {len(pairs.values)} eigenpairs have converged; allow more than max_steps")
        facts = {
            "products": pairs.products,
            "by": "network" if self._terms(progress) is None else "kept terms",
            "seconds": round(clock.seconds(), 3),
            "converged": pairs.converged,
            "reorthogonalization": pairs.reorthogonalization,
        }
        tensors = {"values": torch.from_numpy(pairs.values), "residuals": torch.from_numpy(pairs.residuals)}
        if part == "G" and pairs.vectors is not None:
            tensors["vectors"] = pairs.vectors.contiguous()
        return tensors, facts


def parts_table(means: ClassMeans, found: dict[str, dict[str, Any]]) -> pandas.DataFrame:
    """part (one of PARTS), rank (1 = largest), eigenvalue, residual (0 where exact).

    Of G, G0 and G3 those that were `found`: the two a class of largest magnitude, fewer where `max_steps` did not
    suffice (the record says so). Of the others, which the means give exactly, all that may be nonzero.
    """
    frames = []
    for part in PARTS:
        if part in PARTS_OF_MEANS:
            values = means.eigenvalues(part)
            residuals = np.zeros(len(values))
        else:
            order = found[part]["values"].argsort(descending=True)
            values, residuals = (found[part][name][order].numpy() for name in ("values", "residuals"))
        rows = {"part": part, "rank": np.arange(1, len(values) + 1), "eigenvalue": values, "residual": residuals}
        frames.append(pandas.DataFrame(rows))
    return pandas.concat(frames, ignore_index=True)


def means_table(means: ClassMeans, seed: int) -> pandas.DataFrame:
    """true_class, other_class, mean_norm, pca_1, pca_2, tsne_1, tsne_2 (`embedding`).

    Rows are the cross-class means, then the class means (other_class -1); NaN for a class without examples.
    """
    classes, known = means.classes, means.known()
    norms = torch.cat([means.gram.diagonal(), _gram_of_classes(means).diagonal()]).clamp(min=0).sqrt()
    norms[~known] = math.nan
    places = embedding(means, seed)
    return pandas.DataFrame(
        {
            "true_class": np.concatenate([np.repeat(np.arange(classes), classes), np.arange(classes)]),
            "other_class": np.concatenate([np.tile(np.arange(classes), classes), np.full(classes, -1)]),
            "mean_norm": norms.numpy(),
            **{name: places[:, i].numpy() for i, name in enumerate(("pca_1", "pca_2", "tsne_1", "tsne_2"))},
        }
    )


def _gram_of_classes(means: ClassMeans) -> Tensor:
    """Inner products (C, C) of the class means, float64 on the CPU."""
    vectors = means.of_classes()
    total = torch.zeros(means.classes, means.classes, dtype=torch.float64, device=vectors.device)
    for block in vectors.split(_ROWS_AT_ONCE, 1):
        total += block.double() @ block.double().T
    return total.cpu()


def alignment_table(means: ClassMeans, vectors: Tensor | None) -> pandas.DataFrame:
    """k (classes - 1 and classes), overlap of the first k columns of `vectors` (p, .) with the span of the class means.

    Of spaces of k and r dimensions the overlap is |U^T V|_F^2 / min(k, r), the mean squared cosine of their angles;
    `chance`, that of a random space, is max(k, r) / p in the mean. V, the class means D^T times their inner products to
    the power -1/2, is not formed. NaN where so many columns were not found.
    """
    values, rotation = torch.linalg.eigh(_gram_of_classes(means))
    # What is below the rounding of the means' own precision has no direction.
    independent = values > max(1e-13, (10 * torch.finfo(means.cross.dtype).eps) ** 2) * values[-1]
    rank, p, rows = int(independent.sum()), means.cross.shape[2], []
    for k in (means.classes - 1, means.classes):
        overlap = math.nan
        if vectors is not None and vectors.shape[1] >= k and rank:
            own, inner = means.of_classes(), torch.zeros(means.classes, k, dtype=torch.float64)
            for first in range(0, p, _ROWS_AT_ONCE):
                part = slice(first, first + _ROWS_AT_ONCE)
                inner += (own[:, part].double() @ vectors[part, :k].to(own.device).double()).cpu()
            cosines = (rotation[:, independent].T @ inner) / values[independent].sqrt()[:, None]
            overlap = min(1.0, float(cosines.square().sum()) / min(k, rank))
        rows.append({"k": k, "overlap": overlap, "chance": max(k, rank) / p})
    return pandas.DataFrame(rows)
