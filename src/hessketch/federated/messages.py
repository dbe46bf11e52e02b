"""What clients and server send each other, as bytes, and how many they are.

A message holds arrays of numbers. Everything is little-endian: 1 byte, how many arrays; of each array 1 byte, its kind,
and 8 bytes, how many numbers it has; then the numbers of all arrays one after the other. Shapes are not sent.
"""

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hessketch.errors import InputError, nearest

# A kind's place in this tuple is its code in a message: new kinds go to the end.
DTYPES = ("float32", "int32", "int64", "uint8", "float16", "float64", "int8", "int16")
_ITEM_BYTES = {name: np.dtype(name).itemsize for name in DTYPES}
_ARRAYS = struct.Struct("<B")
_HEADER = struct.Struct("<BQ")
_MOST_ARRAYS = 255


@dataclass(frozen=True)
class Part:
    """One array of a message: the kind of its numbers, one of DTYPES, and how many there are.

    Raises InputError for an unknown kind and for a negative count.
    """

    dtype: str
    count: int

    def __post_init__(self) -> None:
        if self.dtype not in _ITEM_BYTES:
            known = ", ".join(DTYPES)
            raise InputError(f"{self.dtype} numbers cannot be sent; allowed: {known}{nearest(self.dtype, DTYPES)}")
        if self.count < 0:
            raise InputError(f"an array of {self.count} numbers; allowed: 0 or more")


def parts_of(tensors: Iterable[Tensor]) -> tuple[Part, ...]:
    """Kind and size of each tensor; raises InputError for a dtype that is not in DTYPES."""
    return tuple(Part(str(tensor.dtype).removeprefix("torch."), tensor.numel()) for tensor in tensors)


def size_in_bytes(parts: Iterable[Part]) -> int:
    """Length of the message that `serialise` makes of such arrays, headers included.

    Raises InputError for more than 255 arrays.
    """
    parts = tuple(parts)
    _require_few(len(parts))
    return _ARRAYS.size + sum(_HEADER.size + part.count * _ITEM_BYTES[part.dtype] for part in parts)


def serialise(tensors: Sequence[Tensor]) -> bytes:
    """The message of some tensors of any shape, on any device; each is flattened in row order.

    Raises InputError for more than 255 tensors and for a dtype that is not in DTYPES.
    """
    parts = parts_of(tensors)
    _require_few(len(parts))
    headers = [_HEADER.pack(DTYPES.index(part.dtype), part.count) for part in parts]
    numbers = [
        tensor.numpy(force=True).astype(_sent(part.dtype), copy=False).tobytes()
        for tensor, part in zip(tensors, parts, strict=True)
    ]
    return b"".join([_ARRAYS.pack(len(parts)), *headers, *numbers])


def deserialise(data: bytes) -> list[Tensor]:
    """The tensors (count,) of a message, on the CPU, equal to the last bit to what was sent.

    Raises InputError for bytes that are no message: cut, too long, or with headers that do not fit them. There is no
    checksum: a number that was altered on its way is not noticed.
    """
    parts = _read_headers(data)
    place, tensors = _ARRAYS.size + _HEADER.size * len(parts), []
    for part in parts:
        numbers = np.frombuffer(data, _sent(part.dtype), part.count, place)
        tensors.append(torch.from_numpy(numbers.astype(part.dtype)))
        place += numbers.nbytes
    return tensors


def _sent(dtype: str) -> np.dtype:
    return np.dtype(dtype).newbyteorder("<")


def _require_few(arrays: int) -> None:
    if arrays > _MOST_ARRAYS:
        raise InputError(f"a message of {arrays} arrays; allowed: at most {_MOST_ARRAYS}; join some")


def _read_headers(data: bytes) -> list[Part]:
    """What a message says that it holds, once that agrees with its length."""
    if not data:
        raise InputError("the message is cut: it has no bytes; send it again")
    headers = _ARRAYS.size + _HEADER.size * data[0]
    if len(data) < headers:
        raise InputError(f"the message is cut: {len(data)} bytes, its headers alone have {headers}; send it again")
    parts = []
    for code, count in _HEADER.iter_unpack(data[_ARRAYS.size : headers]):
        if code >= len(DTYPES):
            raise InputError(f"the message is damaged: {code} is no kind of numbers; send it again")
        parts.append(Part(DTYPES[code], count))
    if (expected := size_in_bytes(parts)) != len(data):
        raise InputError(f"the message is cut or damaged: {len(data)} bytes, {expected} expected; send it again")
    return parts
