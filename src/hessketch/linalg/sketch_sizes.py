"""Names and sizes of a sketched eigendecomposition, for all that speak of one; imports nothing."""

METHODS = ("fast", "paper")
MEASUREMENTS = ("gaussian", "trigonometric", "count_sketch")
_MORE = 10  # than twice the pairs


def default_measurements(pairs: int) -> int:
    """Products that so many pairs are taken from where nothing else is said: twice as many and 10 more."""
    return 2 * pairs + _MORE


def default_pairs(measurements: int) -> int:
    """Pairs that so many products are the default of, at least 1."""
    return max(1, (measurements - _MORE) // 2)


def least_measurements(pairs: int, method: str) -> int:
    """The fewest products that a method takes so many pairs from."""
    return 2 * pairs if method == "paper" else pairs
