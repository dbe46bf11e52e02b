"""When something happens in a training of so many steps (epochs or rounds), counted from 0."""


def decayed(rate: float, factor: float, step: int, steps: int) -> float:
    """A rate that is multiplied by `factor` at 1/3 and at 2/3 of the steps (Papyan 2018, section 3.1)."""
    return rate * factor ** sum(step * 3 >= steps * third for third in (1, 2))


def is_due(step: int, steps: int, times: int) -> bool:
    """Whether something done `times` times, evenly spread, is done after this step; it always is after the last."""
    return (step + 1) * times // steps > step * times // steps
