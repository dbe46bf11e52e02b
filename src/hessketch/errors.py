"""Errors that a user can mend, such as bad arguments, bad config, damaged or missing files, and how to word them."""

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Something given to hessketch is wrong; the message names it and says how to mend it."""


class NotFiniteError(ArithmeticError):
    """A computation met NaN or infinity; the message names the step."""


class DiskFullError(OSError):
    """There is no room to write a file; the message names it and says what to do."""


def nearest(name: object, allowed: Iterable[object], cutoff: float = 0.5) -> str:
    """'; nearest valid name: x' for an error's end where a valid name is close to the given one, else nothing."""
    close = difflib.get_close_matches(str(name), [str(a) for a in allowed], n=1, cutoff=cutoff)
    return f"; nearest valid name: {close[0]}" if close else ""
