"""Class-balanced subsets, nested over their sizes, and label noise that nests with them.

Both rest on one fixed order of each class, drawn from (seed, class) alone: a subset of m examples a class is the
first m of that order. A larger subset of the same seed therefore contains every smaller one, wrong labels included.
"""

from fractions import Fraction

import torch
from torch import Tensor

from hessketch.errors import InputError
from hessketch.seeds import derive_seed


def _generator(seed: int, label: int, purpose: str) -> torch.Generator:
    return torch.Generator().manual_seed(derive_seed(seed, f"class {label}", purpose))


def _class_order(labels: Tensor, label: int, seed: int) -> Tensor:
    """Indices (n_class,) int64 of one class's examples in its fixed random order."""
    members = (labels == label).nonzero().squeeze(1)
    return members[torch.randperm(len(members), generator=_generator(seed, label, "subset"))]


def balanced_subset(labels: Tensor, per_class: int | None, seed: int) -> Tensor:
    """Indices (m,) int64, ascending, of `per_class` examples of each class, drawn without replacement.

    `labels` is (n,) int64 on the CPU. None takes every example. For one seed the subsets are nested over sizes.
    Raises InputError if `per_class` is below 1 or a class has fewer examples.
    """
    if per_class is None:
        return torch.arange(len(labels))
    if per_class < 1:
        raise InputError(f"{per_class} examples per class asked for; allowed: at least 1; choose a larger number")
    classes, counts = labels.unique(return_counts=True)
    if counts.min() < per_class:
        smallest = counts.argmin()
        raise InputError(
            f"{per_class} examples per class asked for, class {classes[smallest]} has {counts[smallest]}; "
            f"allowed: at most {counts[smallest]}; choose a smaller number"
        )
    parts = [_class_order(labels, label, seed)[:per_class] for label in classes.tolist()]
    return torch.cat(parts).sort().values


def noisy_labels(labels: Tensor, noise: float, classes: int, seed: int) -> Tensor:
    """Labels (n,) int64 of which the fraction `noise` of every class is wrong, uniform over the other classes.

    In a class's fixed order (that of `balanced_subset` with the same seed) the example at position j = 0, 1, ... is
    mislabelled where floor((j+1) noise) > floor(j noise). So `noisy_labels(...)[balanced_subset(...)]` has exactly
    floor(m noise) wrong labels in each class for every size m, and subsets stay nested with their noise.
    Raises InputError unless 0 <= noise < 1, and for noise with fewer than 2 classes.
    """
    if not 0 <= noise < 1 or (noise > 0 and classes < 2):
        raise InputError(
            f"label noise {noise} with {classes} classes; allowed: 0 <= noise < 1, and 0 alone for a single class"
        )
    fraction = Fraction(str(noise))  # as written: 10 * 0.3 in floats is no reason to round down to 2
    noisy = labels.clone()
    for label in labels.unique().tolist():
        order = _class_order(labels, label, seed)
        steps = [j * fraction.numerator // fraction.denominator for j in range(len(order) + 1)]
        wrong = torch.tensor(steps).diff() > 0
        shift = torch.randint(1, max(classes, 2), (len(order),), generator=_generator(seed, label, "label noise"))
        noisy[order[wrong]] = (label + shift[wrong]) % classes
    return noisy
