"""What the matrix-free algorithms share: the operator they need, start vectors, float64 inner products."""

from collections.abc import Callable, Iterable
from functools import reduce
from typing import Protocol

import torch
from torch import Tensor

from hessketch.errors import InputError

ProgressCallback = Callable[[int, int], None]

# Entries turned into float64 at a time: an 8 MiB buffer, whatever the number of parameters.
_CHUNK = 2**20


class Sized(Protocol):
    """What room depends on of an operator (p, p)."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> torch.dtype: ...

    @property
    def device(self) -> torch.device: ...


class Operator(Sized, Protocol):
    """A symmetric (p, p) map known by its products; a square tensor is one."""

    def __matmul__(self, other: Tensor) -> Tensor:
        """The product with a vector (p,) or a block of columns (p, k)."""
        ...


def dimension(operator: Sized) -> int:
    """p of a (p, p) operator; raises InputError if it is not square or empty."""
    shape = tuple(operator.shape)
    if len(shape) != 2 or shape[0] != shape[1] or shape[0] < 1:
        raise InputError(f"an operator of shape {shape} has no spectrum; give a symmetric one of shape (p, p), p >= 1")
    if not operator.dtype.is_floating_point:
        raise InputError(f"an operator of {operator.dtype} is given; convert it to float32 or float64")
    return shape[0]


def require_at_least(minimum: int, **numbers: int) -> None:
    """Raises InputError for the first of the named numbers that is not an integer >= minimum."""
    for name, number in numbers.items():
        if not isinstance(number, int) or isinstance(number, bool) or number < minimum:
            raise InputError(f"{name} is {number!r}; allowed: integers from {minimum}")


def require_share(usual: float, **numbers: float) -> None:
    """Raises InputError for the first of the named numbers that is not between 0 and 1, both left out."""
    for name, number in numbers.items():
        if not 0 < number < 1:
            raise InputError(f"{name} is {number!r}; allowed: numbers between 0 and 1 ({usual} is usual)")


def no_progress(done: int, total: int) -> None:
    """The callback of who does not want to know."""


def random_vectors(operator: Operator, count: int, generator: torch.Generator) -> Tensor:
    """Independent standard normal columns (p, count) in the operator's dtype and on its device.

    Drawn on the CPU in float32, whatever the operator's dtype and device, so that a seed starts runs in any
    precision and on any device with the same vectors.
    """
    if generator.device.type != "cpu":
        raise InputError(f"the generator lives on {generator.device}; give torch.Generator() (on the CPU)")
    columns = torch.randn(count, dimension(operator), generator=generator, dtype=torch.float32)
    return columns.to(device=operator.device, dtype=operator.dtype).T


def random_unit_vector(operator: Operator, generator: torch.Generator) -> Tensor:
    """A direction (p,) drawn uniformly from the sphere; see `random_vectors`."""
    vector = random_vectors(operator, 1, generator)[:, 0].contiguous()
    return vector / norm(vector)


def dot(a: Tensor, b: Tensor) -> Tensor:
    """Inner product of two vectors (p,), accumulated in float64; a 0-dimensional float64 tensor on their device."""
    if len(a) <= _CHUNK:
        return torch.dot(a.double(), b.double())
    pairs = zip(a.split(_CHUNK), b.split(_CHUNK), strict=True)
    return torch.stack([torch.dot(x.double(), y.double()) for x, y in pairs]).sum()


def norm(a: Tensor) -> Tensor:
    """Euclidean norm of a vector (p,), accumulated in float64; a 0-dimensional float64 tensor on its device."""
    return dot(a, a).sqrt()


def summed(parts: Iterable[Tensor]) -> Tensor:
    """The sum of one or more tensors of one shape, from the first to the last."""
    return reduce(torch.add, parts)


def column_dots(a: Tensor, b: Tensor) -> Tensor:
    """Inner products (k,) of the columns of two blocks (p, k), accumulated in float64."""
    return torch.stack([dot(x, y) for x, y in zip(a.T, b.T, strict=True)])
