r"""The terms delta_{i,c'} of `class_means`, kept: what multiplies by them passes through no network.

A product with a part of the GGN takes about five passes forwards through the network, with kept terms two products
with n C gradients of p numbers. For a network that shares its weights, as convolutions do, the second is less: 0.05 s
against 0.24 s for 260 images of 32x32, 10 classes and a ResNet18 of 44,550 parameters on one core.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from hessketch.curvature.averages import GRAPHS_SHARE
from hessketch.curvature.class_means import require_classes
from hessketch.curvature.output_gradients import OutputGradients
from hessketch.data.examples import Examples
from hessketch.errors import NotFiniteError
from hessketch.linalg.memory import free_memory
from hessketch.linalg.vectors import ProgressCallback, no_progress

# Operations of a pass forwards to each number of a kept gradient, from which on to keep them is less work: about 2 on
# a CPU. Of a fully connected network it is 2 / C, of the ResNet18 above 10.
_LEAST_SHARING = 2.0


@dataclass(frozen=True, eq=False)
class ClassTerms:
    """All terms of n examples, in the model's dtype and on its device."""

    rows: Tensor  # (n, C, p), delta_{i,c'} at [i, c']
    targets: Tensor  # (n,) int64


class TermsOperator:
    """'G', 'G0' or 'others' (G1 + G2 + G3) as a symmetric (p, p) map by kept terms: (1/n) sum delta delta^T."""

    def __init__(self, name: str, terms: ClassTerms):
        n, classes, p = terms.rows.shape
        own = torch.nn.functional.one_hot(terms.targets, classes).bool()
        self.name, self.shape, self._examples = name, (p, p), n
        self.dtype, self.device = terms.rows.dtype, terms.rows.device
        # The true classes' terms are one of C and copied; of all others the few are multiplied by zero.
        self._rows = terms.rows[own] if name == "G0" else terms.rows.flatten(0, 1)
        self._left_out = own.flatten() if name == "others" else None

    def __matmul__(self, other: Tensor) -> Tensor:
        inner = self._rows @ other.reshape(len(other), -1).to(self._rows)
        if self._left_out is not None:
            inner[self._left_out] = 0
        return (self._rows.T @ inner).reshape(other.shape) / self._examples


def worth_keeping(model: nn.Module, examples: Examples, memory: int | None) -> bool:
    """Whether kept terms make products cheaper and fit into `memory` bytes (None: half of what is free)."""
    first = next(model.parameters())
    size = len(examples) * examples.classes * sum(q.numel() for q in model.parameters())
    if size * first.dtype.itemsize > (free_memory(first.device) * GRAPHS_SHARE if memory is None else memory):
        return False
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(examples.inputs[:1].to(first))
    return bool(counter.get_total_flops() * len(examples) >= _LEAST_SHARING * size)


def class_terms(model: nn.Module, examples: Examples, *, progress: ProgressCallback | None = None) -> ClassTerms:
    """The terms of all examples; raises as `class_means`."""
    dtype, report, done = next(model.parameters()).dtype, progress or no_progress, 0
    network = OutputGradients(model, dtype)
    outputs = network.outputs(examples.inputs)
    require_classes(examples.classes, outputs)
    probabilities, classes = outputs.softmax(1), examples.classes
    weights = torch.eye(classes, dtype=dtype, device=network.device) - probabilities[:, None, :]
    weights *= probabilities.sqrt()[:, :, None]
    rows = torch.empty(len(examples), classes, network.size, dtype=dtype, device=network.device)
    for jacobians in network.jacobians(examples.inputs, classes):
        part = slice(done, done + len(jacobians))
        torch.bmm(weights[part], jacobians, out=rows[part])
        done = part.stop
        report(done, len(examples))
    if not torch.isfinite(rows).all():
        raise NotFiniteError("gradients of the outputs hold NaN or infinity: the network's weights have diverged")
    return ClassTerms(rows, examples.targets.to(network.device))
