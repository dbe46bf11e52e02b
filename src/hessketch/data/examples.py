"""Examples ready for a network: normalised inputs and targets, whole on one device."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from hessketch.data.catalog import describe
from hessketch.data.prepared import PreparedData, normalise
from hessketch.data.subsets import balanced_subset, noisy_labels
from hessketch.errors import InputError


@dataclass(frozen=True)
class Examples:
    """Inputs and targets of n examples. The data sets here fit into memory, so there are no loader processes."""

    inputs: Tensor  # (n, ...) float32
    targets: Tensor  # (n,) int64, in 0 ... classes - 1
    classes: int

    def __len__(self) -> int:
        return len(self.targets)

    def to(self, device: torch.device | str) -> "Examples":
        return replace(self, inputs=self.inputs.to(device), targets=self.targets.to(device))

    def batches(self, size: int) -> list[tuple[Tensor, Tensor]]:
        """Consecutive (inputs, targets) of at most `size` examples: views, nothing is copied."""
        return list(zip(self.inputs.split(size), self.targets.split(size), strict=True))


def load_examples(
    prepared: PreparedData, dataset: str, split: str, per_class: int | None, noise: float, seed: int
) -> Examples:
    """A normalised, class-balanced subset of one split, with the fraction `noise` of its labels wrong.

    `per_class` None takes every example of the split. Subsets of one seed are nested over sizes, their wrong labels
    included (see `subsets`). Raises InputError for an unknown split, too many examples, an impossible noise, or
    prepared data that are known to be of another data set.
    """
    if prepared.dataset not in (None, dataset):
        raise InputError(
            f"the prepared data given hold {prepared.dataset}, the run asks for {dataset}; give those of {dataset}: "
            f"resources/{dataset}.safetensors, which the pipeline or prepare_data.py makes"
        )
    description = describe(dataset)
    images, labels = prepared.split(split)
    indices = balanced_subset(labels, per_class, seed)
    targets = noisy_labels(labels, noise, description.classes, seed)[indices]
    return Examples(normalise(images[indices], description), targets, description.classes)
