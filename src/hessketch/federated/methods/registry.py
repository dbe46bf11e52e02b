"""A method from a trainer's label, sized by its dimension reduction."""

from collections.abc import Callable

import torch

from hessketch.errors import InputError
from hessketch.extensions import call_with, register, registered, require_takes
from hessketch.federated.methods.count_sketch import SketchedAveraging
from hessketch.federated.methods.fetch_sgd import FetchSGD
from hessketch.federated.methods.interface import Method
from hessketch.federated.methods.top_r import LocalTopR
from hessketch.federated.methods.uncompressed import Uncompressed
from hessketch.federated.settings import FederatedSettings
from hessketch.runs import number_text
from hessketch.trainers import NAMED, SGD, Trainer

ROWS = {"count_sketch": "rows", "fetch_sgd": "fetch_rows"}
"""The setting that holds the rows of a method's sketch."""
_MEMBERS = sorted(name for name in vars(Method) | Method.__annotations__ if not name.startswith("_"))


def register_method(name: str, build: Callable[..., Method]) -> None:
    """Makes a method of the user's own known by a name, wherever `count_sketch` and the like are allowed.

    `build` is called with those of dimension, reduction, error_feedback, seed and device that it takes, and returns a
    Method, best a child of `Stateless`. One that takes a reduction is trained with each of a config's reductions; one
    that takes error_feedback is also known as NAME_ef.

    Raises InputError for a name that is taken, ends in _ef or is not of lower-case letters, digits and underscores, and
    for a function that needs other arguments or takes no dimension.
    """
    allowed = ("dimension", "reduction", "error_feedback", "seed", "device")
    require_takes(f"method {name!r}", build, allowed, ["dimension"])
    if name.endswith("_ef"):
        raise InputError(f"method {name!r}: _ef at its end means error feedback; choose another name")
    register("method", name, build, (SGD, *NAMED), build)


def _least_numbers(trainer: Trainer, settings: FederatedSettings) -> int:
    """Floats' worth of upload that a method cannot do without: a column of each row, or a value with its index."""
    if trainer.method in ROWS:
        rows: int = getattr(settings, ROWS[trainer.method])
        return rows
    return 2 if trainer.method == "top_r" else 1


def require_rows(trainer: Trainer, dimension: int, settings: FederatedSettings) -> None:
    """Raises InputError if so many parameters are too few for the method at any dimension reduction."""
    least = _least_numbers(trainer, settings)
    if dimension >= least:
        return
    if trainer.method not in ROWS:
        raise InputError(
            f"{trainer.method}: {dimension} parameters given; allowed: at least {least}; choose a larger network"
        )
    key = ROWS[trainer.method]
    odd, most = (", odd", dimension - (dimension + 1) % 2) if trainer.method == "fetch_sgd" else ("", dimension)
    raise InputError(
        f"{trainer.method}: {key}: {least} given with {dimension} parameters, which leaves a row no column at any "
        f"reduction; allowed: from 1 to {most}{odd}; choose a smaller one or a larger network"
    )


def require_reduction(trainer: Trainer, dimension: int, settings: FederatedSettings) -> None:
    """Raises InputError if a network of so many parameters cannot be reduced so far by this method."""
    if trainer.method in registered("method"):
        build_method(trainer, dimension, settings, seed=0)
    else:
        size_of(trainer, dimension, settings)


def size_of(trainer: Trainer, dimension: int, settings: FederatedSettings) -> int:
    """Columns of a sketch's row, or entries r of top-r, for the trainer's dimension reduction.

    All methods of one reduction send the same number of bytes: 4 p / reduction, of which half are indices for top-r.
    Raises InputError for a reduction that is out of range, and for rows that leave none.
    """
    if trainer.reduction is None:
        return dimension
    require_rows(trainer, dimension, settings)
    most = dimension / _least_numbers(trainer, settings)
    size = int(most / trainer.reduction + 1e-9)  # a reduction has 12 digits: p / 3 is a little more or less
    if size < 1:
        raise InputError(
            f"{trainer.label}: a dimension reduction of {number_text(trainer.reduction)} with {dimension} parameters; "
            f"allowed: from 1 to {number_text(most)}; choose a smaller one or a larger network"
        )
    return size


def build_method(
    trainer: Trainer, dimension: int, settings: FederatedSettings, seed: int, device: torch.device | str = "cpu"
) -> Method:
    """The method of a trainer for networks of `dimension` parameters; `seed` is that of the hashes.

    Raises InputError for a trainer that is not federated and for a dimension reduction that is out of range.
    """
    if trainer.method in registered("method"):
        return _build_registered(trainer, dimension, seed, device)
    size = size_of(trainer, dimension, settings)
    if trainer.method == "uncompressed":
        return Uncompressed(dimension)
    if trainer.method == "count_sketch":
        return SketchedAveraging(
            dimension,
            settings.rows,
            size,
            seed,
            error_feedback=trainer.error_feedback,
            placement=settings.placement,
            fresh=settings.hashes == "fresh",
            device=device,
        )
    if trainer.method == "top_r":
        return LocalTopR(dimension, size, error_feedback=trainer.error_feedback)
    if trainer.method == "fetch_sgd":
        return FetchSGD(
            dimension,
            settings.fetch_rows,
            size,
            min(dimension, max(1, round(settings.fetch_top * size))),
            seed,
            momentum=settings.fetch_momentum,
            masking=settings.fetch_masking,
            error=settings.fetch_error,
            rate=settings.fetch_rate,
            error_feedback=trainer.error_feedback,
            placement=settings.placement,
            device=device,
        )
    raise InputError(f"{trainer.label} is no federated trainer; allowed: count_sketch-x10, uncompressed and the like")


def _build_registered(trainer: Trainer, dimension: int, seed: int, device: torch.device | str) -> Method:
    given = {"dimension": dimension, "reduction": trainer.reduction, "seed": seed, "device": device}
    method: Method = call_with(registered("method")[trainer.method], given | {"error_feedback": trainer.error_feedback})
    missing = [name for name in _MEMBERS if not hasattr(method, name)]
    if missing:
        raise InputError(
            f"method {trainer.method!r}: what its function returned has no {', '.join(missing)}; derive its class from "
            "hessketch.federated.methods.interface.Stateless, which has most"
        )
    if method.error_feedback != trainer.error_feedback and not method.server_memory:
        raise InputError(f"{trainer.label}: its error_feedback is {method.error_feedback}; set it to what is asked for")
    return method
