"""The one exception for what a user can mend: bad arguments, bad config, damaged or missing files."""


class InputError(ValueError):
    """Something given to hessketch is wrong; the message names it and says how to mend it."""


class NotFiniteError(ArithmeticError):
    """A computation met NaN or infinity; the message names the step."""
