r"""How Grassmannian similarities behave on random pairs of subspaces and masks, without any network.

The synthetic study of Fernandez, Schneider, Mahsereci and Hennig 2025 (arXiv 2504.14701): pairs of k-spaces of R^D,
each uniformly random (Haar) or spanned by k random axes, at ratios k / D. A random space lies to a mask as to any other
space, so the first two kinds of pair have one distribution; they are drawn independently here, one checks the other.

At D = 1024, ratios .05 to .95 and 50 pairs: chordal_max, projection_max and fubini_study are saturated, with medians
below .002 at every ratio (one nearly right angle among k decides). Geodesic, chordal and projection are compressed:
.31, .28 and .16 at ratio .3, and between two masks all three are 1 - sqrt(1 - overlap). The overlap has its median on
k / D; from its 5 % to its 95 % quantile random spaces span 7 % of that at ratio .05 and 1 % at .3 (at D = 128 some 80 %
and 8 %: at one ratio the width falls as 1 / D, see `chance_overlap`).
"""

from collections.abc import Sequence

import numpy as np
import pandas
import torch
from torch import Tensor

from hessketch.errors import InputError
from hessketch.linalg.coordinate_subspaces import mask_angles
from hessketch.linalg.grassmannian import METRICS, similarities
from hessketch.linalg.subspaces import principal_angles
from hessketch.linalg.vectors import ProgressCallback, no_progress, require_at_least
from hessketch.seeds import derive_seed

PAIRS = ("subspaces", "subspace and mask", "masks")
DIMENSIONS = (128, 256, 512, 1024)
RATIOS = (1.0, 0.99, 0.95, 0.9, 0.6, 0.3, 0.1, 0.05, 0.01, 0.005)
SAMPLES = 50
QUANTILES = {"q05": 0.05, "q25": 0.25, "q50": 0.5, "q75": 0.75, "q95": 0.95}


def metric_study(
    dimensions: Sequence[int] = DIMENSIONS,
    ratios: Sequence[float] = RATIOS,
    samples: int = SAMPLES,
    seed: int = 0,
    progress: ProgressCallback | None = None,
) -> pandas.DataFrame:
    """Quantiles of every similarity over random pairs: one row a kind of pair, dimension, ratio and metric.

    k is ratio * dimension in whole numbers, at least 1. Columns: pair (one of PAIRS), dimension, ratio, k, metric,
    samples, q05, q25, q50, q75, q95 (of the similarity, in [0, 1]), expected (k / dimension, the mean overlap of random
    pairs; NaN for the other metrics). A row depends on its own dimension and ratio, `samples` and `seed` only. Raises
    InputError for no or repeated dimensions or ratios, dimensions below 2, ratios outside (0, 1] and samples below 1.
    """
    _require_allowed(dimensions, ratios, samples)
    report = progress or no_progress
    rows: list[dict] = []
    cells = [(pair, dimension, ratio) for dimension in dimensions for ratio in ratios for pair in PAIRS]
    for done, (pair, dimension, ratio) in enumerate(cells):
        report(done, len(cells))
        k = max(1, round(ratio * dimension))
        generator = torch.Generator().manual_seed(
            derive_seed(seed, f"{pair}/{dimension}/{float(ratio)!r}", "metric study")
        )
        found = [similarities(random_angles(pair, dimension, k, generator)) for _ in range(samples)]
        for metric in METRICS:
            values = np.quantile([one[metric] for one in found], list(QUANTILES.values()))
            rows.append(
                {
                    "pair": pair,
                    "dimension": dimension,
                    "ratio": float(ratio),
                    "k": k,
                    "metric": metric,
                    "samples": samples,
                    **dict(zip(QUANTILES, values.tolist(), strict=True)),
                    "expected": k / dimension if metric == "overlap" else float("nan"),
                }
            )
    report(len(cells), len(cells))
    return pandas.DataFrame(rows)


def random_angles(pair: str, dimension: int, k: int, generator: torch.Generator) -> Tensor:
    """Principal angles (k,), ascending, of one random pair of k-spaces of R^dimension; `pair` is one of PAIRS.

    Two spaces of more than half the dimensions share 2 k - dimension, at angle 0; their other angles are those of their
    orthogonal complements, as random as they and smaller: these are drawn.
    """
    drawn = min(k, dimension - k)
    shared = torch.zeros(k - drawn, dtype=torch.float64)
    return torch.cat([shared, _angles(pair, dimension, drawn, generator)]) if drawn else shared


def _angles(pair: str, dimension: int, k: int, generator: torch.Generator) -> Tensor:
    if pair == "subspaces":
        return principal_angles(*(_random_basis(dimension, k, generator) for _ in range(2)))
    first, second = (torch.randperm(dimension, generator=generator)[:k].sort().values for _ in range(2))
    if pair == "subspace and mask":
        return mask_angles(_random_basis(dimension, k, generator), first)
    shared = int(torch.isin(first, second).sum())
    return torch.tensor([0.0] * shared + [torch.pi / 2] * (k - shared), dtype=torch.float64)


def _random_basis(dimension: int, k: int, generator: torch.Generator) -> Tensor:
    """Of a uniformly random space: the span of Gaussian columns, whose distribution no rotation changes."""
    return torch.linalg.qr(torch.randn(dimension, k, generator=generator, dtype=torch.float64)).Q


def _require_allowed(dimensions: Sequence[int], ratios: Sequence[float], samples: int) -> None:
    require_at_least(1, samples=samples)
    for dimension in dimensions:
        require_at_least(2, dimension=dimension)
    for ratio in ratios:
        if not 0 < ratio <= 1:
            raise InputError(f"ratio {ratio!r} is given; allowed: numbers above 0, up to 1")
    for name, values in {"dimensions": dimensions, "ratios": ratios}.items():
        if not len(values) or len(set(values)) < len(values):
            raise InputError(f"{name} are {list(values)}; allowed: one or more, each once")
