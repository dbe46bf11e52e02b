"""How masks and Hessian eigenspaces of two steps of a training lie to each other, and how they would by chance."""

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations_with_replacement

import pandas
import torch
from torch import Tensor

from hessketch.eigenspaces.settings import ratio_size
from hessketch.eigenspaces.tables import STABILITY
from hessketch.linalg.chance_overlaps import Chance, chance_overlap, mask_pair_chance
from hessketch.linalg.coordinate_subspaces import magnitude_order, mask_iou
from hessketch.linalg.vectors import ProgressCallback, no_progress


def mask_stability(weights: Mapping[int, Tensor], ratios: Sequence[float]) -> pandas.DataFrame:
    """Intersection over union of the masks of the k = ratio p largest magnitudes of each two steps, first <= second.

    `weights` maps steps to flat parameters (p,). Columns STABILITY: split is empty and of is 'mask'; chance and
    chance_sd are those of `iou_chance`. Raises InputError for weights that are not finite.
    """
    orders = {step: magnitude_order(theta) for step, theta in weights.items()}
    rows = []
    for ratio in ratios if orders else ():
        p = len(next(iter(orders.values())))
        k = ratio_size(ratio, p)
        masks = {step: order[:k].sort().values for step, order in orders.items()}
        for first, second in combinations_with_replacement(sorted(masks), 2):
            similarity = mask_iou(masks[first], masks[second])
            rows.append(("", "mask", ratio, k, first, second, similarity, *iou_chance(p, k)))
    return pandas.DataFrame(rows, columns=list(STABILITY))


def iou_chance(p: int, k: int) -> Chance:
    """Intersection over union of two random masks of k of p coordinates, to first order in the overlap's deviation.

    For an overlap o, see `mask_pair_chance`, it is o / (2 - o), whose slope is 2 / (2 - o)^2.
    """
    overlap = mask_pair_chance(p, k)
    return Chance(overlap.mean / (2 - overlap.mean), 2 * overlap.sd / (2 - overlap.mean) ** 2)


def eigenspace_stability(
    split: str,
    bases: Mapping[int, Callable[[], Tensor]],
    ratios: Sequence[float],
    progress: ProgressCallback | None = None,
) -> pandas.DataFrame:
    """Overlap of the spaces of the k = ratio p leading eigenvectors of each two steps, first <= second.

    `bases` maps steps to functions that give orthonormal columns (p, K), leading first; two are held at a time. One
    product of both serves all ratios. Columns STABILITY: of is 'eigenspace', similarity NaN where there are fewer
    columns than k; chance and chance_sd are those of two random spaces.
    """
    pairs = list(combinations_with_replacement(sorted(bases), 2))
    rows, first_step, u, report = [], None, torch.empty(0), progress or no_progress
    for number, (first, second) in enumerate(pairs, start=1):
        if first != first_step:
            first_step, u = first, bases[first]()
        v = u if second == first else bases[second]()
        squares = (u.T @ v).double().square()
        for ratio in ratios:
            k = ratio_size(ratio, len(u))
            known = k <= min(squares.shape)  # else fewer eigenpairs converged
            similarity = float(squares[:k, :k].sum()) / k if known else math.nan
            rows.append((split, "eigenspace", ratio, k, first, second, similarity, *chance_overlap(len(u), k)))
        report(number, len(pairs))
    return pandas.DataFrame(rows, columns=list(STABILITY))
