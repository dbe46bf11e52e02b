"""A data set as tensors of one shape: images of 32x32 or reduced ones, kept as bytes, or vectors as they are."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, pad

from hessketch.data.catalog import CLUSTER_EXAMPLES_PER_CLASS, Dataset, describe, parse_clusters
from hessketch.data.clusters import gaussian_clusters
from hessketch.data.dataset import SIDE
from hessketch.data.derived_names import LUMINANCE
from hessketch.data.sources import read_raw
from hessketch.errors import InputError
from hessketch.extensions import registered
from hessketch.records import read_tensors

_AT_ONCE = 1000  # images reduced in float64 at a time: 25 MB of CIFAR
_CLUSTER_SEED = 0  # of the clusters themselves: a name is one fixed data set, whatever a run's seed


@dataclass(frozen=True)
class PreparedData:
    """Both splits of a data set: images uint8 (n, c, side, side) or vectors float32 (n, d); labels int64 (n,).

    `dataset` is its name, where known: read from a file that says it, the data serve runs of that data set alone.
    """

    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    dataset: str | None = None

    def to_tensors(self) -> dict[str, Tensor]:
        return {name: getattr(self, name) for name in _TENSORS}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], dataset: str | None = None) -> "PreparedData":
        """Raises InputError if a tensor is missing."""
        missing = [name for name in _TENSORS if name not in tensors]
        if missing:
            raise InputError(f"{', '.join(missing)} missing from prepared data; needed: {', '.join(_TENSORS)}")
        return cls(**{name: tensors[name] for name in _TENSORS}, dataset=dataset)

    def split(self, split: str) -> tuple[Tensor, Tensor]:
        """Images and labels of `train` or `test`; raises InputError for another word."""
        if split not in ("train", "test"):
            raise InputError(f"unknown split {split!r}; allowed: train, test")
        tensors = self.to_tensors()
        return tensors[f"{split}_images"], tensors[f"{split}_labels"]


_TENSORS = tuple(field.name for field in fields(PreparedData) if field.name != "dataset")


def to_side_32(images: Tensor) -> Tensor:
    """Images (n, c, 32, 32) from square ones of at most 32 pixels a side, before any normalisation.

    A side that divides 32 is enlarged by repeating pixels: scikit-learn's 8x8 digits would otherwise be a stamp in
    an empty frame (94 % border), on which a convolutional network mostly sees zeros. Others are padded with zeros
    alike on each side, as Papyan (2018) does: 28 + 2 * 2 = 32.
    """
    side = images.shape[-1]
    if SIDE % side == 0:
        factor = SIDE // side
        return images.repeat_interleave(factor, dim=-2).repeat_interleave(factor, dim=-1)
    before = (SIDE - side) // 2
    return pad(images, (before, SIDE - side - before) * 2)


def select_classes(images: Tensor, labels: Tensor, kept: Sequence[int]) -> tuple[Tensor, Tensor]:
    """The examples of the kept classes, in their old order, with labels 0, 1, ... in the order of `kept`."""
    matches = labels[:, None] == torch.tensor(kept)
    chosen = matches.any(1)
    return images[chosen], matches[chosen].long().argmax(1)


def reduce_images(images: Tensor, side: int, grey: bool = False) -> Tensor:
    """uint8 images (n, c, side, side), each pixel the mean over its area of the given ones, rounded to bytes.

    An area is one of adaptive average pooling: output row i covers the rows from floor(i S / side) to
    ceil((i + 1) S / side) of S, so areas overlap where `side` does not divide S. `grey` takes the luminance
    0.299 red + 0.587 green + 0.114 blue first, unrounded, and c is 1. Halves are rounded to the even byte.
    """
    weights = torch.tensor(LUMINANCE, dtype=torch.float64).mul(1000).round().view(1, -1, 1, 1)
    parts = []
    for part in images.split(_AT_ONCE):
        pixels = part.double()
        # In thousandths the sums are whole numbers, so that a half is a half, whatever the order of summation.
        pixels = (pixels * weights).sum(1, keepdim=True) if grey else pixels * 1000
        parts.append(adaptive_avg_pool2d(pixels, side).div_(1000).round_().to(torch.uint8))
    return torch.cat(parts)


def prepare(raw: Mapping[str, tuple[Tensor, Tensor]], dataset: Dataset) -> PreparedData:
    """What `read_raw` gave, brought to 32x32; of a derived data set its classes, at the side that its name asks for.

    Vectors stay as they are.
    """
    side = dataset.reduced_side
    tensors: dict[str, Tensor] = {}
    for split in ("train", "test"):
        images, labels = raw[split]
        if dataset.kept_classes:
            images, labels = select_classes(images, labels, dataset.kept_classes)
        if dataset.channels:
            images = reduce_images(images, side, dataset.grey) if side else to_side_32(images)
        tensors |= {f"{split}_images": images, f"{split}_labels": labels}
    return PreparedData.from_tensors(tensors)


def prepare_dataset(name: str, folder: str | Path, download: bool = False) -> PreparedData:
    """A data set by name, read from `folder` (see `read_raw`) or, for Gaussian clusters, generated.

    Raises InputError for an unknown name and for files that are missing or damaged.
    """
    dataset = describe(name)
    if dataset.channels or name in registered("dataset"):
        return prepare(read_raw(name, folder, download), dataset)
    size = (*parse_clusters(name), CLUSTER_EXAMPLES_PER_CLASS, _CLUSTER_SEED)
    return PreparedData(*gaussian_clusters(*size, "train"), *gaussian_clusters(*size, "test"))


def read_prepared(path: str | Path) -> PreparedData:
    """Prepared data, with their name, from the file that the pipeline keeps them in.

    Raises InputError for a missing or damaged file.
    """
    tensors, metadata = read_tensors(path)
    try:
        return PreparedData.from_tensors(tensors, metadata.get("dataset"))
    except InputError as error:
        raise InputError(f"{path}: {error}; delete it and run the same command again: it will be made anew") from None


def normalise(images: Tensor, dataset: Dataset) -> Tensor:
    """float32 images (n, c, h, w): (pixel / 255 - mean) / std by channel. Vectors come back as they are."""
    if not dataset.channels:
        return images.float()
    mean = torch.tensor(dataset.mean).view(-1, 1, 1)
    std = torch.tensor(dataset.std).view(-1, 1, 1)
    return images.to(torch.float32, copy=True).div_(255).sub_(mean).div_(std)
