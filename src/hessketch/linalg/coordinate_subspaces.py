r"""Masks: subspaces of R^p spanned by some of its axes, never formed as matrices, against eigenspaces and each other.

A mask is its coordinates: k ascending, distinct int64 indices. Let U (p, j) be an orthonormal basis. Then the overlap
of a mask m with it is a sum of leverages, the squared norms of U's rows,

    |E_m^T U|_F^2 / k = (1 / k) sum over i in m of |U_i|^2,

so the k coordinates of the largest leverages have the largest overlap of all masks of k. The rows of U in m and the
other rows hold the cosines and the sines of the principal angles (a CS decomposition: Golub and Van Loan, Matrix
Computations, 2.5.4). Two masks of k have |m and m'| angles 0, the others pi / 2: their overlap is |m and m'| / k = o,
and their intersection over union is o / (2 - o).
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from hessketch.errors import InputError
from hessketch.linalg.largest import largest_entries
from hessketch.linalg.vectors import require_at_least

# Entries of a basis that are turned into float64 at a time: an 8 MiB buffer.
_ENTRIES = 2**20


def magnitude_order(values: Tensor) -> Tensor:
    """Indices (p,) int64 of the entries of `values` (p,) by descending magnitude, equal ones by ascending index.

    Raises InputError for anything but a vector of finite real numbers.
    """
    return torch.sort(_finite_vector(values).abs(), descending=True, stable=True).indices


def largest_entries_mask(values: Tensor, k: int) -> Tensor:
    """The mask (k,) of the k entries of largest magnitude of `values` (p,), the first of equal ones; in O(p).

    Of leverages it is the mask of largest overlap. Raises InputError as `magnitude_order`, and for k outside 1 ... p-1.
    """
    _require_size(k, len(_finite_vector(values)))
    return largest_entries(values, k)


def require_mask(mask: Tensor, p: int) -> Tensor:
    """The mask itself; raises InputError if it is none of R^p: indices (k,) int64, ascending, distinct, 1 <= k < p."""
    if not isinstance(mask, Tensor) or mask.ndim != 1 or mask.dtype != torch.int64:
        found = f"{tuple(mask.shape)} of {mask.dtype}" if isinstance(mask, Tensor) else f"{type(mask).__name__}"
        raise InputError(f"a mask is {found}; allowed: int64 indices (k,)")
    _require_size(len(mask), p)
    _require_range(mask, p)
    if not bool((mask.diff() > 0).all()):
        raise InputError("the indices of a mask repeat or are not ascending; give mask.unique(), which sorts them")
    return mask


def leverages_at(vectors: Tensor, ks: Sequence[int]) -> Iterator[tuple[int, Tensor]]:
    """For each k of `ks`, ascending: k and the squared norms (p,), float64, of the rows of the first k columns.

    `vectors` (p, K) has orthonormal columns. The work is O(p K) for all k together, on the vectors' device, and a
    vector that was given stays as it is. Raises InputError for k outside 1 ... min(K, p - 1) or not ascending, and for
    columns that are not orthonormal or hold NaN (see `require_orthonormal`).
    """
    _require_columns(vectors)
    _require_ks(ks, *vectors.shape)
    if any(a >= b for a, b in pairwise(ks)):
        raise InputError(f"ks are {list(ks)}; allowed: ascending, each once")
    require_orthonormal(vectors[:, : ks[-1]])
    return _leverages_at(vectors, ks)


def _leverages_at(vectors: Tensor, ks: Sequence[int]) -> Iterator[tuple[int, Tensor]]:
    sums = torch.zeros(len(vectors), dtype=torch.float64, device=vectors.device)
    for before, k in pairwise([0, *ks]):
        added = [rows.square().sum(1) for _, rows in _row_blocks(vectors[:, before:k])]
        sums = sums + torch.cat(added)
        yield k, sums


def mask_angles(vectors: Tensor, mask: Tensor) -> Tensor:
    """Principal angles (min(k, l),), float64 in radians, ascending, of the span of `vectors` (p, k) and a mask (l,).

    As accurate near 0 and near pi / 2 as `principal_angles`, in O(p k^2) work with O(k^2) memory beside the vectors.
    Raises InputError for columns that are not orthonormal and as `require_mask`.
    """
    _require_columns(vectors)
    mask = require_mask(mask, len(vectors)).to(vectors.device)
    inside = torch.zeros(len(vectors), dtype=torch.bool, device=vectors.device)
    inside[mask] = True
    within, without = _triangular(vectors, inside), _triangular(vectors, ~inside)
    # Q's two parts are those of an exactly orthonormal basis of the same span, up to rotations within each.
    q, r = torch.linalg.qr(torch.cat([within, without]))
    k = vectors.shape[1]
    _require_small(r.T @ r - torch.eye(k).to(r), vectors.dtype)
    count = min(k, len(mask))
    cosines = torch.linalg.svdvals(q[: len(within)]).clamp(max=1)
    sines = torch.linalg.svdvals(q[len(within) :]).clamp(max=1).flip(0)
    sines = torch.cat([sines.new_zeros(k - len(sines)), sines])[:count]
    return torch.where(cosines.square() > 0.5, torch.asin(sines), torch.acos(cosines))


def mask_iou(first: Tensor, second: Tensor) -> float:
    """Intersection over union of two masks of one R^p, of any sizes; raises InputError where one is empty or unsorted.

    For masks of one size with overlap o it is o / (2 - o).
    """
    first, second = (require_mask(mask, torch.iinfo(torch.int64).max) for mask in (first, second))
    shared = int(torch.isin(first, second.to(first.device), assume_unique=True).sum())
    return shared / (len(first) + len(second) - shared)


def require_orthonormal(vectors: Tensor) -> None:
    """Raises InputError unless U^T U is I for the columns of `vectors` (p, K), seen by one product with a vector.

    |U^T U z - z| may reach the square root of the rounding unit, for fixed pseudo-random entries of z of magnitude 1 to
    2: O(p K) work where U^T U takes O(p K^2). NaN and infinity are refused as well.
    """
    _require_columns(vectors)
    generator = torch.Generator().manual_seed(0)
    magnitudes = 1 + torch.rand(vectors.shape[1], generator=generator, dtype=torch.float64)
    signs = 2 * torch.randint(2, magnitudes.shape, generator=generator) - 1
    z = (magnitudes * signs).to(vectors.device)
    seen = sum((rows.T @ (rows @ z) for _, rows in _row_blocks(vectors)), torch.zeros_like(z))
    _require_small(seen - z, vectors.dtype)


def _require_small(difference: Tensor, dtype: torch.dtype) -> None:
    found, allowed = float(difference.abs().max()), torch.finfo(dtype).eps ** 0.5
    if not found <= allowed:
        raise InputError(
            f"the columns are not orthonormal: U^T U differs from I by {found:.1e} (allowed: {allowed:.1e}); take the "
            "Q of torch.linalg.qr"
        )


def _triangular(vectors: Tensor, chosen: Tensor) -> Tensor:
    """R (min(rows, k), k) of a QR decomposition of the chosen rows, block by block."""
    r = torch.zeros(0, vectors.shape[1], dtype=torch.float64, device=vectors.device)
    for start, rows in _row_blocks(vectors, least=4 * vectors.shape[1]):
        r = torch.linalg.qr(torch.cat([r, rows[chosen[start : start + len(rows)]]]), mode="r").R
    return r


def _row_blocks(vectors: Tensor, least: int = 1) -> Iterator[tuple[int, Tensor]]:
    """The rows in float64, some at a time, with the number of the first."""
    step = max(least, _ENTRIES // vectors.shape[1])
    for start in range(0, len(vectors), step):
        yield start, vectors[start : start + step].double()


def _require_columns(vectors: Tensor) -> None:
    if vectors.ndim != 2 or not 1 <= vectors.shape[1] <= vectors.shape[0] or not vectors.is_floating_point():
        raise InputError(
            f"the basis is {tuple(vectors.shape)} of {vectors.dtype}; allowed: real columns (p, k), 1 <= k <= p"
        )


def _require_ks(ks: Sequence[int], p: int, columns: int) -> None:
    most = min(p - 1, columns)
    for k in ks:
        require_at_least(1, k=k)
    if not len(ks) or max(ks) > most:
        raise InputError(
            f"ks are {list(ks)}, for {p} coordinates and {columns} columns; allowed: one or more from 1 to {most}"
        )


def _require_size(k: int, p: int) -> None:
    if not isinstance(k, int) or isinstance(k, bool) or not 1 <= k < p:
        raise InputError(f"a mask of {k!r} of {p} coordinates says nothing; allowed sizes: 1 to {p - 1}")


def _require_range(indices: Tensor, p: int) -> None:
    if not bool(((indices >= 0) & (indices < p)).all()):
        outside = int(indices[(indices < 0) | (indices >= p)][0])
        raise InputError(f"index {outside} is outside the {p} coordinates; allowed: 0 to {p - 1}")


def _finite_vector(values: Tensor) -> Tensor:
    if values.ndim != 1 or not values.is_floating_point():
        raise InputError(f"values are {tuple(values.shape)} of {values.dtype}; allowed: a vector of real numbers")
    if not bool(torch.isfinite(values).all()):
        place = int((~torch.isfinite(values)).nonzero()[0, 0])
        raise InputError(f"values[{place}] is {float(values[place])}; allowed: finite numbers, which have an order")
    return values
