r"""The GGN of cross-entropy by classes: its class means and cross-class means, and the eigenvalues that they explain.

With softmax probabilities p_i of example i, the Jacobian J_i (C, p) of its logits and its class c(i), let

    delta_{i,c'} = sqrt(p_ic') J_i^T (e_c' - p_i)

Up to its sign and the root it is the gradient of the loss as if the label were c'. The loss's Hessian in the logits is
diag(p) - p p^T = sum_c' p_c' (e_c' - p)(e_c' - p)^T: G = (1/n) sum_i sum_c' delta_{i,c'} delta_{i,c'}^T exactly.
Plain means over the n_c examples of class c are the cross-class means delta_{c,c'} = mean_i delta_{i,c'}, and over
c' != c the class means delta_c = (1 / (C - 1)) sum_c' delta_{c,c'}. A mean of squares is the square of the mean and the
spread around it: of the examples around their cross-class mean, then of these around their class mean,

    G  = G0 + G1 + G2 + G3
    G0 = (1/n) sum_i delta_{i,c(i)} delta_{i,c(i)}^T                               the true classes' terms
    G1 = sum_c (n_c/n) (C - 1) delta_c delta_c^T                                   the class means
    G2 = sum_c (n_c/n) sum_{c' != c} (delta_{c,c'} - delta_c)(...)^T               the cross-class means around them
    G3 = sum_c (n_c/n) sum_{c' != c} mean_i (delta_{i,c'} - delta_{c,c'})(...)^T   the examples around these

exactly, for classes of any size n_c. G1 + G2 = sum_c (n_c/n) sum_{c' != c} delta_{c,c'} delta_{c,c'}^T is of rank at
most C (C - 1), G1 of rank at most C, G2, whose terms sum to zero in each class, of rank at most C (C - 2): their
eigenvalues are those of small matrices of inner products (Papyan 2019, "Measurements of three-level hierarchical
structure in the outliers in the spectrum of deepnet Hessians").
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from scipy.linalg import helmert
from torch import Tensor, nn

from hessketch.curvature.averages import require_frozen
from hessketch.curvature.batch import require_finite, vector_jacobian
from hessketch.curvature.dense import converted
from hessketch.curvature.halving import BatchLimit
from hessketch.curvature.operators import select_parameters
from hessketch.curvature.precision import arithmetic
from hessketch.data.examples import Examples
from hessketch.errors import InputError, NotFiniteError
from hessketch.linalg.arrays import Floats
from hessketch.linalg.memory import free_memory
from hessketch.linalg.vectors import ProgressCallback, no_progress, require_at_least

PARTS_OF_MEANS = ("G1", "G2", "G1+2")
# Numbers of the means that are turned into float64 at a time.
_NUMBERS_AT_ONCE = 2**23
_FEWEST_FOR_TSNE = 4
# Matrices between all points that live at once: inner products twice, eigenvectors, and twice as much to work with;
# 5.3 were measured for 48 classes.
_MATRICES = 6
# Points up to which t-SNE takes all pairs of them.
_MOST_EXACT = 1000


@dataclass(frozen=True, eq=False)
class ClassMeans:
    """Cross-class means of n examples, and what follows from them alone."""

    cross: Tensor  # (C, C, p), delta_{c,c'} at [c, c']; in the model's dtype and on its device, 0 without examples
    counts: Tensor  # (C,) int64, n_c

    @property
    def classes(self) -> int:
        return len(self.counts)

    @property
    def weights(self) -> Tensor:
        """n_c / n (C,), float64 on the CPU."""
        return (self.counts.double() / self.counts.sum()).cpu()

    def of_classes(self) -> Tensor:
        """The class means delta_c (C, p): 0 of a class without examples."""
        others = ~torch.eye(self.classes, dtype=torch.bool, device=self.cross.device)
        return torch.stack([means[rows].mean(0) for means, rows in zip(self.cross, others, strict=True)])

    @cached_property
    def gram(self) -> Tensor:
        """Inner products (C^2, C^2) of all cross-class means, float64 on the CPU, delta_{c,c'} in row C c + c'."""
        flat = self.cross.flatten(0, 1)
        total = torch.zeros(len(flat), len(flat), dtype=torch.float64, device=flat.device)
        for columns in flat.split(max(1, _NUMBERS_AT_ONCE // len(flat)), 1):
            block = columns.double()
            total.addmm_(block, block.T)
        return total.cpu()

    def eigenvalues(self, part: str) -> Floats:
        """Those that may be nonzero of 'G1' (C), 'G2' (C (C - 2)) or 'G1+2' (C (C - 1)), at most p of them.

        Descending, float64, exact.
        """
        bases = _bases(part, self.classes) * self.weights.sqrt()[:, None, None]
        values = self.gram
        for _ in range(2):  # rows, then columns
            values = (bases.mT @ values.view(self.classes, self.classes, -1)).flatten(0, 1).T.contiguous()
        found: Tensor = torch.linalg.eigvalsh(values).flip(0).clamp(min=0)[: self.cross.shape[2]]
        return found.numpy()

    def coordinates(self) -> Tensor:
        """The C (C + 1) points of `embedding` in as many dimensions, by inner products: rows of float64.

        First delta_{c,c'} by c, then c', with c' = c; then the delta_c. Distances and centre are those of the vectors.
        """
        known, inner = self.known(), self._inner_products()
        if not known.all():
            inner = inner[known][:, known]
        inner -= inner.mean(0)
        inner -= inner.mean(1, keepdim=True)
        values, vectors = torch.linalg.eigh(inner)
        del inner
        found: Tensor = vectors.mul_(values.clamp(min=0).sqrt()).flip(1)
        largest = found.abs().argmax(0, keepdim=True)
        signs = found.gather(0, largest).sign()
        return found.mul_(torch.where(signs == 0, 1.0, signs))

    def _inner_products(self) -> Tensor:
        """Of the C (C + 1) points (., .): of all cross-class means, then of the class means."""
        count = self.classes
        average = (1 - torch.eye(count, dtype=torch.float64)) / (count - 1)
        means = (average[:, None, :] @ self.gram.view(count, count, -1)).squeeze(1)
        inner = torch.empty(count * (count + 1), count * (count + 1), dtype=torch.float64)
        inner[: count**2, : count**2] = self.gram
        inner[count**2 :, : count**2] = means
        inner[: count**2, count**2 :] = means.T
        inner[count**2 :, count**2 :] = (means.view(count, count, count) * average).sum(2)
        return inner

    def known(self) -> Tensor:
        """Which of the C (C + 1) points are of a class with examples, bool."""
        there = self.counts.cpu() > 0
        return torch.cat([there.repeat_interleave(self.classes), there])


def embedding(means: ClassMeans, seed: int) -> Tensor:
    """The C (C + 1) points of `coordinates` in two planes: (C (C + 1), 4), pca_1, pca_2, tsne_1, tsne_2, float64.

    The first two are principal components (classical scaling by inner products; of each the largest coordinate is
    positive), the others t-SNE of scikit-learn, started from them, with a perplexity of a third of the points, at most
    30. NaN is a point of a class without examples, and t-SNE of fewer than four points.
    """
    from sklearn.manifold import TSNE

    known, points = means.known(), means.coordinates()
    count = len(points)
    found = torch.full((len(known), 4), math.nan, dtype=torch.float64)
    found[known, :2] = points[:, :2]
    if count >= _FEWEST_FOR_TSNE:
        start = points[:, :2] / max(float(points[:, 0].std()), torch.finfo(torch.float64).tiny) * 1e-4
        tsne = TSNE(
            perplexity=min(30.0, (count - 1) / 3),
            init=start.numpy().astype(np.float32),
            method="exact" if count <= _MOST_EXACT else "barnes_hut",
            random_state=seed % 2**32,
            n_jobs=1,
        )
        found[known, 2:] = torch.from_numpy(tsne.fit_transform(points.numpy())).double()
    return found


def _bases(part: str, classes: int) -> Tensor:
    """Of each class c an orthonormal basis of what a part sees of its C entries: (C, C, m), float64.

    Of c' != c alone: their mean ('G1', m = 1), what sums to zero ('G2', m = C - 2), or both.
    """
    if part not in PARTS_OF_MEANS:
        raise InputError(f"part {part!r} is unknown; allowed: {', '.join(PARTS_OF_MEANS)}")
    whole = helmert(classes - 1, full=True)  # the first row is of equal numbers
    chosen = torch.from_numpy(whole[{"G1": slice(0, 1), "G2": slice(1, None), "G1+2": slice(None)}[part]].T.copy())
    bases = torch.zeros(classes, classes, chosen.shape[1], dtype=torch.float64)
    others = ~torch.eye(classes, dtype=torch.bool)
    bases[others] = chosen.repeat(classes, 1)
    return bases


def among_others(part: str, values: Tensor, classes: int) -> Tensor:
    """(C^2, k) with entries of the pairs c' != c alone: their mean over c' ('G1'), what is left ('G2'), or both."""
    if part not in PARTS_OF_MEANS:
        raise InputError(f"part {part!r} is unknown; allowed: {', '.join(PARTS_OF_MEANS)}")
    shaped = values.view(classes, classes, -1)
    others = 1 - torch.eye(classes, dtype=values.dtype, device=values.device)[:, :, None]
    shaped = shaped * others
    if part != "G1+2":
        mean = shaped.sum(1, keepdim=True) / (classes - 1) * others
        shaped = mean if part == "G1" else shaped - mean
    return shaped.view_as(values)


def require_classes(classes: int, outputs: Tensor) -> None:
    """Raises InputError unless the outputs are (n, C), one for each of at least two classes."""
    if classes < 2 or outputs.ndim != 2 or outputs.shape[1] != classes:
        raise InputError(
            f"class means need a softmax with one output a class, at least two; the outputs have shape "
            f"{tuple(outputs.shape)} for {classes} classes; train with cross_entropy, which takes two of two classes"
        )


def means_memory(classes: int, p: int, dtype: torch.dtype) -> int:
    """Bytes of `class_means`: C^2 vectors and one beside them, and matrices of inner products of C (C + 1) points."""
    return (classes**2 + 1) * p * dtype.itemsize + _MATRICES * 8 * (classes * (classes + 1)) ** 2


def _require_room(classes: int, p: int, dtype: torch.dtype, device: torch.device, memory: int | None) -> None:
    """Raises InputError, saying what would fit, when the means exceed `memory` bytes (None: all free)."""
    free, needed = free_memory(device) if memory is None else memory, means_memory(classes, p, dtype)
    if needed > free:
        each, fixed = means_memory(classes, 1, dtype), means_memory(classes, 0, dtype)
        fitting = max(0, int((free - fixed) // (each - fixed)))
        raise InputError(
            f"the {classes**2} cross-class means of {p} parameters need {needed / 2**30:.3g} GiB and "
            f"{free / 2**30:.3g} GiB are free on {device}: with {classes} classes at most {fitting} parameters would "
            "fit; take a narrower network, fewer classes or more memory"
        )


def class_means(
    model: nn.Module,
    examples: Examples,
    *,
    batch_size: int = 500,
    memory: int | None = None,
    progress: ProgressCallback | None = None,
) -> ClassMeans:
    """Cross-class means of the model's softmax over the examples, in its own precision and on its device.

    Each class goes through the network in batches of at most `batch_size`, one pass backwards for each c', so that only
    the sums are held; where memory runs out, in half as many. The order of the parameters is that of the operators.
    `progress(done, total)` counts examples.

    Raises InputError for a model in train mode, no examples, other than one output a class (two at least) and for more
    than `memory` bytes (default: what is free); NotFiniteError for outputs or gradients that are NaN or infinite.
    """
    require_frozen(model)
    require_at_least(1, batch_size=batch_size)
    if not len(examples):
        raise InputError("no examples given: a mean over nothing is undefined")
    parameters = list(select_parameters(model).values())
    first, p = parameters[0], sum(q.numel() for q in parameters)
    classes, done, report = examples.classes, 0, progress or no_progress
    _require_room(classes, p, first.dtype, first.device, memory)
    sums = torch.zeros(classes, classes, p, dtype=first.dtype, device=first.device)
    limit = BatchLimit()
    counts = torch.bincount(examples.targets.cpu(), minlength=classes)
    with arithmetic():
        for c in counts.nonzero().flatten().tolist():
            own = (examples.targets == c).nonzero().flatten()

            def add_class(size: int, total: Tensor = sums[c], own: Tensor = own, done: int = done) -> None:
                total.zero_()  # what a pass that ran out of memory left
                for part in own.split(size):
                    inputs = converted(examples.inputs[part].to(first.device), first.dtype)
                    for row, gradient in zip(total, _gradients(model, inputs, parameters, classes), strict=True):
                        row += gradient
                    done += len(part)
                    report(done, len(examples))

            limit.run(add_class, min(batch_size, len(own)))
            sums[c] /= len(own)
            done += len(own)
    if not torch.isfinite(sums).all():
        raise NotFiniteError("class means hold NaN or infinity: the network's weights have diverged")
    return ClassMeans(sums, counts)


def _gradients(model: nn.Module, inputs: Tensor, parameters: list[nn.Parameter], classes: int) -> Iterator[Tensor]:
    """sum_i delta_{i,c'} (p,) over the inputs for each c' in turn."""
    with torch.enable_grad():
        outputs = require_finite(model(inputs))
    require_classes(classes, outputs)
    probabilities = outputs.detach().softmax(1)
    for other in range(classes):
        weights = -probabilities
        weights[:, other] += 1
        weights *= probabilities[:, other : other + 1].sqrt()
        pieces = vector_jacobian([outputs], parameters, [weights], retain_graph=True)
        yield torch.cat([piece.flatten() for piece in pieces])
