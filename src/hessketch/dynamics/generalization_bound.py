r"""A scale-invariant generalisation bound from the diagonal of the Hessian.

Question 3 of Li, Gu, Zhou, Chen and Banerjee (2020). With prior P = N(theta_0, diag(sigma_j^2)), posterior
Q = N(theta, diag(1/nu_j)), nu_j = max(H_jj, 1/sigma_j^2), and kl the relative entropy of two coins,

    kl(error of Q on S || error of Q)
        <= (1/2n) [ sum_{j active} ln(sigma_j^2 H_jj) + sum_j (theta_j - theta_0j)^2 / sigma_j^2 ]
           + (1/n) ln((n + 1) / delta)

with probability 1 - delta over n examples S (Langford's form of the PAC-Bayes theorem); j is active where
H_jj > 1/sigma_j^2. The bracket is 2 KL(Q || P) without sum_j (1 / (sigma_j^2 nu_j) - 1), which is not positive.
"""

import math
from collections.abc import Iterable, Mapping, Sequence

import pandas
import torch
from torch import Tensor, nn

from hessketch.curvature.losses import Loss
from hessketch.curvature.operators import CurvatureOperator
from hessketch.curvature.points import ParameterSpace, example_loss, in_dtype_of, require_examples
from hessketch.data.examples import Examples
from hessketch.dynamics.exact import ExactCurvature
from hessketch.dynamics.posterior import (
    errors_at,
    flat_parameters,
    initial_scales,
    posterior_errors,
    require_same_network,
)
from hessketch.errors import InputError
from hessketch.linalg.diagonals import estimate_diagonal
from hessketch.linalg.vectors import ProgressCallback, require_at_least, require_share
from hessketch.networks.layers import has_batch_norm
from hessketch.seeds import derive_seed

# The smallest bound was found at 0.5 to 1 (MLPs on Gaussian clusters, 500 to 10,000 examples), of fewer examples at the
# largest; curvature is active from about 3 on.
SIGMAS = (0.1, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 10.0)
BOUNDS = {
    "sigma": "float64",
    "chosen": "bool",
    "effective_curvature": "float64",
    "active": "int64",
    "distance": "float64",
    "log_term": "float64",
    "right_hand_side": "float64",
    "posterior_train_error": "float64",
    "posterior_train_error_standard_error": "float64",
    "posterior_test_error": "float64",
    "posterior_test_error_standard_error": "float64",
    "bound": "float64",
    "train_error": "float64",
    "test_error": "float64",
    "diagonal": "str",
    "confidence": "float64",
}
_BISECTION_WIDTH = 1e-12
_HESSIAN_BATCH = 500


def binary_kl(q: float, p: float) -> float:
    """kl(q || p) = q ln(q/p) + (1-q) ln((1-q)/(1-p)) in nats, of probabilities; infinite where p rules out q."""
    for name, value in {"q": q, "p": p}.items():
        if not 0 <= value <= 1:
            raise InputError(f"{name} is {value!r}; allowed: probabilities from 0 to 1")
    if p in (0, 1):
        return 0.0 if p == q else math.inf
    apart = p - q
    if 2 * abs(apart) <= min(q, 1 - q):  # where logarithms of the quotients would cancel
        return max(-q * math.log1p(apart / q) - (1 - q) * math.log1p(-apart / (1 - q)), 0.0)
    first = q * math.log(q / p) if q else 0.0
    second = (1 - q) * (math.log1p(-q) - math.log1p(-p)) if q < 1 else 0.0
    return max(first + second, 0.0)


def binary_kl_inverse(q: float, divergence: float) -> float:
    """The largest p in [q, 1] with kl(q || p) <= divergence, by bisection to 1e-12, rounded up.

    It lies below q + sqrt(divergence / 2), Pinsker's bound, where the search begins.
    """
    if not divergence >= 0:
        raise InputError(f"divergence is {divergence!r}; allowed: numbers from 0")
    low, high = q, min(1.0, q + math.sqrt(divergence / 2))
    if binary_kl(q, high) <= divergence:
        return high
    while high - low > _BISECTION_WIDTH:
        middle = (low + high) / 2
        low, high = (middle, high) if binary_kl(q, middle) <= divergence else (low, middle)
    return high


def generalization_bounds(
    model: nn.Module,
    initial_state: Mapping[str, Tensor],
    loss: str | Loss,
    train: Examples,
    test: Examples,
    *,
    sigmas: Sequence[float] = SIGMAS,
    confidence: float = 0.95,
    posterior_samples: int = 200,
    exact: ExactCurvature | None = None,
    seed: int,
    products: int = 100,
    progress: ProgressCallback | None = None,
) -> pandas.DataFrame:
    """Table of BOUNDS, one row a multiplier in `sigmas`: sigma_j = sigma times `posterior.initial_scales`.

    `loss` is the name of a loss or a function: one value an example, or their mean or sum. It also tells which
    predictions of a single output are right (`losses.correct`).

    The bounds of all K rows hold together with probability `confidence` = 1 - delta, so that the smallest, `chosen`,
    is one: delta / K for each, one half for the theorem above and one for the posterior's error on the training
    examples, which is known from `posterior_samples` draws only and enters as its upper limit
    kl^-1(mean, ln(2K / delta) / samples) (Langford and Caruana 2002). So log_term is ln(2 K (n + 1) / delta) / n,
    right_hand_side (effective_curvature + distance) / (2 n) + log_term, and the bound is kl^-1 of that limit. Errors
    are shares of wrong predictions; posterior errors are means over the draws with their standard errors. What the
    bound speaks of is the posterior's error where the training examples come from, drawn independently: on noisy labels
    if those were noisy. H_jj comes from `exact`, or else from `products` Hessian products with random signs; that noise
    costs no validity, since the theorem allows any posterior and the divergence is taken with the same nu.

    Raises InputError for a bad argument, an initial state of another network, or a network with batch norm.
    """
    sigmas = _require_sound(sigmas, confidence, posterior_samples, train, test)
    _require_network(model, initial_state)
    function, space = example_loss(model, loss, train), ParameterSpace(model)
    diagonal = _diagonal(model, function, train, exact, products, seed)
    theta, start = flat_parameters(model, model.state_dict()), flat_parameters(model, initial_state)
    if diagonal.shape != theta.shape:
        raise InputError(f"exact holds {len(diagonal)} parameters, the network {len(theta)}: give its own curvature")
    scales = initial_scales(model, initial_state, train.inputs)
    priors = torch.tensor(sigmas, dtype=torch.float64, device=theta.device)[:, None] * scales  # (K, p)
    ratios = priors.square() * diagonal  # sigma_j^2 H_jj
    deviations = priors / ratios.clamp(min=1).sqrt()
    draws = derive_seed(seed, "generalisation bound", "posterior")
    errors = posterior_errors(space, deviations, function, [train, test], posterior_samples, draws, progress).cpu()
    own = errors_at(space, function, [train, test])
    failure = (1 - confidence) / (2 * len(sigmas))
    terms = _terms(ratios, (theta - start) / priors, len(train), failure)
    rows = [
        {"sigma": sigma}
        | term
        | _posterior_columns(errors[:, k])
        | {"bound": _bound(errors[0, k], term["right_hand_side"], failure)}
        | {"train_error": own[0], "test_error": own[1]}
        for k, (sigma, term) in enumerate(zip(sigmas, terms, strict=True))
    ]
    return _with_choice(pandas.DataFrame(rows), "estimated" if exact is None else "exact", confidence)


def _with_choice(table: pandas.DataFrame, diagonal: str, confidence: float) -> pandas.DataFrame:
    smallest = table.sort_values(["bound", "right_hand_side"], kind="stable").index[0]  # bounds of 1 are alike
    table = table.assign(chosen=table.index == smallest, diagonal=diagonal, confidence=confidence)
    return table[list(BOUNDS)].astype(BOUNDS)


def _require_sound(
    sigmas: Sequence[float], confidence: float, samples: int, train: Examples, test: Examples
) -> list[float]:
    """The multipliers as floats; raises InputError for the first argument out of range."""
    require_examples(train=train, test=test)
    if isinstance(sigmas, str) or not isinstance(sigmas, Iterable):
        raise InputError(f"sigmas is {sigmas!r}; give a list of numbers, such as [1.0]")
    sigmas = [float(sigma) for sigma in sigmas]
    if not are_priors(sigmas):
        raise InputError(f"sigmas are {sigmas}; allowed: one or more different numbers above 0")
    require_share(0.95, confidence=confidence)
    require_at_least(2, posterior_samples=samples)
    if not len(train) or not len(test):
        raise InputError(f"{len(train)} training and {len(test)} test examples given; at least one of each is needed")
    return sigmas


def _require_network(model: nn.Module, initial_state: Mapping[str, Tensor]) -> None:
    require_same_network(model, initial_state)
    if has_batch_norm(model):
        raise InputError(
            "batch norm's running statistics know the training examples, which a prior must not; give a network with "
            "group norm or none"
        )


def are_priors(sigmas: Sequence[float]) -> bool:
    """Whether multipliers can be those of priors: one or more different numbers above 0."""
    return bool(sigmas) and all(0 < sigma < math.inf for sigma in sigmas) and len(set(sigmas)) == len(sigmas)


def _diagonal(
    model: nn.Module, loss: Loss, train: Examples, exact: ExactCurvature | None, products: int, seed: int
) -> Tensor:
    """H_jj (p,), float64, of the mean training loss."""
    if exact is not None:
        return exact.hessian.diagonal()
    hessian = CurvatureOperator("hessian", model, loss, in_dtype_of(model, train).batches(_HESSIAN_BATCH))
    generator = torch.Generator().manual_seed(derive_seed(seed, "generalisation bound", "diagonal"))
    return estimate_diagonal(hessian, products, generator).diagonal


def _terms(ratios: Tensor, moved: Tensor, n: int, failure: float) -> list[dict[str, float]]:
    """The terms of the right-hand side, one row a prior, from sigma_j^2 H_jj and (theta_j - theta_0j) / sigma_j."""
    active = ratios > 1
    curvature = torch.where(active, ratios, 1.0).log().sum(1).tolist()
    distance, log_term = moved.square().sum(1).tolist(), math.log((n + 1) / failure) / n
    return [
        {
            "effective_curvature": c,
            "active": count,
            "distance": d,
            "log_term": log_term,
            "right_hand_side": (c + d) / (2 * n) + log_term,
        }
        for c, count, d in zip(curvature, active.sum(1).tolist(), distance, strict=True)
    ]


def _posterior_columns(errors: Tensor) -> dict[str, float]:
    """Means and standard errors from the errors (2, samples) on train and test."""
    columns = {}
    for split, drawn in zip(("train", "test"), errors, strict=True):
        columns[f"posterior_{split}_error"] = float(drawn.mean())
        columns[f"posterior_{split}_error_standard_error"] = float(drawn.std()) / math.sqrt(len(drawn))
    return columns


def _bound(drawn: Tensor, right_hand_side: float, failure: float) -> float:
    """The bound on the posterior's error, from its training errors at the draws (samples,)."""
    limit = binary_kl_inverse(float(drawn.mean()), math.log(1 / failure) / len(drawn))
    return binary_kl_inverse(limit, right_hand_side)
