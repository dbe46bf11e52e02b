r"""What a second-order prediction of one SGD step needs to know of a point: a dozen numbers for each preconditioner.

With mu the gradient of the loss L, H its Hessian, Sigma = F F^T the covariance of per-example gradients, and
mini-batches of m out of n examples without replacement, whose gradient is mu + sqrt(c/m) F z with E z = 0, E z z^T = I
and c = (n - m) / (n - 1), a step -eta A g changes the loss to second order by

    Delta = -eta mu^T A g + (eta^2 / 2) g^T A H A g
          = first + drift + sqrt(c/m) (-eta F^T A mu + eta^2 F^T A H A mu)^T z + (eta^2 / 2)(c/m) z^T (F^T A H A F) z.

For a mean over many examples z is close to normal; Delta then is a Gaussian quadratic form (`linalg.gaussian_forms`).
F is known exactly from per-example gradients, or as the (n,) -> (p,) map of a weighted sum of them and its transpose,
the examples' slopes along a direction: one backward and one forward-mode pass, no per-example gradient kept.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import grad, jvp

from hessketch.curvature.losses import Loss
from hessketch.curvature.operators import CurvatureOperator
from hessketch.curvature.per_example import per_example_gradients
from hessketch.curvature.points import ParameterSpace
from hessketch.curvature.precision import arithmetic
from hessketch.data.examples import Examples
from hessketch.dynamics.exact import ExactCurvature
from hessketch.dynamics.schemes import Scheme
from hessketch.linalg.gaussian_forms import (
    NO_FORM,
    FormSpectrum,
    GaussianForm,
    estimated_form_spectrum,
    exact_form_spectrum,
    gaussian_form,
)
from hessketch.linalg.vectors import ProgressCallback, dot

# Numbers of per-example gradients held at once while their moments are summed.
_GRADIENT_NUMBERS = 2**25


@dataclass(frozen=True)
class StepMoments:
    """Of one preconditioner A at one point."""

    descent: float  # mu^T A mu
    curvature: float  # mu^T A H A mu
    noise: FormSpectrum  # of F^T A H A F; its trace is tr(A H A Sigma)
    linear: tuple[float, float, float]  # x^T x, x^T y, y^T y for x = F^T A mu, y = F^T A H A mu

    def loss_change(self, step_size: float, noise_share: float) -> tuple[float, float, float, GaussianForm]:
        """First-order term, drift and noise term, and the form of the whole; `noise_share` is c / m."""
        eta = step_size
        first, drift = -eta * self.descent, eta**2 / 2 * self.curvature
        xx, xy, yy = self.linear
        linear_square = noise_share * eta**2 * max(xx - 2 * eta * xy + eta**2 * yy, 0.0)
        noise = self.noise.scaled(eta**2 / 2 * noise_share)
        return first, drift, noise.trace, gaussian_form(first + drift, noise, linear_square)


def exact_step_moments(exact: ExactCurvature, scheme: Scheme) -> StepMoments:
    """From the dense matrices, float64; the form is taken on the smaller side of F, of min(n, p) columns."""
    values, vectors = exact.covariance_eigenpairs
    factor = vectors * values.clamp(min=0).sqrt()
    a = 1.0 if scheme.preconditioner is None else scheme.preconditioner
    ahead = a * exact.mean_gradient
    bent = a * (exact.hessian @ ahead)
    scaled = (factor.T * a).T
    x, y = factor.T @ ahead, factor.T @ bent
    return StepMoments(
        float(exact.mean_gradient @ ahead),
        float(exact.mean_gradient @ bent),
        exact_form_spectrum(scaled.T @ (exact.hessian @ scaled)),
        (float(x @ x), float(x @ y), float(y @ y)),
    )


class GradientNoise:
    """F (p, n) with F F^T = Sigma as a map: F r = (1/sqrt n) sum_i (r_i - mean r) g_i, in batches of examples."""

    def __init__(self, space: ParameterSpace, loss: Loss, examples: Examples, batch: int):
        self._space, self._loss, self._examples, self._batch = space, loss, examples, batch

    def _losses(self, part: slice) -> Callable[[Tensor], Tensor]:
        inputs, targets = (self._space.converted(t[part]) for t in (self._examples.inputs, self._examples.targets))
        return lambda theta: self._loss(self._space.outputs(theta, inputs), targets)

    def _parts(self, work: Callable[[slice], Tensor]) -> Iterator[Tensor]:
        return (found for _, found in self._space.limit.parts(work, len(self._examples), self._batch))

    def spread(self, weights: Tensor) -> Tensor:
        """F r (p,) for weights r (n,)."""
        centred = weights - weights.mean()
        total = torch.zeros_like(self._space.theta)

        def slope(part: slice) -> Tensor:
            losses = self._losses(part)
            return grad(lambda theta: losses(theta) @ centred[part])(self._space.theta)

        with arithmetic():
            for gradient in self._parts(slope):
                total += gradient
        return total / len(weights) ** 0.5

    def along(self, direction: Tensor) -> Tensor:
        """F^T w (n,) for a direction w (p,)."""
        with arithmetic():
            at = (self._space.theta,), (direction,)
            slopes = torch.cat(list(self._parts(lambda part: jvp(self._losses(part), *at)[1])))
        return (slopes - slopes.mean()) / len(slopes) ** 0.5


class NoiseCurvature:
    """F^T A H A F (n, n) by its products: a backward, a Hessian and a forward-mode pass over all examples each."""

    def __init__(self, noise: GradientNoise, hessian: CurvatureOperator, preconditioner: Tensor | None, n: int):
        self._noise, self._hessian = noise, hessian
        self._a = 1.0 if preconditioner is None else preconditioner.to(hessian.dtype)
        self.shape, self.dtype, self.device = (n, n), hessian.dtype, hessian.device

    def __matmul__(self, other: Tensor) -> Tensor:
        if other.ndim == 2:
            return torch.stack([self @ column for column in other.T], 1)
        return self._noise.along(self._a * (self._hessian @ (self._a * self._noise.spread(other))))


def estimated_step_moments(
    noise: GradientNoise,
    hessian: CurvatureOperator,
    mean: Tensor,
    scheme: Scheme,
    *,
    noise_share: float,
    probes: int,
    generator: torch.Generator,
    progress: ProgressCallback | None = None,
) -> StepMoments:
    """By products with `hessian` alone; 2 * probes of them for the form, none where there is no noise.

    `mean` (p,) is mu. What belongs to mu is exact up to rounding; the form's trace and sum of squares are estimates.
    """
    mean = mean.to(hessian.dtype)
    a = 1.0 if scheme.preconditioner is None else scheme.preconditioner.to(hessian.dtype)
    ahead = a * mean
    bent = a * (hessian @ ahead)
    x, y = noise.along(ahead), noise.along(bent)
    form = NO_FORM
    if noise_share > 0:
        operator = NoiseCurvature(noise, hessian, scheme.preconditioner, len(x))
        form = estimated_form_spectrum(operator, probes, generator, progress)
    return StepMoments(
        float(dot(mean, ahead)),
        float(dot(mean, bent)),
        form,
        (float(dot(x, x)), float(dot(x, y)), float(dot(y, y))),
    )


def gradient_mean_and_variances(model: nn.Module, loss: Loss, examples: Examples) -> tuple[Tensor, Tensor]:
    """mu (p,) and Sigma_jj (p,), float64, from per-example gradients of which a part is held at a time.

    Variances are summed around each part's own mean and joined (Chan, Golub and LeVeque 1979): no cancellation.
    """
    p = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    mean = torch.zeros(p, dtype=torch.float64, device=next(model.parameters()).device)
    squares, seen = torch.zeros_like(mean), 0
    for inputs, targets in examples.batches(max(1, _GRADIENT_NUMBERS // p)):
        gradients = per_example_gradients(model, loss, inputs, targets).double()
        count, own = len(gradients), gradients.mean(0)
        apart = own - mean
        squares = squares + (gradients - own).square().sum(0) + apart.square() * (seen * count / (seen + count))
        mean = mean + apart * (count / (seen + count))
        seen += count
    return mean, squares / seen
