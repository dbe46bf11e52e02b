"""Long tables of the study of SGD's dynamics, of closed form, as the jobs would write them."""

import numpy as np
import pandas as pd

STEPS = (0, 1, 10, 100, 1000)
OPERATORS = ("hessian", "second_moment", "gradient_covariance")
PAIRS = ((0, 1), (0, 2), (1, 2))
SCHEMES = ("fixed", "adaptive", "preconditioned")
K = 3
CELL = ("digits-8x8", "mlp-none-w0.5")


def point(step=0, seed=0, noise=0.0, batch=5, width=0.5, size=10, **changes):
    """Columns of one point; `batch` None is the full batch."""
    n = 10 * (20 if size is None else size)
    values = {
        "dataset": CELL[0],
        "label_noise": noise,
        "examples_per_class": size,
        "network": "mlp",
        "norm": "none",
        "width": width,
        "loss": "cross_entropy",
        "trainer": "sgd-full" if batch is None else f"sgd-b{batch}",
        "learning_rate": 0.1,
        "seed": seed,
        "batch_size": n if batch is None else batch,
        "step": step,
        "epoch": step / 10,
        "train_loss": 1.0,
        "train_accuracy": 0.9,
        "test_loss": 1.5,
        "test_accuracy": 0.8,
        "n": n,
        "p": int(2000 * width),
        "classes": 10,
    }
    return {**values, **changes}


def settings(noises=(0.0, 0.15, 0.5), batches=(5, 50, None), widths=(0.25, 1.0), sizes=(20, 40)):
    """Settings in a profile's order: noise x batch at the base, then other widths (x noise), then other sizes."""
    rows = [{"noise": noise, "batch": batch} for noise in noises for batch in batches]
    rows += [{"noise": noise, "batch": batches[0], "width": width} for width in widths for noise in noises]
    return rows + [{"noise": noises[0], "batch": batches[0], "size": size} for size in sizes]


def points(seeds=(0, 1), steps=STEPS, chosen=None):
    """Points of every setting that is followed: those of the base training-set size."""
    chosen = settings() if chosen is None else chosen
    followed = [one for one in chosen if "size" not in one]
    return [point(step, seed, **one) for one in followed for seed in seeds for step in steps]


def eigenvalues_table(rows):
    """Ranks 1, 2, ... of 8 / rank at first, twice as much at step 10, small at last."""
    course = dict(zip(STEPS, (8.0, 10.0, 16.0, 6.0, 0.1), strict=True))
    table = [
        {
            **row,
            "operator": operator,
            "rank": rank,
            "eigenvalue": course[row["step"]] * (1 + row["seed"]) / rank / (1 + i),
        }
        for row in rows
        for i, operator in enumerate(OPERATORS)
        for rank in range(1, K + 1)
    ]
    return pd.DataFrame(table)


def curvature_table(rows):
    """Only the Hessian has a negative eigenvalue."""
    table = [
        {
            **row,
            "operator": operator,
            "exact": True,
            "trace": 20.0,
            "trace_standard_error": 0.0,
            "largest_eigenvalue": 8.0,
            "smallest_eigenvalue": -0.5 if operator == "hessian" else 0.0,
            "negative_share": 0.1,
            "near_zero_share": 0.8,
        }
        for row in rows
        for operator in OPERATORS
    ]
    return pd.DataFrame(table)


def overlaps_table(rows):
    """Overlap 1 - k / 10 less a tenth for seed 1."""
    table = [
        {**row, **pair(a, b), "k": k, "overlap": 1 - k / 10 - 0.1 * row["seed"], "chance": k / row["p"]}
        for row in rows
        for a, b in PAIRS
        for k in range(1, K + 1)
    ]
    return pd.DataFrame(table)


def angles_table(rows):
    """Angles of 20, 40, ... degrees, as radians."""
    table = [
        {**row, **pair(a, b), "index": index, "angle": np.radians(20.0 * index)}
        for row in rows
        for a, b in PAIRS
        for index in range(1, K + 1)
    ]
    return pd.DataFrame(table)


def pair(a, b):
    return {"first": OPERATORS[a], "second": OPERATORS[b]}


def change(row, scheme="fixed", centre=-0.1, spread=0.01, low=-0.3, high=-0.01, **changes):
    """A loss change whose quantiles lie at centre + spread * (-3, -2, -1.5, -1, 0, 1, 1.5, 2, 3)."""
    levels = ("q01", "q05", "q10", "q25", "q50", "q75", "q90", "q95", "q99")
    places = (-3, -2, -1.5, -1, 0, 1, 1.5, 2, 3)
    values = {
        **row,
        "scheme": scheme,
        "step_size": 0.1,
        "samples": 100,
        "mean": centre,
        "standard_error": spread / 10,
        "standard_deviation": spread,
        **{level: centre + spread * place for level, place in zip(levels, places, strict=True)},
        "share_decreasing": 1.0 if centre < 0 else 0.4,
        "predicted_first": -0.12,
        "predicted_drift": 0.01,
        "predicted_noise": 0.01,
        "predicted_mean": centre,
        "predicted_standard_deviation": spread,
        "bound_lower": low,
        "bound_upper": high,
        "bound_probability": 0.05,
        "regime": "decreases",
        "exact": True,
    }
    return {**values, **changes}


def loss_changes_table(rows):
    """Early points decrease, from step 100 on the loss oscillates; the full batch has no spread."""
    table = []
    for row in rows:
        spread = 0.0 if row["batch_size"] == row["n"] else 0.01
        late = {"centre": 0.01, "low": -0.1, "high": 0.2, "regime": "oscillates"}
        table += [change(row, scheme, spread=spread, **(late if row["step"] >= 100 else {})) for scheme in SCHEMES]
    return pd.DataFrame(table)


def bound_rows(row, bound=0.5, test_error=0.2, **changes):
    """Two sigmas of one run, of which the second is chosen."""
    n = row["n"]
    values = {
        "effective_curvature": 10.0,
        "active": 7,
        "distance": 30.0,
        "log_term": 0.05,
        "right_hand_side": 40.0 / (2 * n) + 0.05,
        "posterior_train_error": 0.25,
        "posterior_train_error_standard_error": 0.01,
        "posterior_test_error": 0.3,
        "posterior_test_error_standard_error": 0.01,
        "bound": bound,
        "train_error": 0.1,
        "test_error": test_error,
        "diagonal": "exact",
        "confidence": 0.95,
    }
    other = {**row, "sigma": 0.1, "chosen": False, **values, "bound": 0.99}
    return [other, {**row, "sigma": 1.0, "chosen": True, **values, **changes}]


def bounds_table(chosen=None, seeds=(0, 1)):
    """Test error and bound grow with the noise, by known amounts; the bound falls with n."""
    rows = []
    for one in settings() if chosen is None else chosen:
        for seed in seeds:
            last = point(STEPS[-1], seed, **one)
            noise = last["label_noise"]
            rows += bound_rows(last, 0.4 + noise + 10 / last["n"], 0.1 + noise / 2 + 0.01 * seed)
    return pd.DataFrame(rows)


def record(status="finished", **setting):
    """A trained run's record."""
    row = point(STEPS[-1], **setting)
    names = ("dataset", "label_noise", "examples_per_class", "network", "norm", "width", "loss", "trainer")
    results = {name: row[name] for name in ("train_loss", "train_accuracy", "test_loss", "test_accuracy")}
    return {
        "identity": {name: row[name] for name in (*names, "learning_rate", "seed")},
        "settings": {"batch_size": 32},
        "status": status,
        "diverged_at": None if status == "finished" else "step 3",
        "epochs": 10,
        **{name: row[name] for name in ("n", "p", "classes")},
        **results,
        "wall_seconds": 1.0,
        "peak_memory_mib": 100.0,
    }


def study(chosen=None, seeds=(0, 1), steps=STEPS):
    """The six raw tables."""
    rows = points(seeds, steps, chosen)
    return {
        "eigenvalues": eigenvalues_table(rows),
        "curvature": curvature_table(rows),
        "overlaps": overlaps_table(rows),
        "angles": angles_table(rows),
        "loss_changes": loss_changes_table(rows),
        "bounds": bounds_table(chosen, seeds),
    }
