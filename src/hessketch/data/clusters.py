"""Synthetic data: isotropic Gaussian clusters, one a class."""

import torch
from torch import Tensor

from hessketch.seeds import derive_seed


def cluster_centres(classes: int, dimensions: int, separation: float, seed: int) -> Tensor:
    """Centres (classes, dimensions), float64, whose root-mean-square distance from each other is `separation`.

    Random directions, made orthogonal where the dimensions suffice (dimensions >= classes): then every centre has
    norm separation / sqrt(2) and every two of them lie exactly `separation` apart.
    """
    generator = torch.Generator().manual_seed(derive_seed(seed, "clusters", "centres"))
    centres = torch.randn(classes, dimensions, generator=generator, dtype=torch.float64)
    if dimensions >= classes:
        centres = torch.linalg.qr(centres.T).Q.T.contiguous()
    mean_square = (centres - centres.mean(0)).square().sum() * 2 / (classes - 1)  # over all pairs, without listing them
    return centres * (separation / mean_square.sqrt())


def gaussian_clusters(
    classes: int, dimensions: int, separation: float, per_class: int, seed: int, split: str
) -> tuple[Tensor, Tensor]:
    """Inputs (classes * per_class, dimensions) float32 and targets int64, ordered by class.

    Each cluster is isotropic with unit variance around its centre, so `separation` counts standard deviations.
    The splits `train` and `test` of one seed share the centres and differ in their noise.
    """
    centres = cluster_centres(classes, dimensions, separation, seed)
    targets = torch.arange(classes).repeat_interleave(per_class)
    generator = torch.Generator().manual_seed(derive_seed(seed, "clusters", f"{split} noise"))
    noise = torch.randn(len(targets), dimensions, generator=generator)
    return noise.add_(centres.float()[targets]), targets
