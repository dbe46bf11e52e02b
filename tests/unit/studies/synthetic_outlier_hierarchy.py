"""Long tables of the hierarchy of the outliers, of planted spectra, as the jobs would write them."""

import numpy as np
import pandas as pd
from synthetic_tables import density_rows

CELL = ("digits", "mlp-none-w1")
CLASSES = 5
P = 300


def identity(seed=0, size=20, **changes):
    values = {
        "dataset": CELL[0],
        "label_noise": 0.0,
        "examples_per_class": size,
        "network": "mlp",
        "norm": "none",
        "width": 1.0,
        "loss": "cross_entropy",
        "trainer": "sgd",
        "learning_rate": 0.1,
        "seed": seed,
    }
    return {**values, **changes}


def keys(**run):
    row = identity(**run)
    return {**row, "split": "train", "n": CLASSES * (row["examples_per_class"] or 20), "p": P, "classes": CLASSES}


def eigenvalues_of(seed=0):
    """Of each part, descending: G's C - 1 outliers are 2 % above those of G1 and 1 % above those of G1+2."""
    outliers = np.linspace(20.0, 8.0, CLASSES - 1) * (1 + 0.05 * seed)
    cross = 0.8 / np.arange(1.0, CLASSES * (CLASSES - 1) + 1)
    within = 0.3 / np.arange(1.0, P + 1)
    return {
        "G": np.r_[1.02 * outliers, 0.9 * np.r_[cross, within[: P - len(cross) - CLASSES + 1]]][: 3 * CLASSES],
        "G0": within[:CLASSES] / 3,
        "G1": np.r_[outliers, 0.05],
        "G2": cross,
        "G1+2": np.r_[1.02 * outliers / 1.01, cross],
        "G3": within[: 3 * CLASSES],
    }


def parts_table(rows):
    frames = []
    for row in rows:
        for part, values in eigenvalues_of(row["seed"]).items():
            ranks = np.arange(1, len(values) + 1)
            frames.append(pd.DataFrame({**row, "part": part, "rank": ranks, "eigenvalue": values, "residual": 0.0}))
    return pd.concat(frames, ignore_index=True)


def means_table(rows):
    """Class c at angle c of a circle, its cross-class means around it."""
    table = []
    for row in rows:
        for true in range(CLASSES):
            for other in range(-1, CLASSES):
                angle, small = 2 * np.pi * true / CLASSES, 2 * np.pi * other / CLASSES
                x, y = np.cos(angle), np.sin(angle)
                if other >= 0:
                    x, y = x + 0.2 * np.cos(small), y + 0.2 * np.sin(small)
                places = {"pca_1": x, "pca_2": y, "tsne_1": 30 * y, "tsne_2": 20 * x}
                table.append({**row, "true_class": true, "other_class": other, "mean_norm": 1.0, **places})
    return pd.DataFrame(table)


def alignment_table(rows):
    return pd.DataFrame(
        [
            {**row, "k": k, "overlap": 0.98 - 0.1 * (k - CLASSES + 1) - 0.02 * row["seed"], "chance": CLASSES / P}
            for row in rows
            for k in (CLASSES - 1, CLASSES)
        ]
    )


def density_table(rows):
    """Of G, raw and deflated, and of the Hessian: as the full-spectrum study has them."""
    frames = []
    for row in rows:
        values = np.r_[eigenvalues_of(row["seed"])["G"], np.zeros(P - 3 * CLASSES)]
        for operator, deflated in (("ggn", False), ("ggn", True), ("hessian", False)):
            columns = {**row, "operator": operator}
            frames.append(density_rows(columns, values, np.full(P, 1 / P), deflated=deflated))
    return pd.concat(frames, ignore_index=True)


def full_runs(rows):
    """The full-spectrum study's table of runs: each at two learning rates, of which the second is not selected."""
    table = pd.DataFrame([{**row, "selected": True, "status": "finished"} for row in rows]).drop(columns="split")
    return pd.concat([table, table.assign(learning_rate=9.0, selected=False)], ignore_index=True)


def study(seeds=(0, 1), sizes=(10, 20)):
    """The three raw tables, and the full-spectrum study's density and runs."""
    rows = [keys(seed=seed, size=size) for size in sizes for seed in seeds]
    return {
        "parts": parts_table(rows),
        "means": means_table(rows),
        "alignment": alignment_table(rows),
        "density": density_table(rows),
        "runs": full_runs(rows),
    }
