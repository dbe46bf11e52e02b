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
from scipy.linalg import eigh_tridiagonal, eigvalsh_tridiagonal, lapack
from threadpoolctl import threadpool_limits
from torch import Tensor, nn

from hessketch.curvature.dense import dense_hessian
from hessketch.curvature.losses import Loss
from hessketch.curvature.operators import select_parameters
from hessketch.curvature.output_gradients import ggn_moment, output_gradient_moment
from hessketch.data.examples import Examples
from hessketch.errors import InputError
from hessketch.linalg.memory import free_memory
from hessketch.linalg.subspaces import cumulative_overlaps
from hessketch.linalg.vectors import require_at_least
from hessketch.progress import Progress, readable_time

OPERATORS = ("hessian", "ggn", "output_gradients")
# Up to this size all eigenvectors are computed: a few milliseconds.
_WHOLE_UP_TO = 256
# Columns that LAPACK reduces to tridiagonal form at once.
_BLOCK = 64
# Seconds of a decomposition over p^3 on one core: 6.8e-11 at p = 4,000, 7.4e-11 at 7,150, more where cores are shared.
_SECONDS_PER_CUBE = 8e-11
# What is computed beside the matrices: blocks of rows of the Hessian, Jacobians of some examples.
_BESIDES = 2**29


@dataclass(frozen=True, eq=False)
class ExactSpectrum:
    """All eigenvalues of one operator and its leading eigenvectors, both by value, float64."""

    eigenvalues: Tensor  # (p,) descending, on the CPU
    vectors: Tensor  # (p, k) orthonormal columns of the k largest that the rank allows


def largest_first(matrix: Tensor, top: int) -> tuple[Tensor, Tensor]:
    """All eigenvalues (r,), descending, on the CPU, and the eigenvectors (r, top) of the largest; spoils the matrix.

    `matrix` (r, r) is symmetric, float64 and contiguous. On the CPU it is reduced to tridiagonal form in place, where
    eigenvalues and the few vectors are found, so that no second matrix is needed and vectors cost nothing beside it; on
    a GPU by torch.linalg.eigh. An eigenvalue's error is some r eps of the largest magnitude.
    """
    size, top = len(matrix), min(top, len(matrix))
    if matrix.is_cuda or size <= _WHOLE_UP_TO:
        values, vectors = torch.linalg.eigh(matrix)
        return values.flip(0).cpu(), vectors[:, size - top :].flip(1)
    # scipy's LAPACK would take every core, whatever number of threads this job was given.
    with threadpool_limits(torch.get_num_threads(), user_api="blas"):
        values, vectors = _by_tridiagonal_form(matrix.numpy(), top)
    return torch.from_numpy(values), torch.from_numpy(vectors)


def _by_tridiagonal_form(matrix: np.ndarray, top: int) -> tuple[np.ndarray, np.ndarray]:
    size = len(matrix)
    # The transpose of a symmetric matrix in rows is itself in columns, as LAPACK takes it: nothing is copied.
    reduced, diagonal, beside, scales, info = lapack.dsytrd(matrix.T, lower=1, lwork=_BLOCK * size, overwrite_a=1)
    if info:
        raise InputError(f"LAPACK's dsytrd refuses its argument {-info}; give a real symmetric matrix")
    values = eigvalsh_tridiagonal(diagonal, beside, lapack_driver="sterf")[::-1].copy()
    chosen = (size - top, size - 1)
    vectors = eigh_tridiagonal(diagonal, beside, select="i", select_range=chosen, lapack_driver="stebz")[1][:, ::-1]
    return values, _transformed_back(reduced, scales, vectors)


def _transformed_back(reduced: np.ndarray, scales: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Eigenvectors (r, k) of the matrix from those of its tridiagonal form: Q v, with the reflectors below `reduced`.

    They lie in reduced[1:, :-1], which is not contiguous and would be copied. From its first number on, the same memory
    is a contiguous (r, r - 1) matrix that ends in one row more, of the upper triangle: made zero, it changes nothing.
    """
    size = len(reduced)
    reduced[0, 1:] = 0
    reflectors = reduced.ravel(order="F")[1 : 1 + size * (size - 1)].reshape(size, size - 1, order="F")
    below = np.asfortranarray(np.vstack([vectors[1:], np.zeros((1, vectors.shape[1]))]))
    found, _, info = lapack.dormqr("L", "N", reflectors, scales, below, _BLOCK * vectors.shape[1] + _BLOCK**2)
    if info:
        raise InputError(f"LAPACK's dormqr refuses its argument {-info}")
    return np.vstack([vectors[:1], found[:-1]])


def exact_memory(p: int, n: int, outputs: int, device: torch.device) -> int:
    """Bytes that `exact_spectra` takes at most for p parameters, n examples and so many outputs."""
    # In place on the CPU; a GPU's eigh keeps the matrix, its copy that becomes the vectors, and as much to work with.
    matrices = 4 * p * p if device.type == "cuda" else p * p + _BLOCK * p
    rows = n * outputs
    moment = min(rows, p) * p + min(rows, p) ** 2
    return 8 * max(matrices, moment if rows < p else 0) + _BESIDES


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
        return ExactSpectrum(*largest_first(matrix, top))

    def moment(name: str) -> ExactSpectrum:
        options = {"memory": memory, "progress": progress.stage(f"{name}: example")}
        if name == "ggn":
            found = ggn_moment(model, loss, examples.inputs, examples.targets, **options)
        else:
            found = output_gradient_moment(model, examples.inputs, **options)
        _announce(name, len(found.matrix), device, progress)
        values, vectors = largest_first(found.matrix, top)
        if found.rows is not None:
            # A Gram matrix has no negative eigenvalue: what is below zero is rounding.
            values = torch.cat([values.clamp(min=0), values.new_zeros(p - len(values))])
        defined = _told_apart(values[: vectors.shape[1]], values, p)
        return ExactSpectrum(values, found.eigenvectors(vectors[:, :defined]))

    return {"hessian": hessian(), **{name: moment(name) for name in OPERATORS[1:]}}


def _announce(name: str, size: int, device: torch.device, progress: Progress) -> None:
    """Says that a decomposition runs, which cannot say where it is."""
    seconds = _SECONDS_PER_CUBE * size**3
    if seconds > 5:
        about = f", some {readable_time(seconds)} on one core" if device.type == "cpu" else ""
        progress.say(f"{name}: decomposition of {size} x {size}{about}")


def _told_apart(leading: Tensor, values: Tensor, p: int) -> int:
    """How many leading eigenspaces are defined: up to the first value that is not told from zero."""
    zero = float(values.abs().max()) * p * torch.finfo(torch.float64).eps
    return int((leading.abs() > zero).long().cumprod(0).sum())


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
    reach = _told_apart(hessian.eigenvalues[: hessian.vectors.shape[1]], hessian.eigenvalues, p)
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
