r"""How two subspaces lie to each other: principal angles, and the overlap of eigenspaces.

For orthonormal bases U (p, k) and V (p, l) the cosines of the principal angles are the singular values of U^T V, their
sines those of V - U U^T V (Bjorck and Golub 1973). A cosine near 1 has lost the angle (1e-9 rad is 1 - 5e-19), a sine
near 1 likewise, so each angle is taken from the one that is smaller.
"""

import torch
from torch import Tensor

from hessketch.errors import InputError


def principal_angles(first: Tensor, second: Tensor) -> Tensor:
    """Angles (min(k, l),) float64 in radians, ascending, between the spans of orthonormal columns (p, k) and (p, l).

    Accurate to some 1e-15 for angles near 0 and near pi/2 alike, if the bases are float64. Raises InputError for bases
    of different p, without columns, with more columns than rows, or not orthonormal: an entry of |U^T U - I| above the
    square root of the rounding unit (3.5e-4 in float32, 1.5e-8 in float64).
    """
    u, v = _orthonormal_pair(first, second)
    if u.shape[1] < v.shape[1]:
        u, v = v, u
    inner = u.T @ v
    cosines = torch.linalg.svdvals(inner).clamp(max=1)
    sines = torch.linalg.svdvals(v - u @ inner).clamp(max=1).flip(0)
    return torch.where(cosines.square() > 0.5, torch.asin(sines), torch.acos(cosines))


def overlap(first: Tensor, second: Tensor) -> float:
    """|U^T V|_F^2 / k of two orthonormal bases (p, k): the mean squared cosine of their principal angles, in [0, 1].

    Two random subspaces have k / p in the mean. Raises InputError as `principal_angles`, and for different k.
    """
    return float(cumulative_overlaps(first, second)[-1])


def cumulative_overlaps(first: Tensor, second: Tensor) -> Tensor:
    """Overlaps (k,) float64 of the leading j columns of each basis (p, k), j = 1 ... k; raises as `overlap`."""
    u, v = _orthonormal_pair(first, second)
    k = u.shape[1]
    if k != v.shape[1]:
        raise InputError(f"an overlap is of spaces of one dimension; {k} and {v.shape[1]} columns are given")
    squares = (u.T @ v).square().cumsum(0).cumsum(1).diagonal()
    return squares / torch.arange(1, k + 1, dtype=squares.dtype, device=squares.device)


def _orthonormal_pair(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Both bases in float64, orthonormal to its rounding; raises InputError where they are not to that of their own."""
    u, v = _orthonormal(first, "first"), _orthonormal(second, "second")
    if u.shape[0] != v.shape[0]:
        raise InputError(f"the bases lie in spaces of {u.shape[0]} and {v.shape[0]} dimensions; give two of one space")
    return u, v.to(u.device)


def _orthonormal(basis: Tensor, which: str) -> Tensor:
    if basis.ndim != 2 or not 1 <= basis.shape[1] <= basis.shape[0] or not basis.is_floating_point():
        raise InputError(
            f"the {which} basis is {tuple(basis.shape)} of {basis.dtype}; allowed: real columns (p, k), 1 <= k <= p"
        )
    allowed = torch.finfo(basis.dtype).eps ** 0.5
    columns = basis.double()
    found = float((columns.T @ columns - torch.eye(columns.shape[1]).to(columns)).abs().max())
    if not found <= allowed:
        raise InputError(
            f"the {which} basis is not orthonormal: |U^T U - I| is {found:.1e} (allowed: {allowed:.1e}); take the Q of "
            "torch.linalg.qr"
        )
    q: Tensor = torch.linalg.qr(columns).Q  # its leading columns span what those of the basis span
    return q
