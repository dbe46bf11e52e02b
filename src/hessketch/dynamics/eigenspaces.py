r"""Top eigenvalues and eigenspaces of the Hessian and of the gradients' moments at one point of a training.

With g_i the gradient of example i's loss, mu their mean: the Hessian H of the mean loss, the second moment
M = (1/n) sum g_i g_i^T and the covariance Sigma = M - mu mu^T (Li, Gu, Zhou, Chen, Banerjee 2020, question 1). For a
negative log likelihood H = M - (1/n) sum (d2 p_i) / p_i, p_i the probability of example i's label: H and M are
different matrices, whose dominant spaces may still agree.
"""

import math
from dataclasses import dataclass
from functools import partial
from itertools import combinations

import pandas
import torch
from torch import Tensor, nn

from hessketch.curvature.losses import Loss, as_loss
from hessketch.curvature.operators import CurvatureOperator, select_parameters
from hessketch.curvature.points import in_dtype_of, require_examples
from hessketch.data.examples import Examples
from hessketch.dynamics.exact import ExactCurvature, exact_curvature
from hessketch.dynamics.step_moments import gradient_mean_and_variances
from hessketch.errors import InputError
from hessketch.linalg.largest_eigenpairs import largest_eigenpairs
from hessketch.linalg.subspaces import cumulative_overlaps, principal_angles
from hessketch.linalg.sums import Sum
from hessketch.linalg.vectors import ProgressCallback, no_progress, require_at_least
from hessketch.seeds import derive_seed

OPERATORS = ("hessian", "second_moment", "gradient_covariance")
# An eigenvalue counts as near zero below this share of the largest magnitude.
NEAR_ZERO = 1e-3


@dataclass(frozen=True)
class _Top:
    """What is known of one operator."""

    values: Tensor  # (k,) float64 on the CPU, descending by value; NaN where it is not known
    vectors: Tensor  # (p, j) of the first j <= k of them
    zero: float  # values of no larger magnitude are not told from zero
    curvature: dict  # the row of the table, less the operator's name

    @property
    def told_apart(self) -> int:
        """How many leading eigenspaces are defined: up to the first value that is zero or not known."""
        nonzero = (self.values.abs() > self.zero)[: self.vectors.shape[1]]
        return int(nonzero.long().cumprod(0).sum())


def eigenspaces(
    model: nn.Module,
    loss: str | Loss,
    examples: Examples,
    k: int,
    *,
    seed: int,
    exact_up_to: int = 2000,
    batch_size: int = 500,
    memory: int | None = None,
    progress: ProgressCallback | None = None,
    exact: ExactCurvature | None = None,
) -> dict[str, pandas.DataFrame]:
    """The k largest eigenvalues (by value) of the three operators and how their eigenspaces lie to each other.

    `loss` is a function or the name of one. For p <= `exact_up_to` parameters from matrices in float64 (`exact`, where
    they are there already); else by Lanczos with the model's own precision, started from `seed`, until residuals are
    within 1e-5 of each eigenvalue. Tables:

    - eigenvalues: operator, rank (1 = largest), eigenvalue; k rows an operator
    - curvature: operator, exact, trace, trace_standard_error (0 where the trace is exact: by matrices, and that of M
      and Sigma always; by Lanczos the Hessian's is an estimate), largest_eigenvalue, smallest_eigenvalue,
      negative_share (of the sum of magnitudes), near_zero_share (of the p eigenvalues, those below 1e-3 of the largest
      magnitude)
    - overlaps: first, second, k, overlap of the top-k eigenspaces, chance (that of random ones)
    - angles: first, second, index (1 = smallest), angle between the whole top-k spaces in radians

    NaN is what is not known: by Lanczos shares of the Hessian, eigenvalues that did not converge; overlaps and angles
    of a space that reaches into the null space. Raises InputError for anything but Examples, for k beyond the rank that
    the covariance of n gradients can have, min(n - 1, p), for a model in train mode, and as `exact_curvature`.
    """
    require_examples(examples=examples)
    loss, p = as_loss(loss), sum(q.numel() for q in select_parameters(model).values())
    _require_rank(k, len(examples), p)
    if exact is None and p <= exact_up_to:
        exact = exact_curvature(model, loss, examples, batch_size=batch_size, memory=memory, progress=progress)
    if exact is not None:
        if (exact.n, exact.p) != (len(examples), p):
            raise InputError(
                f"`exact` is of {exact.n} examples and {exact.p} parameters, the point has {len(examples)} and {p}"
            )
        tops = _exact_tops(exact, k)
    else:
        examples = in_dtype_of(model, examples)
        tops = _lanczos_tops(model, loss, examples, batch_size, k, seed, memory, progress or no_progress)
    return _tables(tops, k, p)


def _require_rank(k: int, n: int, p: int) -> None:
    require_at_least(1, k=k)
    if k > min(n - 1, p):
        raise InputError(
            f"k is {k}, but gradient_covariance of {n} examples in {p} parameters has at most {min(n - 1, p)} nonzero "
            f"eigenvalues; {f'allowed: 1 to {min(n - 1, p)}' if min(n - 1, p) else 'give at least two examples'}"
        )


def _exact_tops(exact: ExactCurvature, k: int) -> dict[str, _Top]:
    pairs = (exact.hessian_eigenpairs, exact.second_moment_eigenpairs, exact.covariance_eigenpairs)
    tops = {}
    for name, (values, vectors) in zip(OPERATORS, pairs, strict=True):
        values = values.cpu()
        magnitudes = values.abs()
        largest, total = float(magnitudes.max()), float(magnitudes.sum())
        row = {
            "exact": True,
            "trace": float(values.sum()),
            "trace_standard_error": 0.0,
            "largest_eigenvalue": float(values[0]),
            "smallest_eigenvalue": float(values[-1]) if len(values) == exact.p else 0.0,
            "negative_share": float(magnitudes[values < 0].sum()) / total if total else math.nan,
            "near_zero_share": 1 - float((magnitudes >= NEAR_ZERO * largest).sum()) / exact.p if total else math.nan,
        }
        zero = largest * exact.p * torch.finfo(torch.float64).eps
        tops[name] = _Top(values[:k], vectors[:, :k], zero, row)
    return tops


def _lanczos_tops(
    model: nn.Module,
    loss: Loss,
    examples: Examples,
    batch_size: int,
    k: int,
    seed: int,
    memory: int | None,
    progress: ProgressCallback,
) -> dict[str, _Top]:
    tops: dict[str, _Top] = {}
    traces: dict[str, Sum] = {}
    batches = examples.batches(batch_size)
    for number, name in enumerate(OPERATORS):
        operator = CurvatureOperator(name, model, loss, batches, memory=memory)
        found = largest_eigenpairs(
            operator,
            k,
            torch.Generator().manual_seed(derive_seed(seed, name, "largest eigenpairs")),
            memory=memory,
            progress=partial(_report_of, progress, number),
        )
        # A zero of many copies is seen once: what comes after it by value is not known.
        values = torch.full((k,), math.nan, dtype=torch.float64)
        values[: len(found.values)] = torch.from_numpy(found.values)
        zeros = (values.abs() <= found.rounding).long().cumsum(0)
        values[(zeros - (values.abs() <= found.rounding).long()) > 0] = math.nan
        semidefinite = name != "hessian"
        singular = semidefinite and len(examples) < operator.shape[0]
        if semidefinite and not traces:  # once the operators have found the loss sound
            traces = _traces_of_moments(model, loss, examples)
        trace = traces.get(name, found.trace)
        row = {
            "exact": False,
            "trace": trace.value,
            "trace_standard_error": trace.standard_error,
            "largest_eigenvalue": float(values[0]),
            "smallest_eigenvalue": 0.0 if singular else found.smallest,
            "negative_share": 0.0 if semidefinite else math.nan,
            "near_zero_share": math.nan,
        }
        tops[name] = _Top(values, found.vectors, found.rounding, row)
    return tops


def _report_of(progress: ProgressCallback, number: int, done: int, total: int) -> None:
    """Of all operators, from that of the one with this number."""
    progress(number * total + done, len(OPERATORS) * total)


def _traces_of_moments(model: nn.Module, loss: Loss, examples: Examples) -> dict[str, Sum]:
    """tr M = mean |g_i|^2 and tr Sigma, that less |mu|^2, by a pass over the gradients."""
    mean, variances = gradient_mean_and_variances(model, loss, examples)
    spread = float(variances.sum())
    traces = {"second_moment": spread + float(mean.square().sum()), "gradient_covariance": spread}
    return {name: Sum(value, 0.0) for name, value in traces.items()}


def _tables(tops: dict[str, _Top], k: int, p: int) -> dict[str, pandas.DataFrame]:
    pairs = list(combinations(OPERATORS, 2))
    eigenvalues = [
        {"operator": name, "rank": rank, "eigenvalue": value}
        for name, top in tops.items()
        for rank, value in enumerate(top.values.tolist(), 1)
    ]
    curvature = [{"operator": name, **top.curvature} for name, top in tops.items()]
    overlaps, angles = [], []
    for first, second in pairs:
        shared = _overlaps_and_angles(tops[first], tops[second], k)
        for number, (value, angle) in enumerate(zip(*shared, strict=True), 1):
            names = {"first": first, "second": second}
            overlaps.append({**names, "k": number, "overlap": value, "chance": number / p})
            angles.append({**names, "index": number, "angle": angle})
    tables = {"eigenvalues": eigenvalues, "curvature": curvature, "overlaps": overlaps, "angles": angles}
    return {name: pandas.DataFrame(rows) for name, rows in tables.items()}


def _overlaps_and_angles(first: _Top, second: _Top, k: int) -> tuple[list[float], list[float]]:
    """k of each; NaN beyond the spaces that are defined, and all angles NaN where the whole one is not."""
    defined, unknown = min(first.told_apart, second.told_apart), [math.nan] * k
    if not defined:
        return unknown, unknown
    u, v = first.vectors[:, :defined], second.vectors[:, :defined]
    overlaps = cumulative_overlaps(u, v).tolist() + unknown[defined:]
    return overlaps, principal_angles(u, v).tolist() if defined == k else unknown
