"""Choice of the initial learning rate by test accuracy, as in Papyan 2018, section 3.1."""

from collections.abc import Sequence

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
