r"""Second moments of the gradients of a network's outputs, formed exactly: the GGN, and the same without its weights.

With outputs f_i in R^C of example i, their Jacobian J_i (C, p) and the loss's Hessian A_i = d2 l_i / d f2 there,

    ggn                (1/n) sum_i J_i^T A_i J_i    (Sagun et al. 2017, the first term of the Hessian)
    output_gradients   (1/n) sum_i J_i^T J_i        (their "covariance of the gradients of the outputs", not weighted)

With A_i = V diag(s) V^T both are R^T S R / n, with the rows sqrt|s| V^T J_i of all examples and S the signs of s. Rows
of weight 0 are left out: a softmax has one an example (A_i 1 = 0), so at most n (C - 1) stay, and the rank is no
larger. Where fewer than p stay and S = 1, the Gram matrix R R^T / n has the same eigenvalues but for zeros.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev, vmap

from hessketch.curvature.averages import require_frozen
from hessketch.curvature.batch import Batch, output_hessian, require_finite
from hessketch.curvature.dense import checked_sum, converted, copied, require_memory
from hessketch.curvature.halving import BatchLimit
from hessketch.curvature.losses import Loss, as_loss
from hessketch.curvature.operators import select_parameters
from hessketch.curvature.per_example import spread
from hessketch.curvature.precision import arithmetic
from hessketch.errors import InputError, NotFiniteError
from hessketch.linalg.vectors import ProgressCallback, no_progress

# What the Jacobians of a chunk of examples may take.
_CHUNK_BYTES = 2**27


@dataclass(frozen=True, eq=False)
class OutputMoment:
    """A second moment M (p, p) by the smaller of its two matrices, float64 on the model's device."""

    matrix: Tensor  # M itself (p, p), or the Gram matrix (r, r) of its rows
    rows: Tensor | None  # (r, p) with M = rows^T rows, where `matrix` is their Gram matrix; r < p
    parameters: int

    def eigenvectors(self, vectors: Tensor) -> Tensor:
        """Orthonormal eigenvectors (p, k) of M from those (., k) of `matrix`, whose eigenvalues are not zero."""
        return vectors if self.rows is None else torch.linalg.qr(self.rows.T @ vectors).Q


def ggn_moment(
    model: nn.Module,
    loss: str | Loss,
    inputs: Tensor,
    targets: Tensor,
    *,
    memory: int | None = None,
    progress: ProgressCallback | None = None,
) -> OutputMoment:
    """The GGN of the mean loss over n inputs, in float64, whatever the precision of the model, which stays as it is.

    The order of the parameters is that of the operators. `progress(done, total)` counts examples. Raises InputError
    for a model in train mode, outputs of another shape than (n, C), no examples, a loss that `summed_loss` refuses, or
    when the matrices exceed `memory` bytes (default: what is free); NotFiniteError for NaN or infinity.
    """
    network = OutputGradients(model)
    if len(inputs) != len(targets):
        raise InputError(f"{len(inputs)} inputs and {len(targets)} targets given; give as many of each")
    outputs = network.outputs(inputs)
    loss, targets = as_loss(loss), network.converted(targets)
    summed = checked_sum(loss, spread(outputs), spread(targets), network.own)
    values, vectors = torch.linalg.eigh(_output_hessians(summed, outputs, targets))
    largest = values.abs().amax(1, keepdim=True)
    # Below the rounding of an example's own matrix a weight is a zero.
    kept = values.abs() > 4 * values.shape[1] * torch.finfo(values.dtype).eps * largest
    roots = values.abs().sqrt()[:, :, None] * vectors.mT
    return _moment(network, inputs, roots, values.sign(), kept, memory, progress)


def output_gradient_moment(
    model: nn.Module, inputs: Tensor, *, memory: int | None = None, progress: ProgressCallback | None = None
) -> OutputMoment:
    """(1/n) sum_i J_i^T J_i of n inputs in float64; arguments and errors as of `ggn_moment`."""
    network = OutputGradients(model)
    outputs = network.outputs(inputs)
    ones = torch.ones_like(outputs)
    roots = torch.eye(outputs.shape[1]).to(outputs).expand(len(outputs), -1, -1)
    return _moment(network, inputs, roots, ones, ones > 0, memory, progress)


class OutputGradients:
    """Outputs and their Jacobians of a frozen network in `dtype`, on copies."""

    def __init__(self, model: nn.Module, dtype: torch.dtype = torch.float64):
        require_frozen(model)
        chosen = select_parameters(model)
        first = next(iter(chosen.values()))
        self.own, self.device, self._model, self._dtype = first.dtype, first.device, model, dtype
        self._parameters, self._fixed = copied(model, chosen, dtype)
        self._limit = BatchLimit("chunks of {} examples")
        self.size = sum(q.numel() for q in chosen.values())

    def converted(self, tensor: Tensor) -> Tensor:
        return converted(tensor.to(self.device), self._dtype)

    def outputs(self, inputs: Tensor) -> Tensor:
        """(n, C), finite."""
        if not len(inputs):
            raise InputError("no examples given: an average over nothing is undefined")

        def outputs_of(part: slice) -> Tensor:
            given = self.converted(inputs[part])
            return require_finite(functional_call(self._model, self._fixed | self._parameters, (given,)))

        with torch.no_grad(), arithmetic():
            found = [outputs for _, outputs in self._limit.parts(outputs_of, len(inputs), 500)]
        if found[0].ndim != 2:
            raise InputError(f"the outputs have shape {tuple(found[0].shape)}; give a network with outputs (n, C)")
        return torch.cat(found)

    def jacobians(self, inputs: Tensor, outputs: int) -> Iterator[Tensor]:
        """J_i (m, C, p) of m examples at a time, in order."""
        # The Jacobians, the pieces that they are put together from, and as much again on the way.
        chunk = max(1, _CHUNK_BYTES // (3 * self._dtype.itemsize * outputs * self.size))

        def network(parameters: dict[str, Tensor], example: Tensor) -> Tensor:
            outputs: Tensor = functional_call(self._model, self._fixed | parameters, (example[None],))
            return outputs[0]

        def of_part(part: slice) -> Tensor:
            with arithmetic():
                given = self.converted(inputs[part])
                pieces = vmap(jacrev(network), in_dims=(None, 0))(self._parameters, given)
                return torch.cat([piece.reshape(len(given), outputs, -1) for piece in pieces.values()], 2)

        for _, found in self._limit.parts(of_part, len(inputs), chunk):
            yield found


def _output_hessians(summed: Loss, outputs: Tensor, targets: Tensor) -> Tensor:
    """A_i (n, C, C): as many products with the Hessian of the summed loss as there are outputs."""
    product = output_hessian(Batch(lambda _: outputs, [], lambda f: summed(f, targets), []), outputs)
    columns = []
    for k in range(outputs.shape[1]):
        tangent = torch.zeros_like(outputs)
        tangent[:, k] = 1
        columns.append(product(tangent))
    found = torch.stack(columns, 2)
    if not torch.isfinite(found).all():
        raise NotFiniteError("the loss's second derivative in the outputs is NaN or infinite")
    return (found + found.mT) / 2


def _moment(
    network: OutputGradients,
    inputs: Tensor,
    roots: Tensor,
    signs: Tensor,
    kept: Tensor,
    memory: int | None,
    progress: ProgressCallback | None,
) -> OutputMoment:
    """From roots (n, C, C) with A_i = root^T diag(sign) root, and which of their rows (n, C) are kept."""
    (n, outputs), p, report = kept.shape, network.size, progress or no_progress
    counts = [0, *kept.sum(1).cumsum(0).tolist()]
    r = counts[-1]
    small = r < p and not bool((signs[kept] < 0).any())
    numbers = r * p + r * r if small else p * p
    require_memory(8 * numbers + _CHUNK_BYTES, network.device, f"a second moment of {r} gradients of outputs", memory)
    rows = torch.empty(r if small else 0, p, dtype=torch.float64, device=network.device)
    whole = torch.zeros(0 if small else p, p, dtype=torch.float64, device=network.device)
    done = 0
    for jacobians in network.jacobians(inputs, outputs):
        part = slice(done, done + len(jacobians))
        found = (roots[part] @ jacobians)[kept[part]]
        if not torch.isfinite(found).all():
            raise NotFiniteError("gradients of the outputs hold NaN or infinity: the network's weights have diverged")
        if small:
            torch.div(found, n**0.5, out=rows[counts[part.start] : counts[part.stop]])
        else:
            whole.addmm_(found.T * signs[part][kept[part]], found, alpha=1 / n)
        done = part.stop
        report(done, n)
    return OutputMoment(rows @ rows.T, rows, p) if small else OutputMoment(whole, None, p)
