"""Step sizes and preconditioners of one SGD step, theta - eta A g with g the gradient of a mini-batch.

Li, Gu, Zhou, Chen and Banerjee (2020) compare a fixed step, an adaptive one and diagonal preconditioning. Their exact
rules could not be had; those here are ours, with the property that the paper argues from.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from hessketch.errors import InputError, nearest

SCHEMES = ("fixed", "adaptive", "preconditioned")
# Of the mean root of M_jj: what keeps the preconditioner finite where gradients vanish.
_DAMPING = 1e-2


@dataclass(frozen=True)
class Scheme:
    """How a mini-batch gradient becomes a step."""

    name: str
    step_size: float  # eta
    preconditioner: Tensor | None  # (p,), the diagonal of A; None: the identity

    def steps(self, gradients: Tensor) -> Tensor:
        """-eta A g for gradients (k, p), one a row."""
        scale = self.step_size if self.preconditioner is None else self.step_size * self.preconditioner
        return -gradients * scale


def require_schemes(names: Sequence[str]) -> None:
    """Raises InputError for no name, one that is not in SCHEMES, or a word in place of a list of them."""
    if isinstance(names, str) or not isinstance(names, Sequence):
        raise InputError(f"schemes is {names!r}; give a list of names, such as ['fixed'], of {', '.join(SCHEMES)}")
    if not names:
        raise InputError(f"no scheme given; allowed: {', '.join(SCHEMES)}")
    for name in names:
        if name not in SCHEMES:
            raise InputError(f"scheme {name!r} is unknown; allowed: {', '.join(SCHEMES)}{nearest(name, SCHEMES)}")


def make_scheme(name: str, learning_rate: float, mean: Tensor, variances: Tensor, noise_share: float) -> Scheme:
    r"""The scheme of that name at a point with gradient mu = `mean` (p,) and Sigma_jj = `variances` (p,), float64.

    `noise_share` is c / m: a mini-batch gradient has the covariance Sigma c / m, so E|g|^2 = |mu|^2 + tr(Sigma) c / m.

    - fixed: A = I, eta = learning_rate.
    - adaptive: A = I, eta = learning_rate |mu|^2 / E|g|^2, smaller the more of the gradient is noise. Where the
      Hessian along steps is below L, E Delta <= -eta |mu|^2 + (L / 2) eta^2 E|g|^2 by Taylor's theorem, which is
      -eta |mu|^2 (1 - learning_rate L / 2) for this eta: negative at every point where mu is not 0 as soon as
      learning_rate < 2 / L. The loss is then a supermartingale; a fixed step has no such property, since its noise
      term stays when mu vanishes.
    - preconditioned: A = diag(s / (sqrt(M_jj) + epsilon)), M_jj = mu_j^2 + Sigma_jj, epsilon a hundredth of the mean
      of sqrt(M_jj), and s such that E|A g|^2 = E|g|^2, so that only directions differ; eta = learning_rate.

    Without any gradient, mean and variances zero, A = I and eta = learning_rate: every step is zero.
    """
    require_schemes((name,))
    squares = mean.square() + noise_share * variances
    length = float(squares.sum())
    if name == "fixed" or length == 0:
        return Scheme(name, learning_rate, None)
    if name == "adaptive":
        return Scheme(name, learning_rate * float(mean.square().sum()) / length, None)
    roots = (mean.square() + variances).sqrt()
    direction = 1 / (roots + _DAMPING * roots.mean())
    scale = (length / (direction.square() * squares).sum()).sqrt()
    return Scheme(name, learning_rate, scale * direction)
