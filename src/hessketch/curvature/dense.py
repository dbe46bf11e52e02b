"""Curvature matrices formed entry by entry, for networks of up to some ten thousand parameters."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from hessketch.curvature.averages import require_frozen
from hessketch.curvature.batch import Batch, require_finite
from hessketch.curvature.graphs import GradientGraph
from hessketch.curvature.halving import BatchLimit, out_of_memory
from hessketch.curvature.losses import Loss, as_loss, summed_loss
from hessketch.curvature.operators import select_parameters
from hessketch.curvature.parts import Part, count_examples, pairs
from hessketch.curvature.precision import arithmetic
from hessketch.errors import InputError, NotFiniteError
from hessketch.linalg.memory import free_memory
from hessketch.linalg.vectors import ProgressCallback, no_progress, require_at_least

# Rows at once: 16 to 128 took the same time (p = 870 and 1,930), 8 a tenth more.
_MOST_ROWS = 64
# What a block of rows may hold of intermediate results, unless the caller says otherwise.
_BLOCK_BYTES = 2**28
# Intermediate results alive at a time, as a multiple of what the batch's own graph keeps.
_LIVE_PER_VALUE = 2


def require_memory(needed: int, device: torch.device, what: str, memory: int | None = None) -> None:
    """Raises InputError when `needed` bytes exceed `memory` bytes (None: what is free on the device)."""
    free = free_memory(device) if memory is None else memory
    if needed > free:
        raise InputError(
            f"{what} needs {needed / 2**30:.3g} GiB and {free / 2**30:.3g} GiB are free on {device}; take the "
            "operators of hessketch.curvature, a smaller network or more memory"
        )


def dense_hessian(
    model: nn.Module,
    loss: str | Loss,
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    dtype: torch.dtype = torch.float64,
    chunk: int | None = None,
    memory: int | None = None,
    progress: ProgressCallback | None = None,
) -> Tensor:
    """Hessian (p, p) of the mean loss over all examples of the (inputs, targets) batches, exactly symmetric.

    Computed in `dtype` on copies of parameters, buffers and inputs, which the model itself does not see, on the
    parameters' device. `loss` is a function or the name of one. The order of the parameters is that of the operators:
    `named_parameters`, those that require a gradient, each flattened row by row. Each batch's gradient is
    differentiated backwards for `chunk` rows at once (by default up to 64, as many as 256 MiB hold); besides the matrix
    only such a block is held. Where memory runs out the rows are halved, then the examples.

    `progress(done, total)` counts rows over all batches. Raises InputError when the matrix exceeds `memory` bytes
    (default: what is free), for a model in train mode or with other outputs each time, batches that are no pairs, no
    examples, a loss that `summed_loss` refuses or without a symmetric second derivative; NotFiniteError for NaN.
    """
    require_frozen(model)
    loss = as_loss(loss)
    if chunk is not None:
        require_at_least(1, chunk=chunk)
    chosen = select_parameters(model)
    batches = list(pairs(batches))
    if not batches:
        raise InputError("no examples given: an average over nothing is undefined")
    own, p = next(iter(chosen.values())), sum(q.numel() for q in chosen.values())
    device = own.device
    require_memory(p * p * dtype.itemsize, device, f"the Hessian of {p} parameters in {dtype}", memory)
    room = _BLOCK_BYTES if memory is None else min(_BLOCK_BYTES, memory - p * p * dtype.itemsize)
    copies, fixed = copied(model, chosen, dtype)
    leaves = {name: copy.clone().requires_grad_() for name, copy in copies.items()}
    total, done, report = torch.zeros(p, p, dtype=dtype, device=device), 0, progress or no_progress
    limits = BatchLimit("blocks of {} rows"), BatchLimit()
    found: list[Loss] = []

    def make(part: Part) -> Batch:
        moved = converted(part.inputs.to(device), dtype), converted(part.targets.to(device), dtype)
        return _batch(model, fixed, leaves, loss, found, *moved, own.dtype)

    with arithmetic():
        for batch in batches:
            for rows in _add_hessian(total, Part(*batch), make, chunk, room, limits):
                done += rows
                report(done, len(batches) * p)
    return _symmetrised(total.div_(sum(count_examples(*batch) for batch in batches)))


def converted(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """Floating-point numbers in `dtype`, detached; whole numbers (class numbers, counters) stay."""
    return tensor.detach().to(dtype) if tensor.is_floating_point() else tensor.detach()


def copied(model: nn.Module, chosen: Iterable[str], dtype: torch.dtype) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The chosen parameters in `dtype`, by name, and all other parameters and buffers (see `converted`)."""
    others = {name: converted(t, dtype) for name, t in [*model.named_parameters(), *model.named_buffers()]}
    return {name: others.pop(name) for name in chosen}, others


def _batch(
    model: nn.Module,
    fixed: dict[str, Tensor],
    leaves: dict[str, Tensor],
    loss: Loss,
    found: list[Loss],
    inputs: Tensor,
    targets: Tensor,
    own: torch.dtype,
) -> Batch:
    """The batch; the loss as a sum is found out from the first one and kept in `found`."""

    def network(pieces: Sequence[Tensor]) -> Tensor:
        outputs: Tensor = functional_call(model, fixed | dict(zip(leaves, pieces, strict=True)), (inputs,))
        return outputs

    parameters = list(leaves.values())
    if not found:
        with torch.no_grad():
            outputs = require_finite(network(parameters))
            _require_same(outputs, network(parameters))
            found.append(checked_sum(loss, outputs, targets, own))
    return Batch(network, parameters, lambda outputs: found[0](outputs, targets), list(fixed.values()))


def checked_sum(loss: Loss, outputs: Tensor, targets: Tensor, own: torch.dtype) -> Loss:
    """`summed_loss`, asked first in the network's `own` precision, which is that of tensors that the loss may hold."""
    if own != outputs.dtype:
        summed_loss(loss, outputs.to(own), converted(targets, own))
    return summed_loss(loss, outputs, targets)


def _require_same(outputs: Tensor, again: Tensor) -> None:
    apart = float(torch.linalg.vector_norm(outputs - again))
    if apart > torch.finfo(outputs.dtype).eps ** 0.5 * float(torch.linalg.vector_norm(outputs)):
        raise InputError(
            "the network gives other outputs each time, as functional.dropout does unless it is told of eval mode "
            "(training=self.training); take the randomness out"
        )


def _add_hessian(
    total: Tensor,
    part: Part,
    make: Callable[[Part], Batch],
    chunk: int | None,
    room: int,
    limits: tuple[BatchLimit, BatchLimit],
    first: int = 0,
) -> Iterator[int]:
    """Adds the part's summed Hessian to `total` (p, p), from row `first` on; gives each block's number of rows.

    From autograd's graph of the gradient, vectorised. Played tangents (`tapes`) take as long where all their operations
    vectorise, and many times as long where one does not (batch norm's); jvp of grad a tenth longer. An MLP of 870
    parameters with 500 examples takes 0.35 s of one CPU, one of 1,930 parameters 1.35 s; unit vectors one by one
    through the operator 1.3 and 2.9 s. `limits` are of rows and of examples.
    """
    p, (rows_at_once, examples_at_once) = len(total), limits
    *others, last = part.fitting(examples_at_once)
    if others:
        for smaller in others:
            deque(_add_hessian(total, smaller, make, chunk, room, limits, first), 0)  # a row counts with the last
        yield from _add_hessian(total, last, make, chunk, room, limits, first)
        return
    size = 0
    try:
        product = GradientGraph(make(part), fixed_slope=False)
        each = _LIVE_PER_VALUE * product.kept_bytes() + p * total.itemsize
        size = rows_at_once.of(chunk or min(_MOST_ROWS, p, max(1, room // each)))
        while first < p:
            block = _rows(product, total, first, size)
            total[first : first + size] += block
            first += len(block)
            yield len(block)
        return
    except (RuntimeError, MemoryError) as error:
        product, failure = None, out_of_memory(error)
    if size > 1:
        rows_at_once.halve(size, failure)
    else:
        part.halve(examples_at_once, failure)
    yield from _add_hessian(total, part, make, chunk, room, limits, first)


def _rows(product: GradientGraph, like: Tensor, first: int, size: int) -> Tensor:
    """Rows from `first` on, at most `size` of them."""
    rows = torch.zeros_like(like[first : first + size])
    rows.diagonal(first).fill_(1)
    parameters = product.parameters
    units = rows.split([q.numel() for q in parameters], 1)
    pieces = [u.reshape(-1, *q.shape) for u, q in zip(units, parameters, strict=True)]
    found = vmap(lambda *vector: tuple(product(vector)))(*pieces)
    return torch.cat([piece.reshape(len(rows), -1) for piece in found], 1)


def _symmetrised(matrix: Tensor, block: int = 1024) -> Tensor:
    """(A + A^T) / 2 in place, block by block; raises where A is not finite or not symmetric up to rounding."""
    norm, asymmetry = float(torch.linalg.vector_norm(matrix)), 0.0
    if not norm < float("inf"):
        raise NotFiniteError("the dense Hessian holds NaN or infinity: the weights have diverged, or the loss has")
    for i in range(0, len(matrix), block):
        for j in range(0, i + block, block):
            low, up = matrix[i : i + block, j : j + block], matrix[j : j + block, i : i + block]
            asymmetry += float((low - up.T).square().sum())
            mean = (low + up.T) / 2
            low.copy_(mean)
            up.copy_(mean.T)
    allowed = 10 * torch.finfo(matrix.dtype).eps ** 0.5 * norm
    if asymmetry**0.5 > allowed:
        raise InputError(
            f"the Hessian is not symmetric: |H - H^T| is {asymmetry**0.5:.1e} of {norm:.1e} (allowed: {allowed:.1e}); "
            "the loss or a layer has no second derivative"
        )
    return matrix


def dense_moments(gradients: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean g (p,), second moment (1/n) sum g_i g_i^T and covariance, that minus g g^T, both (p, p), all float64.

    `gradients` (n, p) are one a row. The covariance is of the centred rows, without cancellation. Raises InputError
    for another shape or no rows, or when the matrices do not fit into memory.
    """
    if gradients.ndim != 2 or not len(gradients):
        raise InputError(f"gradients have shape {tuple(gradients.shape)}; give (n, p), one gradient a row, n >= 1")
    n, p = gradients.shape
    require_memory(2 * 8 * p * p + 8 * n * p, gradients.device, f"two moment matrices of {p} parameters")
    gradients = gradients.double()
    mean = gradients.mean(0)
    centred = gradients - mean
    return mean, gradients.T @ gradients / n, centred.T @ centred / n
