"""Long tables of the study of over-parametrized networks, of planted spectra, as the jobs would write them."""

import numpy as np
import pandas as pd

OPERATORS = ("hessian", "ggn", "output_gradients")
STEPS = (0, 10, 100)
DATASET = "clusters-k4-d10-s3"
LABELS = ("mlp-none-w0.25", "mlp-none-w0.5", "mlp-none-w1")


def point(step=100, seed=0, width=0.5, classes=4, separation=3, **changes):
    """Columns of one point; 400 width parameters and 10 examples a class."""
    values = {
        "dataset": f"clusters-k{classes}-d10-s{separation}",
        "label_noise": 0.0,
        "examples_per_class": 10,
        "network": "mlp",
        "norm": "none",
        "width": width,
        "loss": "cross_entropy",
        "trainer": "sgd-b5",
        "learning_rate": 0.1,
        "seed": seed,
        "batch_size": 5,
        "kind": "step",
        "time": step,
        "train_loss": 1.0 / (1 + step),
        "train_accuracy": 0.9,
        "test_loss": 1.5,
        "test_accuracy": 0.8,
        "n": 10 * classes,
        "p": int(400 * width),
        "classes": classes,
    }
    return {**values, **changes}


def spectrum(row, operator="hessian"):
    """All p eigenvalues: C outliers from 10 to 20 over a bulk of 0.2 / rank, a tenth of it negative (Hessian alone).

    At step 0 the outliers are a fifth of that and half of the bulk is negative. Half of the bulk is near zero.
    """
    p, classes = row["p"], row["classes"]
    outliers = np.linspace(20.0, 10.0, classes) * (0.2 if row["time"] == 0 else 1.0) * (1 + 0.1 * row["seed"])
    bulk = 0.2 / np.arange(1.0, p - classes + 1)
    bulk[len(bulk) // 2 :] *= 1e-3
    if operator == "hessian":
        share = 2 if row["time"] == 0 else 10
        bulk[::share] *= -1
    scale = {"hessian": 1.0, "ggn": 0.98, "output_gradients": 4.0}[operator]
    return scale * np.sort(np.r_[outliers, bulk])[::-1]


def spectra_table(rows, operators=OPERATORS):
    frames = []
    for row in rows:
        for operator in operators:
            values = spectrum(row, operator)
            ranks = np.arange(1, len(values) + 1)
            frames.append(pd.DataFrame({**row, "operator": operator, "rank": ranks, "eigenvalue": values}))
    return pd.concat(frames, ignore_index=True)


def alignments_table(rows, top=None):
    """Overlap 1 - k / 100 of the GGN, a tenth less of the output gradients."""
    return pd.DataFrame(
        [
            {**row, "operator": operator, "k": k, "overlap": 1 - k / 100 - 0.1 * i, "chance": k / row["p"]}
            for row in rows
            for i, operator in enumerate(OPERATORS[1:])
            for k in range(1, (top or row["classes"] + 1) + 1)
        ]
    )


def settings():
    """Three widths of one data set; then, at one width, other numbers of clusters and other separations."""
    rows = [{"width": width} for width in (0.25, 0.5, 1.0)]
    rows += [{"classes": classes} for classes in (2, 8)]
    return rows + [{"separation": separation} for separation in (1.5, 6)]


def points(seeds=(0, 1), steps=STEPS, chosen=None):
    return [
        point(step, seed, **one)
        for one in (settings() if chosen is None else chosen)
        for seed in seeds
        for step in steps
    ]


def study(chosen=None, seeds=(0, 1), steps=STEPS):
    """The two raw tables."""
    rows = points(seeds, steps, chosen)
    return {"spectra": spectra_table(rows), "alignments": alignments_table(rows)}


def record(status="finished", **setting):
    """A trained run's record."""
    row = point(**setting)
    names = ("dataset", "label_noise", "examples_per_class", "network", "norm", "width", "loss", "trainer")
    return {
        "identity": {name: row[name] for name in (*names, "learning_rate", "seed")},
        "settings": {"batch_size": 5},
        "status": status,
        "diverged_at": None if status == "finished" else "step 3",
        "epochs": 10,
        **{name: row[name] for name in ("n", "p", "classes")},
        **{name: row[name] for name in ("train_loss", "train_accuracy", "test_loss", "test_accuracy")},
        "wall_seconds": 1.0,
        "peak_memory_mib": 100.0,
    }
