r"""How one batch of examples multiplies by its curvature matrices, summed over the batch.

With outputs f(theta), loss l, its slope s = dl/df and its output Hessian L = d2l/df2 (all of one example i):

    hessian        sum_i d2 l_i / d theta2                = d/dtheta <J^T s, .>  with s a function of theta
    residual       sum_i sum_k s_ik d2 f_ik               = d/dtheta <J^T s, .>  with s held fixed
    ggn            sum_i J_i^T L_i J_i
    second_moment  sum_i J_i^T s_i s_i^T J_i, since an example's loss gradient is J_i^T s_i

The first two differentiate a gradient, the last two need J v and one pass backwards. No per-example gradient is ever
formed.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from hessketch.curvature.batch import Batch, Product, output_hessian, slope_outer_product
from hessketch.curvature.graphs import GradientGraph
from hessketch.curvature.tapes import ComponentsTape, GradientTape, OutputsTape


@dataclass(frozen=True)
class Builders:
    """Makers of a batch's product: one that is kept for many vectors, one that is made for a few and dropped."""

    kept: Callable[[Batch], Product]
    dropped: Callable[[Batch], Product]


def _of_gradient(fixed_slope: bool) -> Builders:
    return Builders(partial(GradientTape, fixed_slope=fixed_slope), partial(GradientGraph, fixed_slope=fixed_slope))


def _of_outputs(between: Callable[[Batch, Tensor], Callable[[Tensor], Tensor]]) -> Builders:
    build = partial(OutputsTape, between=between)
    return Builders(build, build)


PRODUCTS = {
    "hessian": _of_gradient(fixed_slope=False),
    "ggn": _of_outputs(output_hessian),
    "residual": _of_gradient(fixed_slope=True),
    "second_moment": _of_outputs(slope_outer_product),
}
COMPONENTS_AT_ONCE = Builders(ComponentsTape, ComponentsTape)


def for_blocks(builders: Builders) -> Builders:
    """Builders of products that also multiply by diagonal blocks."""
    return Builders(builders.dropped, builders.dropped)
