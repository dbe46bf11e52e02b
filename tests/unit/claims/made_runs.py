"""Rows of made runs, and what becomes of a claim by them."""

import pandas as pd

from hessketch.claims.verdicts import verdict
from hessketch.runs import IDENTITY

SEEDS = (0, 1)


def run(**changes):
    """Columns of a run's row: 500 examples of two classes, 100 parameters, batches of 50."""
    values = {
        "dataset": "digits-8x8",
        "label_noise": 0.0,
        "examples_per_class": 250,
        "network": "mlp",
        "norm": "none",
        "width": 0.5,
        "loss": "cross_entropy",
        "trainer": "sgd-b50",
        "learning_rate": 0.1,
        "seed": 0,
        "batch_size": 50,
        "n": 500,
        "p": 100,
        "classes": 2,
    }
    return {**values, **changes}


def of_seeds(rows):
    """A table of the rows once for each seed."""
    return pd.DataFrame([{**row, "seed": seed} for seed in SEEDS for row in rows])


def tables(study, diverged=(), **named):
    """What a measure gets: the tables and `runs`, of which those at the places `diverged` diverged."""
    found = {f"{study}/{name}": frame for name, frame in named.items()}
    known = pd.concat([frame for frame in named.values() if "trainer" in frame])
    runs = known[list(IDENTITY)].drop_duplicates(ignore_index=True)
    runs["status"] = ["diverged" if place in diverged else "finished" for place in range(len(runs))]
    return {**found, f"{study}/runs": runs}


def values(claim, found):
    """Case in words to the mean over seeds of what a claim's measure makes of tables."""
    return claim.measure(found).groupby("case")["value"].mean().to_dict()


def decided(claim, found):
    """The verdict on a claim by tables."""
    return verdict(claim, claim.measure({name: found[name] for name in claim.tables}))["verdict"]
