"""Averages over all examples of a batch's product: what is kept between products, what is rebuilt, who shares it."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.func import functional_call
from torch.utils._pytree import tree_map

from hessketch.curvature.batch import Batch, Pieces, loss_gradient, require_finite
from hessketch.curvature.halving import KEEP_LESS, BatchLimit, out_of_memory, release_memory
from hessketch.curvature.losses import Loss, summed_loss
from hessketch.curvature.parts import Part, count_examples, pairs
from hessketch.curvature.precision import arithmetic
from hessketch.curvature.products import Builders
from hessketch.errors import InputError
from hessketch.linalg.memory import free_memory
from hessketch.progress import note

# Of the memory that is free, so much may hold graphs of batches: the rest is for the products and the algorithm.
GRAPHS_SHARE = 0.5

BatchProduct = Callable[..., list[Tensor]]
Result = TypeVar("Result")


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
    Where the device runs out of memory, half of what is kept is let go, then the other half and so on, and then the
    batch is halved until it fits; what was added up by then stays.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Loss,
        batches: Iterable[tuple[Any, Any]],
        parameters: Mapping[str, Tensor],
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
        self._limit = BatchLimit()
        self._kept: list[list[Part]] = []  # of the first batches, one after the other
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
        return sum(map(len, self._kept))

    @property
    def largest_batch(self) -> int | None:
        """Examples computed at once after a batch did not fit into memory and was halved; None if all fitted."""
        return self._limit.most

    def _keep(self, memory: float) -> int:
        """Builds and keeps the products of batches while they fit; returns the number of examples of all."""
        examples, used, full = 0, 0, memory <= 0
        for inputs, targets in pairs(self._batches):
            examples += count_examples(inputs, targets)
            if full:
                continue
            parts = self._kept_parts(Part(inputs, targets), memory - used)
            if parts is None:
                full = True
            else:
                used += sum(part.product.kept_bytes() for part in parts if part.product is not None)
                self._kept.append(parts)
        if full and not self._in_order:
            self._kept = []
        return examples

    def _kept_parts(self, batch: Part, memory: float) -> list[Part] | None:
        """The batch, or what it was halved to, with products; None if they exceed `memory` or the device."""
        parts, probe = batch.fitting(self._limit), [torch.zeros_like(p) for p in self.parameters]
        for place, part in enumerate(parts):
            try:
                product = self._product(part, self._build.kept)
                product(probe)
            except (RuntimeError, MemoryError) as error:
                product, failure = None, out_of_memory(error)
            if product is not None:
                part.product = product
                memory -= product.kept_bytes()
                if memory < 0:
                    return None
                continue
            if self._kept or place:  # room was overestimated: what is kept is in the way
                parts.clear()
                self._keep_less()
                return None
            part.halve(self._limit, failure)
            return self._kept_parts(batch, memory)
        return parts

    def _summed_loss(self, inputs: Any, targets: Any) -> Callable[[Tensor, Any], Tensor]:
        """The loss as a sum: whether it is a mean, a sum or one value an example is asked once, of the first batch."""
        if self._summed is None:
            with torch.no_grad():
                outputs = require_finite(self._network(self._moved(inputs))(self.parameters))
            self._summed = summed_loss(self._loss, outputs, self._moved(targets))
        return self._summed

    def _moved(self, data: Any) -> Any:
        def move(leaf: Any) -> Any:
            if not isinstance(leaf, Tensor):
                return leaf
            # What inference mode made cannot be saved for a derivative; a copy can.
            return leaf.to(self.device, non_blocking=True, copy=leaf.is_inference())

        return tree_map(move, data)

    def _network(self, inputs: Any) -> Callable[[Pieces], Tensor]:
        return lambda pieces: functional_call(self._model, dict(zip(self._names, pieces, strict=True)), (inputs,))

    def _product(self, part: Part, build: Callable[[Batch], Result]) -> Result:
        summed = self._summed_loss(part.inputs, part.targets)
        inputs, targets = self._moved(part.inputs), self._moved(part.targets)
        network = self._network(inputs)
        return build(Batch(network, self.parameters, lambda outputs: summed(outputs, targets), self._fixed))

    def _keep_less(self) -> None:
        """Lets go of half of what is kept; of data without an order of all of it."""
        kept, left = self.batches_kept, len(self._kept) // 2 if self._in_order else 0
        for part in chain.from_iterable(self._kept[left:]):
            part.product = None
        del self._kept[left:]
        if kept:
            note(f"out of memory with graphs of {kept} batches kept: {self.batches_kept} stay")
        release_memory()

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
        while True:
            try:
                total = self._sums(block, outputs, blocks)
                break
            except (RuntimeError, MemoryError) as error:  # not in a batch's product: for the block itself
                failure = out_of_memory(error)
            if not self._kept:
                raise InputError(f"out of memory for a block of {block.shape[1]} vectors: {KEEP_LESS}") from failure
            self._keep_less()
        total = self._over_processes(total).div_(self.examples)
        return total.view(block.shape[1], outputs, block.shape[0]).permute(1, 2, 0)

    def _sums(self, block: Tensor, outputs: int, blocks: Sequence[Sequence[int]] | None) -> Tensor:
        """Sums over this process's examples, one row a column of the block."""
        with torch.inference_mode(False):  # whose tensors cannot be differentiated
            columns = block.T.clone() if block.is_inference() else block.T.contiguous()
            vectors = [self._pieces(column) for column in columns]
            total = torch.zeros(block.shape[1], outputs * block.shape[0], dtype=self.dtype, device=self.device)

        def multiply(product: BatchProduct, vector: Pieces) -> Tensor:
            return self._flat(product(vector) if blocks is None else _by_blocks(product, vector, blocks))

        with arithmetic(self._tf32, self._deterministic):
            for part in self._all_parts():
                self._add(total, vectors, part, multiply, self._build.dropped)
        return total

    def _add(
        self,
        rows: Tensor,
        vectors: Sequence[Any],
        part: Part,
        multiply: Callable[[Any, Any], Tensor],
        build: Callable[[Batch], Any],
    ) -> None:
        """Adds a part's product with each vector to its row; where memory runs out, the others' from smaller parts."""
        if part.product is None and self._limit.of(part.examples) < part.examples:
            for smaller in part.fitting(self._limit):
                self._add(rows, vectors, smaller, multiply, build)
            return
        done = 0
        try:
            product = self._product(part, build) if part.product is None else part.product
            for row, vector in zip(rows, vectors, strict=True):
                row += multiply(product, vector)
                done += 1
            return
        except (RuntimeError, MemoryError) as error:
            product, failure = None, out_of_memory(error)
        if self._kept:
            self._keep_less()
        else:
            part.halve(self._limit, failure)
        self._add(rows[done:], vectors[done:], part, multiply, build)

    @staticmethod
    def _flat(pieces: Pieces) -> Tensor:
        return torch.cat([piece.reshape(-1) for piece in pieces])

    def _all_parts(self) -> Iterator[Part]:
        """Every example once, those first whose graphs are kept."""
        kept = [*self._kept]
        yield from chain.from_iterable(kept)
        if kept and not self._in_order:
            return
        examples = 0
        batches = pairs(self._batches)
        for inputs, targets in islice(batches, len(kept), None) if self._in_order else batches:
            examples += count_examples(inputs, targets)
            yield Part(inputs, targets)
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
                self._add(total[None], [None], Part(inputs, targets), lambda found, _: found, self._flat_gradient)
        return self._over_processes(total) / self.examples

    def _flat_gradient(self, batch: Batch) -> Tensor:
        return self._flat(loss_gradient(batch))


def _by_blocks(product: BatchProduct, vector: Pieces, blocks: Sequence[Sequence[int]]) -> list[Tensor]:
    """The product with each diagonal block of parameters, zero for parameters in none."""
    result = [torch.zeros_like(piece) for piece in vector]
    for chosen in blocks:
        for i, part in zip(chosen, product([vector[i] for i in chosen], chosen), strict=True):
            result[i] = part
    return result
