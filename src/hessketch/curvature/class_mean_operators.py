r"""The parts of the GGN by classes, G = G0 + G1 + G2 + G3 of `class_means`, as operators: none of them is formed.

An example with softmax probabilities p and logits f has the terms p_c' J^T (e_c' - p)(e_c' - p)^T J. For fixed p,
(e_c' - p)(e_c' - p)^T is the Hessian in f of ((e_c' - p) . f)^2 / 2: with such a loss a GGN is the sum of the terms
that are wanted, the true class's (G0) or all others (G1 + G2 + G3).
"""

from typing import Any

import torch
from torch import Tensor, nn

from hessketch.curvature.class_means import PARTS_OF_MEANS, ClassMeans, among_others
from hessketch.curvature.class_terms import ClassTerms, TermsOperator
from hessketch.curvature.losses import Loss, cross_entropy
from hessketch.curvature.operators import Batches, ggn
from hessketch.errors import InputError
from hessketch.linalg.vectors import Operator

PARTS = ("G", "G0", *PARTS_OF_MEANS, "G3")


class MeansOperator:
    """'G1', 'G2' or 'G1+2' as a symmetric (p, p) map: D^T W P D v with the cross-class means D (C^2, p).

    W holds n_c / n, P averages over the other classes, takes that average off, or leaves both (`among_others`).
    """

    def __init__(self, part: str, means: ClassMeans):
        self.name, self._classes = part, means.classes
        self._flat = means.cross.flatten(0, 1)
        self.shape = (self._flat.shape[1],) * 2
        self.dtype, self.device = self._flat.dtype, self._flat.device
        self._weights = means.weights.repeat_interleave(means.classes).to(self._flat)[:, None]

    def __matmul__(self, other: Tensor) -> Tensor:
        inner = self._flat @ other.reshape(len(other), -1).to(self._flat)
        weighted = self._weights * among_others(self.name, inner, self._classes)
        return (self._flat.T @ weighted).reshape(other.shape)


class _WithinOperator:
    """'G3': the terms of all other classes less what the cross-class means explain of them."""

    def __init__(self, others: Operator, means: MeansOperator):
        self.name, self._others, self._means = "G3", others, means
        self.shape, self.dtype, self.device = others.shape, others.dtype, others.device

    def __matmul__(self, other: Tensor) -> Tensor:
        return self._others @ other - self._means @ other


def terms_of(true_class: bool) -> Loss:
    """A loss (n,) whose Hessian in the logits is that of the true class's term of the softmax, or of all others'.

    Its value and slope mean nothing: with weights p_c' held fixed it is the sum of p_c' ((e_c' - p) . f)^2 / 2.
    """

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        probabilities = outputs.detach().softmax(1)
        own = torch.zeros_like(probabilities).scatter(1, targets[:, None], 1)
        weights = probabilities * (own if true_class else 1 - own)
        along = outputs - (probabilities * outputs).sum(1, keepdim=True)
        return (weights * along.square()).sum(1) / 2

    return loss


def part_operator(
    part: str,
    model: nn.Module,
    batches: Batches,
    means: ClassMeans,
    *,
    terms: ClassTerms | None = None,
    **options: Any,
) -> Operator:
    """One of PARTS as an operator (p, p), from the examples of the means as (inputs, targets) batches.

    'G1', 'G2' and 'G1+2' take two products with the means, the others one pass over the batches or, where the `terms`
    of these examples are given, two products with them. `options` are those of `CurvatureOperator`. Raises InputError
    for an unknown part, and as `CurvatureOperator`.
    """
    if part not in PARTS:
        raise InputError(f"part {part!r} is unknown; allowed: {', '.join(PARTS)}")
    if part in PARTS_OF_MEANS:
        return MeansOperator(part, means)
    if terms is not None:
        operator: Operator = TermsOperator("others" if part == "G3" else part, terms)
        return _WithinOperator(operator, MeansOperator("G1+2", means)) if part == "G3" else operator
    if part == "G":
        return ggn(model, cross_entropy, batches, **options)
    operator = ggn(model, terms_of(true_class=part == "G0"), batches, **options)
    return operator if part == "G0" else _WithinOperator(operator, MeansOperator("G1+2", means))
