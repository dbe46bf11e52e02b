"""Masks of large weights against a leading Hessian eigenspace: overlaps, what chance gives, layers, metrics."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas
from torch import Tensor

from hessketch.eigenspaces.masks import by_layer_masks, counts_in_layers, energies_in_layers, layer_numbers
from hessketch.eigenspaces.settings import ratio_size
from hessketch.linalg.chance_overlaps import Chance, mask_chance, stratified_chance
from hessketch.linalg.coordinate_subspaces import (
    largest_entries_mask,
    leverages_at,
    magnitude_order,
    mask_angles,
)
from hessketch.linalg.grassmannian import similarities

MASKS = ("magnitude", "magnitude_by_layer", "best")
# Sizes at which overlaps are taken, besides those of the ratios.
_SIZES = 60


@dataclass(frozen=True, eq=False)
class Weights:
    """A network's parameters as masks see them."""

    theta: Tensor  # (p,), in the order in which operators hold parameters
    layers: Mapping[str, int]  # parameter name to how many entries of theta, in that order
    live: Tensor  # (p,) bool: whether the row of the Hessian is not exactly zero

    @property
    def sizes(self) -> list[int]:
        return list(self.layers.values())

    @cached_property
    def strata(self) -> Tensor:
        """(p,) int64, the number of each entry's layer."""
        return layer_numbers(self.sizes).to(self.theta.device)


def mask_sizes(pairs: int, parameters: int, ratios: Sequence[float]) -> list[int]:
    """Up to 60 whole numbers, evenly spaced by their logarithm, from 1 to the pairs, and those of the ratios within.

    Below the number of parameters: a mask of all of them says nothing.
    """
    most = min(pairs, parameters - 1)
    spaced = np.geomspace(1, most, _SIZES).round().astype(int).tolist() if most > _SIZES else range(1, most + 1)
    return sorted({*spaced, *sizes_of(ratios, parameters, most)})


def sizes_of(ratios: Sequence[float], parameters: int, most: int) -> list[int]:
    """The sizes of the ratios of so many parameters, ascending, up to `most`."""
    return sorted({size for ratio in ratios if (size := ratio_size(ratio, parameters)) <= most})


def mask_tables(vectors: Tensor, weights: Weights, ratios: Sequence[float]) -> dict[str, pandas.DataFrame]:
    """How the masks of k parameters lie to the space of the first k of the orthonormal columns `vectors` (p, K).

    - overlaps, at `mask_sizes`: mask (MASKS), k, overlap; then mean and standard deviation of the overlap of random
      masks of k with that same space: of any parameters (chance, chance_sd), of as many in each layer as that very mask
      has (chance_by_layer, chance_by_layer_sd), and of live parameters alone (chance_live, chance_live_sd; NaN where
      fewer than k are live); live, how many are
    - layers, at the sizes of the ratios and the largest of all: k, layer, parameters, in_mask (of the magnitude mask),
      energy (the sum of squared rows of the k columns over the layer; k in all)
    - metrics, at the sizes of the ratios: mask, k, metric, similarity (see `linalg.grassmannian`)

    Raises InputError for columns that are not orthonormal and weights that are not finite.
    """
    p, pairs = vectors.shape
    sizes = mask_sizes(pairs, p, ratios)
    of_ratios = sizes_of(ratios, p, sizes[-1])
    order = magnitude_order(weights.theta)
    by_layer = by_layer_masks(weights.theta, weights.sizes, sizes)
    rows: dict[str, list[dict]] = {"overlaps": [], "layers": [], "metrics": []}
    for (k, squares), layered in zip(leverages_at(vectors, sizes), by_layer, strict=True):
        leverages = squares.clamp(max=1)  # which a float32 basis may exceed by its rounding
        masks = {
            "magnitude": order[:k].sort().values,
            "magnitude_by_layer": layered,
            "best": largest_entries_mask(leverages, k),
        }
        chance, live = _chance(leverages, weights, k), int(weights.live.sum())
        for name, mask in masks.items():
            counts = counts_in_layers(mask, weights.sizes)
            own = {**chance, "chance_by_layer": stratified_chance(leverages, weights.strata, counts)}
            overlap = float(leverages[mask].sum()) / k
            rows["overlaps"].append({"mask": name, "k": k, "overlap": overlap, **_chance_columns(own), "live": live})
        if k in of_ratios or k == sizes[-1]:
            rows["layers"] += _layers(leverages, weights, masks["magnitude"])
        if k in of_ratios:
            for name, mask in masks.items():
                found = similarities(mask_angles(vectors[:, :k], mask))
                rows["metrics"] += [{"mask": name, "k": k, "metric": m, "similarity": s} for m, s in found.items()]
    return {name: pandas.DataFrame(table) for name, table in rows.items()}


def _chance(leverages: Tensor, weights: Weights, k: int) -> dict[str, Chance]:
    """The levels that are the same for every mask of k."""
    live = leverages[weights.live]
    among_live = mask_chance(live, k) if k <= len(live) else Chance(math.nan, math.nan)
    return {"chance": mask_chance(leverages, k), "chance_live": among_live}


def _chance_columns(levels: Mapping[str, Chance]) -> dict[str, float]:
    columns: dict[str, float] = {}
    for name in ("chance", "chance_by_layer", "chance_live"):
        columns |= {name: levels[name].mean, f"{name}_sd": levels[name].sd}
    return columns


def _layers(leverages: Tensor, weights: Weights, mask: Tensor) -> list[dict]:
    """One row a layer."""
    counts = counts_in_layers(mask, weights.sizes).tolist()
    energies = energies_in_layers(leverages, weights.sizes).tolist()
    return [
        {"k": len(mask), "layer": name, "parameters": size, "in_mask": count, "energy": energy}
        for (name, size), count, energy in zip(weights.layers.items(), counts, energies, strict=True)
    ]
