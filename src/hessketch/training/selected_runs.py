"""The runs of one group, all seeds, at the learning rate that was selected for it."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from hessketch.errors import InputError
from hessketch.runs import Run
from hessketch.training.selection import select_rate


def selected_runs(
    group: str, records: Iterable[Mapping[str, Any]], say: Callable[[str], None] = lambda text: None
) -> list[Run]:
    """The runs that finished at the rate which `select_rate` chooses, ordered by path; none if all diverged.

    `records` are those of every run of the group (`dataset/noise0/n100/network-norm-w1/loss/trainer`), each with `run`,
    `learning_rate`, `status` and `test_accuracy`. `say` is told of runs that are left out. Raises InputError for a
    record of another group.
    """
    known = {record["run"]: record for record in records}
    others = [path for path in known if not path.startswith(f"{group}/")]
    if others:
        raise InputError(f"{others[0]} is no run of the group {group}; give the records of its runs alone")
    rate, runs = select_rate(known.values()), []
    for path, record in sorted(known.items()):
        if record["learning_rate"] == rate and record["status"] == "finished":
            runs.append(Run.from_path(path))
        elif record["learning_rate"] == rate:
            say(f"{path} is left out: it diverged at the selected rate")
    if rate is None:
        say("nothing is left: every run diverged")
    return runs
