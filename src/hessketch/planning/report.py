"""A plan as text."""

from collections.abc import Sequence

from hessketch.planning.costs import Costs, StageCost
from hessketch.planning.measured import Compared
from hessketch.progress import readable_time

_PREFIXES = ("", "k", "M", "G", "T", "P", "E", "Z")
_HEADER = (
    "stage", "jobs", "SGD steps", "products", "gradients", "operations", "memory", "time", "longest job", "n x 2",
    "width x 2",
)  # fmt: skip


def counted(number: float) -> str:
    """'950', '1.2 k', '34 M': two digits."""
    power = 0
    while number >= 999.5 and power < len(_PREFIXES) - 1:
        number, power = number / 1000, power + 1
    return f"{number:.2g} {_PREFIXES[power]}".strip() if number < 99.5 else f"{number:.0f} {_PREFIXES[power]}".strip()


def lasting(seconds: float) -> str:
    """'48 s', '3 min 20 s', '5 h 12 min', '1234 h'."""
    return readable_time(seconds) if seconds < 100 * 3600 else f"{seconds / 3600:,.0f} h"


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def _row(one: StageCost) -> list[str]:
    numbers = (one.jobs, one.steps, one.products, one.gradients, one.operations)
    return [
        one.stage,
        *(counted(number) if number else "" for number in numbers),
        f"{one.memory / 2**30:.1f} GiB",
        lasting(one.seconds),
        lasting(one.longest),
        f"{one.with_examples:.1f}",
        f"{one.with_width:.1f}",
    ]


def report(costs: Costs) -> str:
    """The table of the stages, and what it means."""
    table = _aligned([_HEADER, *map(_row, costs.stages), _row(costs.total)])
    of_cores = f"{costs.cores} jobs" if costs.cores > 1 else "one job"
    return (
        f"Profile {costs.profile} on {costs.device} ({costs.said})\n\n{table}\n\n"
        f"In all {lasting(costs.total.seconds)} of the device, the longest job {lasting(costs.total.longest)}; with "
        f"{of_cores} at a time {lasting(costs.wall)}.\n"
        "products: of an operator with a vector, and rows of matrices; gradients: of single examples; memory: of the\n"
        "largest job; n x 2, width x 2: how many times the time is when all numbers of examples are doubled, and when\n"
        "every hidden layer is twice as wide (about 4 times the parameters p). Runs that diverge, and losses never\n"
        "reached, take less; where convergence decides, products are what trained networks have taken."
    )


def comparison(compared: Sequence[Compared], device: str) -> str:
    """What jobs were planned to take and took, by stage."""
    header = (
        "stage",
        "jobs measured",
        "planned",
        "measured",
        "planned / measured",
        "memory planned",
        "memory measured",
    )
    rows = [
        [
            one.stage,
            str(one.jobs),
            f"{one.planned:.1f} s",
            f"{one.measured:.1f} s",
            f"{one.ratio:.2f}",
            f"{one.planned_memory / 2**20:.0f} MiB",
            f"{one.measured_memory / 2**20:.0f} MiB",
        ]
        for one in compared
    ]
    return f"Planned for {device}, and measured (CPU time)\n\n{_aligned([header, *rows])}"
