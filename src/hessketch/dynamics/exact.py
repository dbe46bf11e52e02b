"""Hessian and per-example gradients of one point of a training, as matrices that its measurements share."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from hessketch.curvature.dense import dense_hessian, dense_moments
from hessketch.curvature.losses import Loss, as_loss
from hessketch.curvature.per_example import per_example_gradients
from hessketch.curvature.points import require_examples
from hessketch.data.examples import Examples
from hessketch.linalg.vectors import ProgressCallback


@dataclass(frozen=True, eq=False)
class ExactCurvature:
    """Float64 curvature of the mean loss over n examples in p parameters; what follows from it is computed once."""

    gradients: Tensor  # (n, p) of each example's loss, one a row
    hessian: Tensor  # (p, p), symmetric

    @property
    def n(self) -> int:
        return self.gradients.shape[0]

    @property
    def p(self) -> int:
        return self.gradients.shape[1]

    @cached_property
    def mean_gradient(self) -> Tensor:
        """(p,), mu = (1/n) sum g_i: the gradient of the mean loss."""
        return self.gradients.mean(0)

    @cached_property
    def _moments(self) -> tuple[Tensor, Tensor, Tensor]:
        return dense_moments(self.gradients)

    @property
    def second_moment(self) -> Tensor:
        """(p, p), M = (1/n) sum g_i g_i^T."""
        return self._moments[1]

    @property
    def covariance(self) -> Tensor:
        """(p, p), Sigma = M - mu mu^T."""
        return self._moments[2]

    @cached_property
    def hessian_eigenpairs(self) -> tuple[Tensor, Tensor]:
        """Eigenvalues (p,) of the Hessian, descending by value, and eigenvectors as columns (p, p)."""
        values, vectors = torch.linalg.eigh(self.hessian)
        return values.flip(0), vectors.flip(1)

    @cached_property
    def second_moment_eigenpairs(self) -> tuple[Tensor, Tensor]:
        """The r = min(n, p) largest eigenvalues of M, descending, and eigenvectors (p, r); all others are zero."""
        return _eigenpairs_of_moment(self.gradients)

    @cached_property
    def covariance_eigenpairs(self) -> tuple[Tensor, Tensor]:
        """The r = min(n, p) largest eigenvalues of Sigma, descending, and eigenvectors (p, r); all others are zero."""
        return _eigenpairs_of_moment(self.gradients - self.mean_gradient)


def _eigenpairs_of_moment(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenpairs of rows^T rows / n. By singular values where n < p: quicker, and rounding is not squared."""
    n, p = rows.shape
    if n < p:
        _, singular, right = torch.linalg.svd(rows, full_matrices=False)
        return singular.square() / n, right.T
    values, vectors = torch.linalg.eigh(rows.T @ rows / n)
    return values.clamp(min=0).flip(0), vectors.flip(1)


def exact_curvature(
    model: nn.Module,
    loss: str | Loss,
    examples: Examples,
    *,
    batch_size: int = 500,
    memory: int | None = None,
    progress: ProgressCallback | None = None,
) -> ExactCurvature:
    """Hessian and per-example gradients of the mean loss `loss` over the examples, in float64 on the model's device.

    `loss` is a function or the name of one. The model is in eval mode and stays as it is. `memory` and `progress` as of
    `dense_hessian`; `batch_size` bounds the examples that the Hessian takes at once and does not change it. Raises as
    `dense_hessian` and `per_example_gradients`, and InputError for anything but Examples.
    """
    require_examples(examples=examples)
    function = as_loss(loss)
    gradients = per_example_gradients(model, function, examples.inputs, examples.targets, dtype=torch.float64)
    hessian = dense_hessian(model, function, examples.batches(batch_size), memory=memory, progress=progress)
    return ExactCurvature(gradients, hessian)
