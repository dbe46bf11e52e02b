"""Long tables of the study of eigenspaces, of closed form, as the jobs would write them.

A network has ten parameters a unit of width 0.05: p = 200 at width 1. Overlaps are TIMES chance of any random mask, a
fifth more for the second seed; random masks like it in each layer have 1.5 times that chance, live ones 1.1 times.
"""

import numpy as np
import pandas as pd

STEPS, ROUNDS = (0, 10, 100), (0, 5)
TIMES = {0: 1.6, 10: 2.5, 100: 0.8, 5: 1.2}
RATIOS = (0.05, 0.2)
SPLITS, METHODS = ("train", "test"), ("exact", "sketched")
MASKS = {"magnitude": 1.0, "magnitude_by_layer": 0.8, "best": 1.6}
SKETCH = 0.9  # of the exact overlap
METRICS = ("geodesic", "chordal_max", "chordal", "projection_max", "projection", "fubini_study", "overlap")
LAYERS = {"0.weight": 0.5, "0.bias": 0.1, "2.weight": 0.3, "2.bias": 0.1}
CELL = ("digits-8x8", "mlp_tanh-none-w1")


def point(time=0, seed=0, width=1.0, trainer="sgd-b50", **changes):
    """Columns of one point, of a training by SGD or of a federated one."""
    federated = not trainer.startswith("sgd")
    values = {
        "dataset": CELL[0],
        "label_noise": 0.0,
        "examples_per_class": 10,
        "network": "mlp_tanh",
        "norm": "none",
        "width": width,
        "loss": "cross_entropy",
        "trainer": trainer,
        "learning_rate": 0.1,
        "seed": seed,
        "batch_size": 0 if federated else 50,
        "kind": "round" if federated else "step",
        "time": time,
        **dict.fromkeys(("train_loss", "train_accuracy", "test_loss", "test_accuracy"), np.nan if federated else 0.5),
        "n": 100,
        "p": round(200 * width),
        "classes": 10,
    }
    return {**values, **changes}


def points(seeds=(0, 1), steps=STEPS, rounds=ROUNDS, widths=(1.0, 2.0), trainers=("uncompressed", "count_sketch-x10")):
    """Points of SGD at each width and of each federated trainer at the first."""
    rows = [point(step, seed, width) for width in widths for seed in seeds for step in steps]
    return rows + [point(at, seed, trainer=one) for one in trainers for seed in seeds for at in rounds]


def ks_of(row, ks=(1, 3, 10, 20)):
    """The k that are measured at a point: a few, and those of RATIOS."""
    return sorted({*ks, *(round(ratio * row["p"]) for ratio in RATIOS)})


def methods_of(row):
    return METHODS if row["kind"] == "step" else ("sketched",)


def measured(rows):
    """Each point by split and method."""
    return [{**row, "split": split, "method": method} for row in rows for split in SPLITS for method in methods_of(row)]


def overlap_of(row, k, mask):
    trained = 0.9 if row["trainer"] == "count_sketch-x10" and row["time"] else 1.0
    times = TIMES[row["time"]] * (1 + 0.2 * row["seed"]) * MASKS[mask] * trained
    return times * k / row["p"] * (SKETCH if row["method"] == "sketched" else 1.0)


def overlaps_table(rows):
    table = []
    for row in measured(rows):
        for k in ks_of(row):
            chance = k / row["p"]
            levels = {"chance": chance, "chance_by_layer": 1.5 * chance, "chance_live": 1.1 * chance}
            levels |= {f"{level}_sd": 0.1 * chance for level in levels}
            table += [
                {**row, "mask": m, "k": k, "overlap": overlap_of(row, k, m), **levels, "live": 180} for m in MASKS
            ]
    return pd.DataFrame(table)


def layers_table(rows):
    """Mask entries sit in the second weight alone, the curvature is spread as the parameters are."""
    table = []
    for row in measured(rows):
        for k in sorted({*(round(ratio * row["p"]) for ratio in RATIOS), max(ks_of(row))}):
            for layer, share in LAYERS.items():
                inside = k if layer == "2.weight" else 0
                own = {"k": k, "layer": layer, "parameters": round(share * row["p"]), "in_mask": inside}
                table.append({**row, **own, "energy": share * k})
    return pd.DataFrame(table)


def eigenvalues_table(rows):
    """10 / rank, every third negative; sketched ones a hundredth smaller."""
    table = []
    for row in measured(rows):
        for rank in range(1, 21):
            sketched = row["method"] == "sketched"
            value = 10.0 / rank * (-1 if rank % 3 == 0 else 1) * (0.99 if sketched else 1.0)
            table.append({**row, "rank": rank, "eigenvalue": value, "residual": np.nan if sketched else 1e-9})
    return pd.DataFrame(table)


def quality_table(rows):
    """The exact decomposition takes p products and 10 s; the sketch 50 and 2 s, and leaves twice as much."""
    table = []
    for row in measured(rows):
        exact, compared = row["method"] == "exact", row["method"] == "sketched" and row["kind"] == "step"
        errors = {"eigenvalue_error": 0.01, "subspace_overlap_half": 0.99, "subspace_overlap": 0.9 - 0.1 * row["seed"]}
        table.append(
            {
                **row,
                "pairs": 20,
                "products": row["p"] if exact else 50,
                "seconds": 10.0 if exact else 2.0,
                "negative_share": 0.4 if exact else np.nan,
                "frobenius_squared": 100.0,
                "residual_squared": 5.0 if exact else 10.0,
                "residual_lower": np.nan if exact else 4.0,
                "residual_upper": np.nan if exact else 20.0,
                **(errors if compared else dict.fromkeys(errors, np.nan)),
            }
        )
    return pd.DataFrame(table)


def metrics_table(rows):
    table = []
    for row in measured(rows):
        for k in (round(ratio * row["p"]) for ratio in RATIOS):
            for i, metric in enumerate(METRICS):
                value = overlap_of(row, k, "magnitude") if metric == "overlap" else 0.1 * i
                table.append({**row, "mask": "magnitude", "k": k, "metric": metric, "similarity": value})
    return pd.DataFrame(table)


def stability_table(rows):
    """Masks: half the pairs of places between two checkpoints apart; eigenspaces: 0.9 but on the diagonal."""
    left = ("batch_size", "kind", "time", "train_loss", "train_accuracy", "test_loss", "test_accuracy")
    steps = sorted({row["time"] for row in rows if row["kind"] == "step"})
    table = []
    for row in rows:
        if row["kind"] != "step" or row["time"] != steps[0]:
            continue
        own = {name: value for name, value in row.items() if name not in left}
        for of, split in (("mask", ""), ("eigenspace", "train"), ("eigenspace", "test")):
            for ratio in RATIOS:
                for i, first in enumerate(steps):
                    for j in range(i, len(steps)):
                        value = 0.5 ** (j - i) if of == "mask" else 0.9 ** (i != j)
                        pair = {"ratio": ratio, "k": round(ratio * row["p"]), "first": first, "second": steps[j]}
                        chance = ratio / (2 - ratio) if of == "mask" else ratio
                        levels = {"similarity": value, "chance": chance, "chance_sd": 0.1 * chance}
                        table.append({**own, "of": of, "split": split, **pair, **levels})
    return pd.DataFrame(table)


def metric_study_table():
    table = []
    for pair in ("subspaces", "subspace and mask", "masks"):
        for dimension in (16, 64):
            for ratio in (0.1, 0.5, 1.0):
                for i, metric in enumerate(METRICS):
                    middle = ratio if metric == "overlap" else ratio * i / len(METRICS)
                    spread = 0.5 / dimension
                    levels = {f"q{at:02}": middle + (at - 50) / 50 * spread for at in (5, 25, 50, 75, 95)}
                    own = {"pair": pair, "dimension": dimension, "ratio": ratio, "k": round(ratio * dimension)}
                    expected = ratio if metric == "overlap" else np.nan
                    table.append({**own, "metric": metric, "samples": 50, **levels, "expected": expected})
    return pd.DataFrame(table)


def record(status="finished", **setting):
    """A trained run's record, by SGD or federated."""
    row = point(max(STEPS), **setting)
    names = ("dataset", "label_noise", "examples_per_class", "network", "norm", "width", "loss", "trainer")
    length = {"epochs": 10} if row["kind"] == "step" else {"rounds": 5}
    return {
        "identity": {name: row[name] for name in (*names, "learning_rate", "seed")},
        "settings": {"batch_size": 32},
        "status": status,
        "diverged_at": None if status == "finished" else "step 3",
        **length,
        **{name: row[name] for name in ("n", "p", "classes")},
        **dict.fromkeys(("train_loss", "train_accuracy", "test_loss", "test_accuracy"), 0.5),
        "wall_seconds": 1.0,
        "peak_memory_mib": 100.0,
    }


def study(**chosen):
    """The six raw tables; `chosen` goes to `points`."""
    rows = points(**chosen)
    return {
        "overlaps": overlaps_table(rows),
        "layers": layers_table(rows),
        "eigenvalues": eigenvalues_table(rows),
        "quality": quality_table(rows),
        "metrics": metrics_table(rows),
        "stability": stability_table(rows),
    }
