"""Long tables of the study of basins, of closed form, as the jobs would write them."""

import numpy as np
import pandas as pd

CELL = ("digits-8x8", "mlp-none-w0.5")
BARRIERS = {"continued": 0.01, "same_start": 0.5, "other_start": 2.0}
TRAINERS = {
    "continued": ("sgd-b250", "sgd-b250-b10"),
    "same_start": ("sgd-b250", "sgd-b10"),
    "other_start": ("sgd-b250", "sgd-b10"),
}
CLASSES = 10


def setting(pair, seed=0, **changes):
    """Columns that a pair of networks has in both tables."""
    values = {
        "dataset": CELL[0],
        "label_noise": 0.0,
        "examples_per_class": 50,
        "network": "mlp",
        "norm": "none",
        "width": 0.5,
        "loss": "cross_entropy",
        "learning_rate": 0.1,
        "pair": pair,
        "seed": seed,
        "second_seed": seed + (pair == "other_start"),
        "first_trainer": TRAINERS[pair][0],
        "second_trainer": TRAINERS[pair][1],
        "n": 500,
        "p": 2000,
        "classes": CLASSES,
    }
    return {**values, **changes}


def barrier_of(pair, seed, path):
    """Of the line the pair's and a tenth more a seed; of the found path a tenth of that."""
    return BARRIERS[pair] * (1 + 0.1 * seed) * (1.0 if path == "line" else 0.1)


def path_rows(pair, seed, path):
    """Ends of loss 0.1 and 0.05, and a parabola of the barrier's height between; accuracy falls with the loss."""
    t = np.linspace(-1, 2, 31) if path == "line" else np.linspace(0, 1, 11)
    straight = 0.1 - 0.05 * np.clip(t, 0, 1)
    loss = straight + 4 * barrier_of(pair, seed, path) * t * (1 - t) * (np.sign(t * (1 - t)) + 0.0)
    return pd.DataFrame(
        {
            **setting(pair, seed),
            "path": path,
            "t": t,
            "train_loss": loss,
            "train_accuracy": np.exp(-loss),
            "test_loss": loss + 0.2,
            "test_accuracy": np.exp(-loss) - 0.1 + 0.02 * np.clip(t, 0, 1),
        }
    )


def barrier_row(pair, seed, path):
    height = barrier_of(pair, seed, path)
    return {
        **setting(pair, seed),
        "path": path,
        "barrier": height,
        "highest_loss": height + 0.1,
        "test_barrier": height * 1.2,
        "first_train_loss": 0.1,
        "second_train_loss": 0.05,
        "first_train_accuracy": 0.95,
        "second_train_accuracy": 0.98,
        "first_test_loss": 0.3,
        "second_test_loss": 0.25,
        "first_test_accuracy": 0.85,
        "second_test_accuracy": 0.87,
        "distance": 3.0 + seed,
        "length": (3.0 + seed) * (1.0 if path == "line" else 1.3),
        "move_in_top": 0.05 + 0.01 * seed,
        "move_chance": CLASSES / 2000,
        "same_examples": pair != "other_start",
        "path_steps": 0 if path == "line" else 100,
    }


def study(seeds=(0, 1, 2), pairs=tuple(BARRIERS)):
    """The two raw tables."""
    keys = [(pair, seed, path) for pair in pairs for seed in seeds for path in ("line", "found")]
    return {
        "paths": pd.concat([path_rows(*key) for key in keys], ignore_index=True),
        "barriers": pd.DataFrame([barrier_row(*key) for key in keys]),
    }


def record(status="finished", seed=0, trainer="sgd-b250", **changes):
    """A trained run's record."""
    row = setting("continued", seed, **changes)
    names = ("dataset", "label_noise", "examples_per_class", "network", "norm", "width", "loss")
    results = {"train_loss": 0.1, "train_accuracy": 0.95, "test_loss": 0.3, "test_accuracy": 0.85}
    return {
        "identity": {**{name: row[name] for name in names}, "trainer": trainer, "learning_rate": 0.1, "seed": seed},
        "settings": {"batch_size": 250},
        "status": status,
        "diverged_at": None if status == "finished" else "step 3",
        "epochs": 10,
        **{name: row[name] for name in ("n", "p", "classes")},
        **results,
        "wall_seconds": 1.0,
        "peak_memory_mib": 100.0,
    }
