"""Averages over all examples of a batch's product: what is kept between products, what is rebuilt, who shares it."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.func import functional_call
from torch.utils._pytree import tree_leaves, tree_map

from hessketch.curvature.batch import Batch, Pieces, loss_gradient, require_finite
from hessketch.curvature.losses import Loss, summed_loss
from hessketch.curvature.memory import is_out_of_memory
from hessketch.curvature.precision import arithmetic
from hessketch.curvature.products import Builders
from hessketch.errors import InputError
from hessketch.linalg.memory import free_memory

# Of the memory that is free, so much may hold graphs of batches: the rest is for the products and the algorithm.
GRAPHS_SHARE = 0.5

BatchProduct = Callable[..., list[Tensor]]


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


def require_frozen(model: nn.Module) -> None:
    """Raises InputError unless every layer is in eval mode and treats each example on its own."""
    if isinstance(model, nn.DataParallel):
        raise InputError("give the network inside DataParallel, model.module; processes share examples by group=...")
    for name, module in model.named_modules():
        if module.training and (not name or list(module.children()) == []):
            raise InputError("curvature is taken with batch norm frozen and dropout off: call model.eval() first")
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is None:
            raise InputError(
                f"{name}: batch norm without running statistics mixes the examples of a batch, whatever the mode; "
                "keep its statistics (track_running_stats=True) or take group norm"
            )


class ExampleAverage:
    """(1/n) sum over batches of a product of each, for vectors given as columns.

    The graphs of the first batches are kept while they fit into `memory` bytes, later ones are rebuilt for every
    block of vectors; the sum is the same either way. A loader whose order may change is kept wholly or not at all.
    A batch too large for the device is halved until it fits.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Loss,
        batches: Iterable[tuple[Any, Any]],
        parameters: dict[str, Tensor],
        build: Builders,
        *,
        memory: int | None,
        tf32: bool,
        deterministic: bool,
        group: distributed.ProcessGroup | None,
    ):
        self._model, self._loss, self._build, self._group = model, loss, build, group
        self._names = list(parameters)
        originals = list(parameters.values())
        with torch.inference_mode(False):
            self.parameters = [p.detach().requires_grad_() for p in originals]
        self._fixed = [*originals, *model.buffers()]
        self._versions = [(t, t._version) for t in self._fixed]
        self.device, self.dtype = originals[0].device, originals[0].dtype
        self._tf32, self._deterministic = tf32, deterministic
        self._sizes = [p.numel() for p in originals]
        self._summed: Callable[[Tensor, Any], Tensor] | None = None
        self._batches = list(batches) if isinstance(batches, Iterator) else batches
        self.limit: int | None = None  # examples that fit at once, once one batch did not
        self._kept: list[BatchProduct] = []
        self._kept_batches = 0
        with arithmetic(tf32, deterministic):
            self.local_examples = self._keep(free_memory(self.device) * GRAPHS_SHARE if memory is None else memory)
        count = torch.tensor([self.local_examples], device=self.device)
        self.examples = int(self._over_processes(count))
        if self.examples == 0:
            raise InputError("no examples given: an average over nothing is undefined")

    @property
    def _in_order(self) -> bool:
        return isinstance(self._batches, Sequence)

    @property
    def batches_kept(self) -> int:
        """Batches (after halving) whose graphs stay in memory."""
        return len(self._kept)

    def _keep(self, memory: float) -> int:
        """Builds and keeps the products of batches while they fit; returns the number of examples of all."""
        examples, used, full = 0, 0, memory <= 0
        probe = [torch.zeros_like(p) for p in self.parameters]
        for inputs, targets in pairs(self._batches):
            examples += count_examples(inputs, targets)
            if full:
                continue
            products = []
            for product, _ in self._products(inputs, targets, lambda product: product(probe), self._build.kept):
                products.append(product)
                used += product.kept_bytes()
                full = used > memory
                if full:
                    break
            if not full:
                self._kept += products
                self._kept_batches += 1
        if full and not self._in_order:
            self._kept, self._kept_batches = [], 0
        return examples

    def _find_reduction(self, inputs: Any, targets: Any) -> None:
        """Whether the loss is a mean, a sum or one value an example: asked once, of the first batch."""
        if self._summed is None:
            with torch.no_grad():
                outputs = require_finite(self._network(self._moved(inputs))(self.parameters))
            self._summed = summed_loss(self._loss, outputs, self._moved(targets))

    def _moved(self, data: Any) -> Any:
        def move(leaf: Any) -> Any:
            if not isinstance(leaf, Tensor):
                return leaf
            # What inference mode made cannot be saved for a derivative; a copy can.
            return leaf.to(self.device, non_blocking=True, copy=leaf.is_inference())

        return tree_map(move, data)

    def _network(self, inputs: Any) -> Callable[[Pieces], Tensor]:
        return lambda pieces: functional_call(self._model, dict(zip(self._names, pieces, strict=True)), (inputs,))

    def _products(
        self, inputs: Any, targets: Any, first: Callable[[BatchProduct], Any], build: Callable[[Batch], BatchProduct]
    ) -> Iterator[tuple[BatchProduct, Any]]:
        """A batch's product with the result of `first` of it, or those of its parts if it does not fit at once."""
        parts = self._parts(inputs, targets)
        if len(parts) > 1:
            for part in parts:
                yield from self._products(*part, first, build)
            return
        try:
            self._find_reduction(inputs, targets)
            product = build(self._batch(inputs, targets))
            result = first(product)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            self._halve(inputs, targets, error)
        else:
            yield product, result
            return
        yield from self._products(inputs, targets, first, build)

    def _parts(self, inputs: Any, targets: Any) -> list[tuple[Any, Any]]:
        if self.limit is None or count_examples(inputs, targets) <= self.limit:
            return [(inputs, targets)]
        if not isinstance(inputs, Tensor) or not isinstance(targets, Tensor):
            raise InputError(f"only {self.limit} examples fit into memory at once; give batches of at most so many")
        return list(zip(inputs.split(self.limit), targets.split(self.limit), strict=True))

    def _halve(self, inputs: Any, targets: Any, error: RuntimeError) -> None:
        examples = count_examples(inputs, targets)
        if examples == 1 or not isinstance(inputs, Tensor) or not isinstance(targets, Tensor):
            raise InputError(
                f"a batch of {examples} does not fit into the memory of {self.device}: give smaller batches, a "
                "narrower network or a larger device"
            ) from error
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        self.limit = (examples + 1) // 2

    def _batch(self, inputs: Any, targets: Any) -> Batch:
        summed, inputs, targets = self._summed, self._moved(inputs), self._moved(targets)
        return Batch(self._network(inputs), self.parameters, lambda outputs: summed(outputs, targets), self._fixed)

    def _pieces(self, vector: Tensor) -> list[Tensor]:
        pieces = vector.split(self._sizes)
        return [piece.view_as(p) for piece, p in zip(pieces, self.parameters, strict=True)]

    def columns(self, block: Tensor, outputs: int = 1, blocks: Sequence[Sequence[int]] | None = None) -> Tensor:
        """The average for every column of `block` (p, k), shape (outputs, p, k); one all-reduce over the processes.

        `outputs` is the number of vectors that a product gives. With `blocks` of parameter numbers, only the
        diagonal blocks of these parameters count.
        """
        self._require_unchanged()
        if block.shape[1] == 0:
            return block.new_zeros(outputs, *block.shape)
        with torch.inference_mode(False):  # whose tensors cannot be differentiated
            columns = block.T.clone() if block.is_inference() else block.T.contiguous()
            vectors = [self._pieces(column) for column in columns]
            total = torch.zeros(block.shape[1], outputs * block.shape[0], dtype=self.dtype, device=self.device)

        def multiply(product: BatchProduct, vector: Pieces) -> Tensor:
            return self._flat(product(vector) if blocks is None else _by_blocks(product, vector, blocks))

        with arithmetic(self._tf32, self._deterministic):
            for product, first in self._all_products(lambda product: multiply(product, vectors[0])):
                total[0] += first
                for row, vector in zip(total[1:], vectors[1:], strict=True):
                    row += multiply(product, vector)
        total = self._over_processes(total) / self.examples
        return total.view(block.shape[1], outputs, block.shape[0]).permute(1, 2, 0)

    @staticmethod
    def _flat(pieces: Pieces) -> Tensor:
        return torch.cat([piece.reshape(-1) for piece in pieces])

    def _all_products(self, first: Callable[[BatchProduct], Any]) -> Iterator[tuple[BatchProduct, Any]]:
        for product in self._kept:
            yield product, first(product)
        if self._kept and not self._in_order:
            return
        examples = 0
        batches = pairs(self._batches)
        for inputs, targets in islice(batches, self._kept_batches, None) if self._in_order else batches:
            examples += count_examples(inputs, targets)
            yield from self._products(inputs, targets, first, self._build.dropped)
        if not self._in_order and examples != self.local_examples:
            raise InputError(
                f"the batches held {self.local_examples} examples at first and {examples} now; give data that are the "
                "same at every pass"
            )

    def _require_unchanged(self) -> None:
        require_frozen(self._model)
        if any(t._version != version for t, version in self._versions):
            raise InputError(
                "the network's weights or buffers have changed since this operator was made; make a new one"
            )

    def _over_processes(self, total: Tensor) -> Tensor:
        if self._group is not None:
            distributed.all_reduce(total, group=self._group)
        return total

    def mean_gradient(self) -> Tensor:
        """Gradient of the mean loss, shape (p,)."""
        with arithmetic(self._tf32, self._deterministic):
            total = torch.zeros(sum(self._sizes), dtype=self.dtype, device=self.device)
            for inputs, targets in pairs(self._batches):
                for _, gradient in self._products(inputs, targets, self._flat, loss_gradient):
                    total += gradient
        return self._over_processes(total) / self.examples


def _by_blocks(product: BatchProduct, vector: Pieces, blocks: Sequence[Sequence[int]]) -> list[Tensor]:
    """The product with each diagonal block of parameters, zero for parameters in none."""
    result = [torch.zeros_like(piece) for piece in vector]
    for chosen in blocks:
        for i, part in zip(chosen, product([vector[i] for i in chosen], chosen), strict=True):
            result[i] = part
    return result
