"""Loss and accuracy of a network at points of its parameter space: along straight lines and other curves."""

from collections.abc import Callable

import pandas
import torch
from torch import Tensor, nn

from hessketch.curvature.losses import correct, loss_function
from hessketch.curvature.points import ParameterSpace, means_at
from hessketch.data.examples import Examples
from hessketch.errors import InputError, NotFiniteError
from hessketch.networks.layers import has_batch_norm

MEASURED = ("train_loss", "train_accuracy", "test_loss", "test_accuracy")
# Parameters of all points that are held at once: 256 MiB in float32.
_NUMBERS_HELD = 2**26


def weights_space(model: nn.Module, dtype: torch.dtype | None = None) -> ParameterSpace:
    """The network as a function of its flat parameters (p,) alone, in `dtype` (default: its own).

    Raises InputError for a model in train mode, and for one with batch norm: what such a network computes follows from
    its running statistics too, and between two trained networks there are none that belong to the weights.
    """
    if has_batch_norm(model):
        raise InputError(
            "the network has batch norm, whose statistics do not belong to weights between two trained networks; take "
            "norm none or group"
        )
    return ParameterSpace(model, dtype)


def line(first: Tensor, second: Tensor, t: Tensor) -> Tensor:
    """Points (k, p) of the straight line (1 - t) first + t second for t (k,); the ends at 0 and 1 exactly."""
    t = t.to(first)[:, None]
    return (1 - t) * first + t * second


def measured_along(
    space: ParameterSpace, place: Callable[[Tensor], Tensor], t: Tensor, loss: str, train: Examples, test: Examples
) -> pandas.DataFrame:
    """A row for each of t (k,): `t` and MEASURED, float64, of the network whose weights are place(t) (k, p).

    `loss` is the name of one, accuracies are fractions. Outputs are computed in the dtype of the space, losses and
    sums in float64. Raises InputError for an unknown loss, and NotFiniteError naming the first t whose loss is not
    finite.
    """
    function = loss_function(loss)

    def hits(outputs: Tensor, targets: Tensor) -> Tensor:
        return correct(outputs, targets, function).double()

    columns: dict[str, list[Tensor]] = {name: [] for name in MEASURED}
    for some in t.split(max(1, _NUMBERS_HELD // len(space.theta))):
        points = place(some)
        for split, examples in (("train", train), ("test", test)):
            columns[f"{split}_loss"].append(means_at(space, points, examples, function).cpu())
            columns[f"{split}_accuracy"].append(means_at(space, points, examples, hits).cpu())
    frame = pandas.DataFrame({"t": t.double().cpu()} | {name: torch.cat(parts) for name, parts in columns.items()})
    for split in ("train", "test"):
        bad = ~torch.isfinite(torch.tensor(frame[f"{split}_loss"].to_numpy()))
        if bad.any():
            raise NotFiniteError(f"the {split} loss at t = {float(t[bad][0]):g} is not finite")
    return frame


def barrier(t: Tensor, losses: Tensor) -> float:
    """How far the loss rises above the straight line between the losses at the ends, at most, over t (k,) in [0, 1].

    `losses` (k,) float64 at t, of which 0 and 1 are among those given; 0 where it never does. Raises InputError where
    the ends are missing.
    """
    start, end = (losses[t == value] for value in (0, 1))
    if not len(start) or not len(end):
        raise InputError("a barrier lies between t = 0 and t = 1; give the losses there too")
    inside = (t >= 0) & (t <= 1)
    return float((losses - (1 - t) * start[0] - t * end[0])[inside].max())
