"""Choice of the initial learning rate by test accuracy, as in Papyan 2018, section 3.1."""

from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any

from hessketch.errors import InputError


def select_best(records: Sequence[dict]) -> dict:
    """The record with the highest test accuracy; equal ones are decided for the smaller rate.

    Each record has `learning_rate`, `status` and `test_accuracy`. Diverged runs are never selected; raises
    InputError naming every rate and where it diverged if none is left.
    """
    finished = [record for record in records if record["status"] == "finished"]
    if not finished:
        tried = ", ".join(f"{r['learning_rate']:g} ({r.get('diverged_at')})" for r in records)
        raise InputError(f"every learning rate diverged: {tried}; add smaller values to learning_rates")
    return min(finished, key=lambda record: (-record["test_accuracy"], record["learning_rate"]))


def select_rate(records: Iterable[Mapping[str, Any]]) -> float | None:
    """The learning rate with the highest test accuracy averaged over seeds; equal ones are decided for the smaller.

    Each record has `learning_rate`, `status` and `test_accuracy` and is one seed at one rate. A rate at which a seed
    diverged counts, by its other seeds, only if no rate is free of divergence; None if every run diverged.
    """
    accuracies: dict[float, list[float]] = {}
    diverged = set()
    for record in records:
        if record["status"] == "finished":
            accuracies.setdefault(record["learning_rate"], []).append(record["test_accuracy"])
        else:
            diverged.add(record["learning_rate"])
    candidates = [rate for rate in accuracies if rate not in diverged] or list(accuracies)
    return min(candidates, key=lambda rate: (-fmean(accuracies[rate]), rate), default=None)
