"""Claims on basins against made tables whose values are known by hand."""

import numpy as np
import pandas as pd
import pytest
from made_runs import decided, run, values

from hessketch.claims.basins import CLAIMS
from hessketch.claims.claim import NotTested

NAMED = {claim.name: claim for claim in CLAIMS}
STUDY = "basins"
SEEDS = (0, 1, 2)
SECOND = {"continued": "sgd-b250-b10", "same_start": "sgd-b10", "other_start": "sgd-b10"}


def ends(**changes):
    """Columns of the kinds of pairs, each seed."""
    row = {name: value for name, value in run(classes=10).items() if name not in ("trainer", "batch_size")}
    return [
        {**row, "seed": seed, "pair": pair, "first_trainer": "sgd-b250", "second_trainer": trainer,
         "second_seed": (seed + 1) % 3 if pair == "other_start" else seed, **changes}
        for pair, trainer in SECOND.items()
        for seed in SEEDS
    ]  # fmt: skip


def barriers(pair, path, share, gain=0.1, move=0.1, same=True, chance=0.6):
    """Barriers of `share` ln C of one kind of pair and path, of ln C of the others."""
    measured = {
        "first_test_accuracy": 0.5,
        "second_test_accuracy": 0.5 + gain,
        "move_in_top": move,
        "move_chance": chance,
    }
    rows = [
        {**row, **measured, "path": kind, "same_examples": same,
         "barrier": np.log(10) * (share if (row["pair"], kind) == (pair, path) else 1.0)}
        for row in ends()
        for kind in ("line", "found")
    ]  # fmt: skip
    return {f"{STUDY}/barriers": pd.DataFrame(rows), f"{STUDY}/runs": runs()}


def best_places(place):
    rows = [{**row, "at_highest_test_accuracy": place if row["pair"] == "continued" else 0.5} for row in ends()]
    return {f"{STUDY}/best_places": pd.DataFrame(rows), f"{STUDY}/runs": runs()}


def runs(diverged=()):
    """The runs of all pairs; (trainer, seed) of those that diverged."""
    trainers = [(name, seed) for name in ("sgd-b250", *set(SECOND.values())) for seed in SEEDS]
    return pd.DataFrame(
        [
            {**run(trainer=name, seed=seed), "status": "diverged" if (name, seed) in diverged else "finished"}
            for name, seed in trainers
        ]
    )


TABLES = {
    "no_barrier_to_continued_small_batches": (barriers("continued", "line", 0.01), barriers("continued", "line", 0.3)),
    "no_barrier_between_batch_sizes_of_one_start": (
        barriers("same_start", "line", 0.01),
        barriers("same_start", "line", 0.3),
    ),
    "a_low_path_connects_batch_sizes": (barriers("same_start", "found", 0.01), barriers("same_start", "found", 0.3)),
    "other_starts_have_a_barrier": (barriers("other_start", "line", 0.3), barriers("other_start", "line", 0.01)),
    "test_accuracy_is_best_toward_small_batches": (best_places(0.9), best_places(0.1)),
    "small_batches_test_better": (barriers("continued", "line", 0.1), barriers("continued", "line", 0.1, gain=-0.1)),
    "moves_go_through_flat_directions": (
        barriers("continued", "line", 0.1),
        barriers("continued", "line", 0.1, move=0.8),
    ),
}


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.name)
def test_each_claim_can_be_supported_and_contradicted(claim):
    good, bad = TABLES[claim.name]
    assert (decided(claim, good), decided(claim, bad)) == ("supported", "contradicted")


def test_what_is_measured_is_what_the_quantity_says():
    expected = dict(zip(TABLES, (0.01, 0.01, 0.01, 0.3, 0.9, 0.1, 0.1), strict=True))
    found = {name: values(NAMED[name], good) for name, (good, _) in TABLES.items()}
    assert found == {name: {"": pytest.approx(value)} for name, value in expected.items()}


def test_pairs_of_a_run_that_diverged_are_left_out_whichever_end_it_is():
    found = barriers("other_start", "line", 0.3) | {f"{STUDY}/runs": runs([("sgd-b10", 1), ("sgd-b250", 1)])}
    observations = NAMED["other_starts_have_a_barrier"].measure(found)
    assert observations["seed"].tolist() == [2]  # 0 goes to 1, 1 to 2, 2 to 0


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.name)
def test_runs_that_diverged_test_no_claim(claim):
    every = [(name, seed) for name in ("sgd-b250", "sgd-b10", "sgd-b250-b10") for seed in SEEDS]
    with pytest.raises(NotTested, match="diverged"):
        claim.measure(TABLES[claim.name][0] | {f"{STUDY}/runs": runs(every)})


def test_what_is_missing_is_named():
    control = NAMED["other_starts_have_a_barrier"]
    with pytest.raises(NotTested, match="same examples"):
        control.measure(barriers("other_start", "line", 0.3, same=False))
    flat = NAMED["moves_go_through_flat_directions"]
    with pytest.raises(NotTested, match=r"a random direction has C / p = 0\.002 of it there"):
        flat.measure(barriers("continued", "line", 0.1, chance=0.002))
    with pytest.raises(NotTested, match="not known"):
        flat.measure(barriers("continued", "line", 0.1, move=np.nan))
    with pytest.raises(NotTested, match="not known"):
        NAMED["moves_go_through_flat_directions"].measure(barriers("continued", "line", 0.1, move=np.nan))
    found = barriers("same_start", "line", 0.01)
    found[f"{STUDY}/barriers"] = found[f"{STUDY}/barriers"].query("path == 'line'")
    with pytest.raises(NotTested, match="'found'"):
        NAMED["a_low_path_connects_batch_sizes"].measure(found)
