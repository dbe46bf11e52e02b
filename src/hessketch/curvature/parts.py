"""Batches as data loaders give them, and the parts that they are halved to."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_leaves

from hessketch.curvature.batch import Product
from hessketch.curvature.halving import BatchLimit
from hessketch.errors import InputError


def count_examples(inputs: Any, targets: Any) -> int:
    """Length of the first axis of the first tensor in the targets, which may be nested, or else in the inputs."""
    return next((len(t) for t in [*tree_leaves(targets), *tree_leaves(inputs)] if isinstance(t, Tensor) and t.ndim), 0)


def pairs(batches: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
    """The batches that hold examples; raises InputError for one that is no pair of inputs and targets."""
    for batch in batches:
        if not isinstance(batch, tuple | list) or len(batch) != 2:
            raise InputError(
                f"a batch is {type(batch).__name__}{f' of {len(batch)}' if hasattr(batch, '__len__') else ''}; give "
                "an iterable of pairs (inputs, targets), such as [(inputs, targets)]"
            )
        if count_examples(*batch):
            yield tuple(batch)


@dataclass(eq=False)
class Part:
    """A batch, or what it was halved to."""

    inputs: Any
    targets: Any
    product: Product | None = None  # while it is kept between vectors

    @property
    def examples(self) -> int:
        return count_examples(self.inputs, self.targets)

    def fitting(self, limit: BatchLimit) -> list["Part"]:
        """Itself, or parts of at most as many examples as the limit allows."""
        if limit.of(self.examples) == self.examples:
            return [self]
        self._require_divisible(limit, None)
        pieces = zip(self.inputs.split(limit.most), self.targets.split(limit.most), strict=True)
        return [Part(*piece) for piece in pieces]

    def halve(self, limit: BatchLimit, failure: BaseException) -> None:
        """Halves the limit after a failure with this part; raises InputError where it cannot be divided."""
        self._require_divisible(limit, failure)
        limit.halve(self.examples, failure)

    def _require_divisible(self, limit: BatchLimit, failure: BaseException | None) -> None:
        if not isinstance(self.inputs, Tensor) or not isinstance(self.targets, Tensor):
            whole = "inputs or targets that are no tensors are not cut"
            limit.refuse(self.examples, failure, whole, "give smaller batches")
