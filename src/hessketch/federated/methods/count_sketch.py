"""Sketched federated learning (Shrivastava et al. 2024, Algorithm 1): the mean of Count-Sketches, lifted by mean."""

import math
from functools import partial

import torch
from torch import Tensor

from hessketch.federated.messages import Part
from hessketch.federated.methods.interface import Stateless
from hessketch.linalg.count_sketch import CountSketch

_INT64 = Part("int64", 1)


class SketchedAveraging(Stateless):
    """Clients send the table S_t update, the server their mean; everyone lifts it: theta <- theta - rate S_t^T (mean).

    The lift is unbiased, so that nothing has to be remembered: the paper's default, without error feedback. Hashes S_t
    are fresh each round (`fresh`), as in the analysis (Song et al. 2023) and as the step needs: with one S for all
    rounds the weights move in a subspace of b dimensions, with up to p / b times the curvature, and stop where the
    gradient vanishes in it. `fresh=False` is that variant.

    With error feedback (Stich et al. 2018) clients keep what they were due to send and the others did not see. This
    converges only if decode is a contraction, which an unbiased lift is not: |S^T S x - x|^2 is (p - 1) / b times
    |x|^2, more than all there was, and the memory grows without bound. The lift is therefore scaled by
    1 / (1 + (p - 1) / b), the factor that makes the expected error least, (1 - factor) |x|^2: it is biased, and the
    memory makes up for that over about 1 + (p - 1) / b rounds. A training of fewer rounds has hardly begun. The shift
    placement, whose error is no larger, takes the same factor.
    """

    linear = True

    def __init__(
        self,
        dimension: int,
        rows: int,
        columns: int,
        seed: int,
        *,
        error_feedback: bool = False,
        placement: str = "hash",
        fresh: bool = True,
        device: torch.device | str = "cpu",
    ):
        self.error_feedback = error_feedback
        self.upload_numbers = rows * columns
        self.scale = 1 / (1 + (dimension - 1) / (rows * columns)) if error_feedback else 1.0
        self._fresh = fresh
        self._draw: int | None = None
        self._of_draw = partial(CountSketch, dimension, rows, columns, seed, placement=placement, device=device)

    def sketch(self, step: int) -> CountSketch:
        """The sketch of a round, the same for all clients."""
        draw, self._step = step if self._fresh else 0, step
        if draw != self._draw:
            self._current, self._draw = self._of_draw(draw), draw
        return self._current

    def encode(self, update: Tensor, step: int) -> Tensor:
        return self.sketch(step).apply(update)

    def decode(self, payload: Tensor, step: int) -> Tensor:
        return self.sketch(step).lift(payload).mul_(self.scale)

    def download(self, total: Tensor, change: Tensor) -> list[Tensor]:
        """The mean table, and the number of the draw: hashes follow from it and the seed that all share."""
        return [total.float(), torch.tensor([self._draw])]

    def download_parts(self, total: Tensor, change: Tensor) -> tuple[Part, ...]:
        return (*self.upload_parts, _INT64)

    def expected_error(self, due: Tensor) -> float:
        """By the sketch's own formula; with error feedback (1 - scale)^2 + scale^2 times it.

        NaN with the same hashes in all rounds, but for the first: updates then depend on them.
        """
        if not self._fresh and self._step:
            return math.nan
        return (1 - self.scale) ** 2 + self.scale**2 * self._current.expected_error(due)
