"""The diagonal of an operator and the traces of its diagonal blocks from random probes, with standard errors."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hessketch.errors import InputError
from hessketch.linalg.traces import Estimate, ReportedProducts, mean_estimate, rademacher_vector
from hessketch.linalg.vectors import Operator, ProgressCallback, dimension, dot, require_at_least


@dataclass(frozen=True)
class DiagonalEstimate:
    """An operator's diagonal, float64, on the operator's device."""

    diagonal: Tensor  # (p,)
    standard_error: Tensor  # (p,) of each entry
    products: int  # products with the operator that it took


def estimate_diagonal(
    operator: Operator, products: int, generator: torch.Generator, progress: ProgressCallback | None = None
) -> DiagonalEstimate:
    """Mean of z * (A z), entry by entry, over `products` probes z of random signs (Bekas, Kokiopoulou, Saad 2007).

    Unbiased; entry i has the variance sum_{j != i} a_ij^2 / products, so that a diagonal operator comes out exact.
    Entries are as noisy as their rows are heavy, not as they are large: compare with `standard_error`. Mean and
    variance are accumulated together (Welford 1962) in float64. At least 2 products; O(p) memory. The mean of the
    same probes' sums is `hutchinson_trace`.

    Raises InputError for bad arguments, NotFiniteError naming the product.
    """
    require_at_least(2, products=products)
    a = ReportedProducts(operator, "diagonal", products, progress)
    mean = torch.zeros(dimension(operator), dtype=torch.float64, device=operator.device)
    squares = torch.zeros_like(mean)  # the sum of squared deviations from the mean
    for n in range(1, products + 1):
        z = rademacher_vector(operator, generator)
        sample = (z * (a @ z)).double()
        deviation = sample - mean
        mean.add_(deviation, alpha=1 / n)
        squares.addcmul_(deviation, sample.sub_(mean))
    return DiagonalEstimate(mean, squares.div_(products * (products - 1)).sqrt_(), products)


def estimate_block_traces(
    operator: Operator,
    sizes: Sequence[int],
    products: int,
    generator: torch.Generator,
    progress: ProgressCallback | None = None,
) -> list[Estimate]:
    """Traces of the diagonal blocks of consecutive `sizes` (layers, say), all from the same probes.

    For block b the mean of z_b^T (A z)_b over `products` probes z of random signs, at least 2: a part of Hutchinson's
    z^T A z, so that the values add up to `hutchinson_trace` with the same generator. Unbiased; entries of A between
    blocks add to the variance. Errors of different blocks are correlated: that of a sum is not the root of the sum
    of squares. O(p) memory.

    Raises InputError for bad arguments (sizes that do not sum to p included), NotFiniteError naming the product.
    """
    require_at_least(2, products=products)
    for b, size in enumerate(sizes):
        require_at_least(1, **{f"sizes[{b}]": size})
    if sum(sizes) != dimension(operator):
        raise InputError(
            f"the sizes of the blocks sum to {sum(sizes)}; allowed: {dimension(operator)}, as the operator"
        )
    a = ReportedProducts(operator, "block traces", products, progress)
    samples = []
    for _ in range(products):
        z = rademacher_vector(operator, generator)
        pairs = zip(z.split(list(sizes)), (a @ z).split(list(sizes)), strict=True)
        samples.append(torch.stack([dot(x, y) for x, y in pairs]))
    return [mean_estimate(block, products) for block in torch.stack(samples).T.cpu().numpy()]
