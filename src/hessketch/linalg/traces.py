"""Traces and Frobenius norms from random probes, each with its standard error: Hutchinson, Hutch++ and XTrace."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hessketch.errors import NotFiniteError
from hessketch.linalg.arrays import Floats
from hessketch.linalg.vectors import (
    Operator,
    ProgressCallback,
    dimension,
    dot,
    no_progress,
    random_vectors,
    require_at_least,
    summed,
)

_CHUNK = 2**20  # entries of a block turned into float64 at a time


@dataclass(frozen=True)
class Estimate:
    """A number estimated from random probes, float64."""

    value: float
    standard_error: float  # of the value, from the probes alone: rounding in the operator is not in it; 0 if exact
    products: int  # products with the operator that it took


class ReportedProducts:
    """`operator @ vector` for a known number of vectors (p,): counted, checked and reported to `progress`.

    Raises NotFiniteError naming the algorithm and the product that holds NaN or infinity.
    """

    def __init__(self, operator: Operator, algorithm: str, total: int, progress: ProgressCallback | None):
        self.operator, self.algorithm, self.total = operator, algorithm, total
        self.done = 0
        self._progress = progress or no_progress

    def __matmul__(self, vector: Tensor) -> Tensor:
        product = self.operator @ vector
        self.done += 1
        if not torch.isfinite(dot(product, product)):
            raise NotFiniteError(
                f"{self.algorithm}, product {self.done} of {self.total}: the operator's product holds NaN, infinity "
                "or numbers too large to square"
            )
        self._progress(self.done, self.total)
        return product


def gaussian_vector(operator: Operator, generator: torch.Generator) -> Tensor:
    """Independent standard normal entries (p,); see `random_vectors`."""
    return random_vectors(operator, 1, generator)[:, 0].contiguous()


def rademacher_vector(operator: Operator, generator: torch.Generator) -> Tensor:
    """Independent random signs (p,), those of `gaussian_vector`: a seed gives the same ones on every device."""
    gaussian = gaussian_vector(operator, generator)
    return torch.ones_like(gaussian).copysign_(gaussian)


def mean_estimate(samples: Floats, products: int) -> Estimate:
    """Mean of samples (n,), n >= 2, and its standard error, the samples' deviation (n - 1 below it) over sqrt(n)."""
    return Estimate(float(samples.mean()), float(samples.std(ddof=1) / np.sqrt(len(samples))), products)


def hutchinson_trace(
    operator: Operator, products: int, generator: torch.Generator, progress: ProgressCallback | None = None
) -> Estimate:
    """Mean of z^T A z over `products` probes z of random signs (Hutchinson 1990), at least 2; unbiased.

    Signs, not normal entries: their variance 2 sum_{i != j} a_ij^2 leaves out the 2 sum_i a_ii^2 that Gaussian
    probes add, and is the smallest that independent entries of mean 0 and variance 1 can have.
    Keeps one probe and its product, O(p) memory.

    Raises InputError for bad arguments, NotFiniteError naming the product.
    """
    require_at_least(2, products=products)
    a = ReportedProducts(operator, "Hutchinson's trace", products, progress)
    samples = [_form(a, rademacher_vector(operator, generator)) for _ in range(products)]
    return mean_estimate(_numbers(samples), products)


def frobenius_norm_squared(
    operator: Operator, products: int, generator: torch.Generator, progress: ProgressCallback | None = None
) -> Estimate:
    """||A||_F^2 = trace(A^2), the sum of squared eigenvalues: mean of ||A z||^2 over `products` probes of signs.

    Hutchinson's estimator of trace(A^2) at one product a probe, since A is symmetric; unbiased, at least 2 products,
    O(p) memory. Raises as `hutchinson_trace`.
    """
    require_at_least(2, products=products)
    a = ReportedProducts(operator, "squared Frobenius norm", products, progress)
    samples = []
    for _ in range(products):
        product = a @ rademacher_vector(operator, generator)
        samples.append(dot(product, product))
    return mean_estimate(_numbers(samples), products)


def hutch_plus_plus_trace(
    operator: Operator, products: int, generator: torch.Generator, progress: ProgressCallback | None = None
) -> Estimate:
    """Hutch++ (Meyer, Musco, Musco and Woodruff 2021, Algorithm 1); unbiased, exact for rank <= products // 3.

    trace(Q^T A Q) + mean of z^T P A P z, P = I - Q Q^T, with Q an orthonormal basis of the range of A S and S of
    k = products // 3 columns. The first part takes 2 k products and is exact; the other products go to probes z of
    random signs, whose sample gives the standard error. S is Gaussian, not of signs as printed: A S then has
    min(k, rank A) independent columns with probability 1, whatever A is. Better than Hutchinson's estimator where
    few eigenvalues hold much of ||A||_F, worse (with a third of its probes) where they are all alike.

    Takes at least 4 products (k = 1 and two probes); if p <= products, the exact trace by p products instead.
    Memory: two blocks (p, k) during the factorisation, one after it.

    Raises InputError for bad arguments, NotFiniteError naming the product.
    """
    require_at_least(4, products=products)
    if dimension(operator) <= products:
        return _exact_trace(ReportedProducts(operator, "Hutch++", dimension(operator), progress))
    k = products // 3
    a = ReportedProducts(operator, "Hutch++", products, progress)
    q = torch.linalg.qr(_sketch(a, k, generator)).Q
    captured = _numbers([_form(a, q[:, j]) for j in range(k)]).sum()
    samples = []
    for _ in range(products - 2 * k):
        z = rademacher_vector(operator, generator)
        samples.append(_form(a, z - q @ _coefficients(q, z).to(q)))
    return mean_estimate(captured + _numbers(samples), products)


def xtrace(
    operator: Operator, products: int, generator: torch.Generator, progress: ProgressCallback | None = None
) -> Estimate:
    """XTrace with resphering (Epperly, Tropp and Webber 2024, "XTrace: making the most of every sample").

    For Gaussian probes w_1 ... w_k, k = products // 2, the mean over i of the leave-one-out estimates
    trace(Q_i^T A Q_i) + (p - k + 1) w_i^T P_i A P_i w_i / ||P_i w_i||^2, P_i = I - Q_i Q_i^T, with Q_i an orthonormal
    basis of the range of A W without its column i. Each is Hutch++ with one probe, and unbiased; the quotient is the
    resphering, which makes the length of P_i w_i that of its mean. Exact for rank <= k - 1.

    The standard error is that of the mean of the k estimates as if they were independent, the paper's own: they
    share their other probes, so that it is a guess, and rather too small: 0.7 to 1.0 of the true error over 300 seeds
    on seven spectra of p = 100 with 12, 30 and 60 products, 0.8 to 1.0 with p = 5000 (0.95 to 1.1 for the others).
    The error itself was the smallest of the three on every spectrum that decays as 1 / i or faster, 0.1 to 0.9 of
    that of Hutch++.

    Takes 2 k products, at least 4 (an odd one is left unused); if p <= products, the exact trace by p products
    instead. Memory: two blocks (p, k) during the factorisation, one after it. Probes are not kept but drawn again.

    Raises InputError for bad arguments, NotFiniteError naming the product.
    """
    require_at_least(4, products=products)
    p, k = dimension(operator), products // 2
    if p <= products:
        return _exact_trace(ReportedProducts(operator, "XTrace", p, progress))
    a = ReportedProducts(operator, "XTrace", 2 * k, progress)
    state = generator.get_state()
    y = _sketch(a, k, generator)
    again = torch.Generator()
    again.set_state(state)
    q, r = torch.linalg.qr(y)
    coefficients, forms, squares = [], [], []
    for i in range(k):
        probe = gaussian_vector(operator, again)
        coefficients.append(_coefficients(q, probe))
        forms.append(dot(probe, y[:, i]))
        squares.append(dot(probe, probe))
    del y
    projected = torch.stack([_coefficients(q, a @ q[:, j]) for j in range(k)])
    samples = _leave_one_out(
        r.double().cpu().numpy(),
        projected.T.cpu().numpy(),
        torch.stack(coefficients).T.cpu().numpy(),
        _numbers(forms),
        _numbers(squares),
        p,
    )
    return mean_estimate(samples, 2 * k)


def _leave_one_out(r: Floats, h: Floats, w: Floats, forms: Floats, squares: Floats, p: int) -> Floats:
    """XTrace's k estimates from A W = Q R (r), h = Q^T A Q, w = Q^T W, w_i^T A w_i (forms) and ||w_i||^2 (squares).

    With s_i the unit vector orthogonal to all columns of R but the i-th, Q_i = Q (I - s_i s_i^T) in projection, and
    P_i w_i = w_i - Q x_i for x_i = (I - s_i s_i^T) Q^T w_i.
    """
    s = _orthogonal_to_the_others(r)
    x = w - s * (s * w).sum(axis=0)
    within = np.trace(h) - (s * (h @ s)).sum(axis=0)
    rest = forms - 2 * (x * r).sum(axis=0) + (x * (h @ x)).sum(axis=0)
    estimates: Floats = within + (p - r.shape[1] + 1) * rest / (squares - (x**2).sum(axis=0))
    return estimates


def _orthogonal_to_the_others(r: Floats) -> Floats:
    """Unit columns s_i (k, k), s_i orthogonal to all columns of a square r but the i-th: r^-T, normalised.

    Singular values below one rounding of the largest are raised to it. A singular r (the operator has a rank below
    k) then gives s_i orthogonal to the whole range, to rounding, and the estimates are exact; zero gives any s_i.
    """
    u, sigma, vt = np.linalg.svd(r)
    relative = sigma / sigma[0] if sigma[0] > 0 else np.ones_like(sigma)
    s = u @ (vt / np.maximum(relative, np.finfo(np.float64).eps)[:, None])
    units: Floats = s / np.linalg.norm(s, axis=0)
    return units


def _exact_trace(a: ReportedProducts) -> Estimate:
    """The sum of e_j^T A e_j, one product each."""
    p = a.total
    diagonal = []
    for j in range(p):
        unit = torch.zeros(p, dtype=a.operator.dtype, device=a.operator.device)
        unit[j] = 1
        diagonal.append((a @ unit)[j].double())
    return Estimate(float(_numbers(diagonal).sum()), 0.0, p)


def _sketch(a: ReportedProducts, columns: int, generator: torch.Generator) -> Tensor:
    """A W (p, columns) for Gaussian W, a column at a time; columns are contiguous, as the factorisation wants them."""
    p = dimension(a.operator)
    y = torch.empty(columns, p, dtype=a.operator.dtype, device=a.operator.device)
    for i in range(columns):
        y[i] = a @ gaussian_vector(a.operator, generator)
    return y.T


def _form(a: ReportedProducts, z: Tensor) -> Tensor:
    """z^T A z, a 0-dimensional float64 tensor."""
    return dot(z, a @ z)


def _coefficients(q: Tensor, v: Tensor) -> Tensor:
    """Q^T v (k,) for a block (p, k), accumulated in float64."""
    rows = max(1, _CHUNK // q.shape[1])
    return summed(a.double().T @ b.double() for a, b in zip(q.split(rows), v.split(rows), strict=True))


def _numbers(scalars: list[Tensor]) -> Floats:
    """The 0-dimensional tensors as one array (n,), fetched from the device at once."""
    return torch.stack(scalars).cpu().numpy()
