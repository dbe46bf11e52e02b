r"""All eigenvalues of the Hessian and of its first term at one point of a training, from matrices in float64.

The Hessian of a mean loss is (1/n) sum_i J_i^T A_i J_i + (1/n) sum_i sum_k (d l_i / d f_k) d2 f_ik, J_i the gradients
of example i's C outputs and A_i the loss's Hessian there. The first term, the GGN, has at most n C eigenvalues that are
not zero (a softmax: n (C - 1)), and where the loss is fitted the second one is small: a Hessian of p > n C parameters
is degenerate, its large eigenvalues those of the GGN (Sagun, Evci, Guney, Dauphin, Bottou 2017, section 3).
"""

import math
from dataclasses import dataclass

import numpy as np
import pandas
import torch
from torch import Tensor, nn

from hessketch.curvature.dense import dense_hessian
from hessketch.curvature.losses import Loss
from hessketch.curvature.operators import select_parameters
from hessketch.curvature.output_gradients import ggn_moment, output_gradient_moment
from hessketch.data.examples import Examples
from hessketch.errors import InputError
from hessketch.linalg.dense_eigenpairs import dense_eigenpairs, rounding_of
from hessketch.linalg.memory import free_memory
from hessketch.linalg.subspaces import cumulative_overlaps
from hessketch.linalg.vectors import require_at_least
from hessketch.progress import Progress, readable_time

OPERATORS = ("hessian", "ggn", "output_gradients")
# Seconds of a decomposition over p^3 on one core: 6.8e-11 at p = 4,000, 7.4e-11 at 7,150, more where cores are shared.
_SECONDS_PER_CUBE = 8e-11
# What is computed beside the matrices: blocks of rows of the Hessian, Jacobians of some examples.
_BESIDES = 2**29


@dataclass(frozen=True, eq=False)
class ExactSpectrum:
    """All eigenvalues of one operator and its leading eigenvectors, both by value, float64."""

    eigenvalues: Tensor  # (p,) descending, on the CPU
    vectors: Tensor  # (p, k) orthonormal columns of the k largest that the rank allows


def exact_memory(p: int, n: int, outputs: int, device: torch.device) -> int:
    """Bytes that `exact_spectra` takes at most for p parameters, n examples and so many outputs.

    Either a (p, p) matrix is decomposed, or the Gram matrix of r < p gradients of outputs that are kept beside it. Of
    all n * outputs of them a softmax leaves out at least n, and more where it is sure of an example: any r below p that
    there may be is allowed for.
    """
    # In place on the CPU; a GPU's eigh keeps the matrix, its copy that becomes the vectors, and as much to work with.
    held = 4 if device.type == "cuda" else 1
    rows = min(n * outputs, p - 1)
    return 8 * max(held * p * p, rows * p + held * rows * rows) + _BESIDES


def require_exact(p: int, n: int, outputs: int, device: torch.device, memory: int | None, most: int) -> None:
    """Raises InputError, saying what would do, for more than `most` parameters or matrices that do not fit."""
    if p > most:
        raise InputError(
            f"exact spectra of {p} parameters asked, allowed are {most}: a decomposition takes some "
            f"{readable_time(_SECONDS_PER_CUBE * p**3)} on a core; take a narrower network or smaller inputs, raise "
            f"max_parameters to {p}, or take hessketch spectrum, which forms no matrix"
        )
    free = free_memory(device) if memory is None else memory
    needed = exact_memory(p, n, outputs, device)
    if needed > free:
        fitting, beyond = 0, p
        while beyond - fitting > 1:
            middle = (fitting + beyond) // 2
            fits = exact_memory(middle, n, outputs, device) <= free
            fitting, beyond = (middle, beyond) if fits else (fitting, middle)
        raise InputError(
            f"exact spectra of {p} parameters and {n} examples need {needed / 2**30:.3g} GiB, {free / 2**30:.3g} GiB "
            f"are free on {device}: at most {fitting} parameters would fit; take a narrower network or more memory"
        )


def exact_spectra(
    model: nn.Module,
    loss: str | Loss,
    examples: Examples,
    *,
    top: int | None = None,
    batch_size: int = 500,
    memory: int | None = None,
    progress: Progress | None = None,
) -> dict[str, ExactSpectrum]:
    """Spectra of OPERATORS at the model's weights over all n examples, in float64 on the model's device.

    `output_gradients` is (1/n) sum_i J_i^T J_i. `top` leading eigenvectors are found (default: classes + 1), as many as
    an operator's rank allows. The model, in eval mode, stays as it is, `batch_size` bounds the examples that the
    Hessian takes at once. Eigenvalues that the rank of the GGN makes zero are exactly zero where it shows, by Gram
    matrices.

    Raises InputError for `top` beyond p, more memory than `memory` bytes (default: what is free; said before anything
    is computed), and as `dense_hessian` and `ggn_moment`; NotFiniteError for NaN or infinity.
    """
    progress, own = progress or Progress("exact spectra"), select_parameters(model)
    p, device = sum(q.numel() for q in own.values()), next(iter(own.values())).device
    top = min(examples.classes + 1, p) if top is None else top
    require_at_least(1, top=top)
    if top > p:
        raise InputError(f"{top} leading eigenvectors asked of {p} parameters; allowed: 1 to {p}")
    require_exact(p, len(examples), examples.classes, device, memory, p)
    examples = examples.to(device)

    def hessian() -> ExactSpectrum:
        rows = progress.stage("hessian: row")
        matrix = dense_hessian(model, loss, examples.batches(batch_size), memory=memory, progress=rows)
        _announce("hessian", p, device, progress)
        values, _, vectors = dense_eigenpairs(matrix, top, by="value")
        return ExactSpectrum(values.flip(0).cpu(), vectors)

    def moment(name: str) -> ExactSpectrum:
        report = progress.stage(f"{name}: example")
        if name == "ggn":
            found = ggn_moment(model, loss, examples.inputs, examples.targets, memory=memory, progress=report)
        else:
            found = output_gradient_moment(model, examples.inputs, memory=memory, progress=report)
        _announce(name, len(found.matrix), device, progress)
        if not len(found.matrix):  # sure of every example, a softmax has no second derivative
            return ExactSpectrum(torch.zeros(p, dtype=torch.float64), torch.empty(p, 0).to(found.matrix))
        values, _, vectors = dense_eigenpairs(found.matrix, min(top, len(found.matrix)), by="value")
        values = values.flip(0).cpu()
        if found.rows is not None:
            # A Gram matrix has no negative eigenvalue: what is below zero is rounding.
            values = torch.cat([values.clamp(min=0), values.new_zeros(p - len(values))])
        defined = _told_apart(values[: vectors.shape[1]], values)
        return ExactSpectrum(values, found.eigenvectors(vectors[:, :defined]))

    return {"hessian": hessian(), **{name: moment(name) for name in OPERATORS[1:]}}


def _announce(name: str, size: int, device: torch.device, progress: Progress) -> None:
    """Says that a decomposition runs, which cannot say where it is."""
    seconds = _SECONDS_PER_CUBE * size**3
    if seconds > 5:
        about = f", some {readable_time(seconds)} on one core" if device.type == "cpu" else ""
        progress.say(f"{name}: decomposition of {size} x {size}{about}")


def _told_apart(leading: Tensor, values: Tensor) -> int:
    """How many leading eigenspaces are defined: up to the first value that is not told from zero."""
    return int((leading.abs() > rounding_of(values)).long().cumprod(0).sum())


def spectra_tables(spectra: dict[str, ExactSpectrum], top: int) -> dict[str, pandas.DataFrame]:
    """What `exact_spectra` found as two tables.

    - spectra: operator, rank (1 = largest by value), eigenvalue; p rows an operator
    - alignments: operator (but the Hessian), k (1 ... top), overlap of the top-k eigenspace with the Hessian's, chance
      (k / p, that of random ones); NaN where one of them reaches into the null space
    """
    p = len(spectra["hessian"].eigenvalues)
    eigenvalues = [
        pandas.DataFrame({"operator": name, "rank": np.arange(1, p + 1), "eigenvalue": found.eigenvalues.numpy()})
        for name, found in spectra.items()
    ]
    hessian = spectra["hessian"]
    reach = _told_apart(hessian.eigenvalues[: hessian.vectors.shape[1]], hessian.eigenvalues)
    rows = []
    for name in OPERATORS[1:]:
        defined = min(reach, spectra[name].vectors.shape[1], top)
        overlaps = [math.nan] * top
        if defined:
            bases = (spectra[key].vectors[:, :defined] for key in ("hessian", name))
            overlaps[:defined] = cumulative_overlaps(*bases).tolist()
        rows += [
            {"operator": name, "k": k, "overlap": value, "chance": k / p} for k, value in enumerate(overlaps, start=1)
        ]
    return {"spectra": pandas.concat(eigenvalues, ignore_index=True), "alignments": pandas.DataFrame(rows)}
