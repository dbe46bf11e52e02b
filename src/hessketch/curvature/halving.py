"""What is done when a device runs out of memory: fewer examples at once, to the same result up to rounding.

Torch's allocators raise when they are asked, on CUDA too, so the work that failed can be named and repeated: nothing
is waited for, and where memory suffices a `try` costs nothing.
"""

import gc
from collections.abc import Callable, Iterator
from typing import NoReturn, TypeVar

import torch
from torch import Tensor

from hessketch.errors import InputError
from hessketch.progress import note

Result = TypeVar("Result")

_WORDS = (
    "can't allocate memory",  # torch's allocator on the host
    "out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "could not create a primitive",  # all that oneDNN says; the error at the end repeats it
)
_SAID = 120  # characters of the library's own words in an error
KEEP_LESS = (
    "keep less between products (spectrum.memory_gib, --memory-gib), or take a narrower network or a device with more "
    "memory"
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether torch, or Python itself, failed for want of memory, on a GPU or on the host."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _WORDS)


def out_of_memory(error: BaseException) -> BaseException:
    """The error itself, which no longer holds what its frames hold; raised again where it is of another kind."""
    if not is_out_of_memory(error):
        raise error
    link: BaseException | None = error
    while link is not None:
        link.__traceback__, link = None, link.__context__
    return error


def release_memory() -> None:
    """Gives back to the device what nothing refers to any more; call it once the failure's `except` is left."""
    gc.collect()
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


class BatchLimit:
    """How many examples are computed at once: as many as asked for, and half as many each time they do not fit.

    `what` is how the log names them, with {} for their number. `remedy` is what a user can do when one alone does not
    fit, `whole` why they cannot be divided, if so. What did not fit once is not tried again.
    """

    def __init__(self, what: str = "batches of {} examples", remedy: str = KEEP_LESS, whole: str | None = None):
        self._what, self._remedy, self._whole = what, remedy, whole
        self.most: int | None = None  # None: whatever was asked for has fitted

    def of(self, count: int) -> int:
        """How many of `count` are computed at once."""
        return count if self.most is None else min(count, self.most)

    def run(self, work: Callable[[int], Result], count: int) -> Result:
        """work(count), or work of as many at once as fit: called anew, so a failed call must leave nothing behind.

        Raises InputError with the remedy where nothing is left to halve; other errors of the work pass.
        """
        while True:
            size = self.of(count)
            try:
                return work(size)
            except (RuntimeError, MemoryError) as error:
                failure = out_of_memory(error)
            self.halve(size, failure)

    def parts(self, work: Callable[[slice], Result], count: int, size: int) -> Iterator[tuple[slice, Result]]:
        """work(part) of one slice of range(count) after the other, of at most `size` each and of as many as fit."""
        start = 0

        def of_size(most: int) -> tuple[slice, Result]:
            part = slice(start, start + most)
            return part, work(part)

        while start < count:
            part, result = self.run(of_size, min(size, count - start))
            yield part, result
            del result  # before the next is made
            start = part.stop

    def of_batch(self, work: Callable[..., Result], *batch: Tensor) -> Iterator[Result]:
        """work(*batch), or of one part of it after the other where it does not fit."""
        count = len(batch[0])
        return (result for _, result in self.parts(lambda part: work(*(t[part] for t in batch)), count, count))

    def halve(self, size: int, failure: BaseException) -> None:
        """What follows a failure with so many at once: the limit, a line in the log, memory given back."""
        if size <= 1 or self._whole is not None:
            self.refuse(size, failure)
        self.most = (size + 1) // 2
        note(f"out of memory with {self._what.format(size)}: halved to {self.most}")
        release_memory()

    def refuse(
        self, size: int, failure: BaseException | None, whole: str | None = None, remedy: str | None = None
    ) -> NoReturn:
        """Raises the InputError that says why nothing is left to halve, the remedy, and what the library said."""
        reason = whole or self._whole or "nothing is left to halve"
        said = "" if failure is None or not str(failure) else f" ({str(failure).splitlines()[0][:_SAID]})"
        raise InputError(
            f"out of memory with {self._what.format(size)}; {reason}: {remedy or self._remedy}{said}"
        ) from failure
