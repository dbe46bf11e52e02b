"""Long tables of federated trainings with known accuracies, losses and curvature, as the pipeline would write them."""

import numpy as np
import pandas as pd

P = 6400
ROUNDS = 40
CLIENTS = 20
IDENTITY = {
    "dataset": "digits",
    "label_noise": 0.0,
    "examples_per_class": 100,
    "network": "mlp",
    "norm": "none",
    "width": 1.0,
    "loss": "cross_entropy",
}
NAMED = (
    ("uncompressed", False),
    ("count_sketch", False),
    ("count_sketch", True),
    ("top_r", False),
    ("top_r", True),
    ("fetch_sgd", False),
    ("fetch_sgd", True),
)
REDUCTIONS = (2.5, 10.0, 100.0, 1000.0)
RATES = (0.3, 0.1, 0.03)
PENALTY = {"uncompressed": 0.0, "count_sketch": 0.03, "top_r": 0.05, "fetch_sgd": 0.06}


def trainer_columns(method, error_feedback=False, reduction=np.nan):
    """The columns trainer, method, error_feedback and reduction of one trainer."""
    label = method + ("_ef" if error_feedback else "")
    label += "" if np.isnan(reduction) else f"-x{reduction:.12g}"
    return {"trainer": label, "method": method, "error_feedback": error_feedback, "reduction": reduction}


def trainers(reductions=REDUCTIONS, named=NAMED):
    """Trainer columns of every method, with and without error feedback, at every reduction."""
    return [
        trainer_columns(method, error_feedback, reduction)
        for method, error_feedback in named
        for reduction in ((np.nan,) if method == "uncompressed" else reductions)
    ]


def accuracy(trainer, rate, seed):
    """Known test accuracy: falls with log reduction and with the distance of the rate from 0.1; seeds are 1 % apart."""
    lost = PENALTY[trainer["method"]] * np.log10(np.nan_to_num(trainer["reduction"], nan=1.0))
    lost *= 0.5 if trainer["error_feedback"] else 1.0
    return float(0.9 - lost - 0.2 * abs(np.log10(rate / 0.1)) + 0.01 * seed)


def run_row(trainer, rate=0.1, seed=0, status="finished", test_accuracy=None, **identity):
    """One row of the runs table; without `selected`."""
    compressed = trainer["method"] != "uncompressed"
    upload_bytes = 4 * P / trainer["reduction"] if compressed else 4.0 * P
    numbers = upload_bytes / (8 if trainer["method"] == "top_r" else 4)
    finished = status == "finished"
    value = accuracy(trainer, rate, seed) if test_accuracy is None else test_accuracy
    return {
        **IDENTITY,
        **identity,
        **trainer,
        "learning_rate": rate,
        "seed": seed,
        "status": status,
        "diverged_at": None if finished else "round 7",
        "rounds": ROUNDS if finished else 6,
        "n": 800,
        "p": P,
        "classes": 10,
        "clients": CLIENTS,
        "upload_numbers": int(numbers),
        "upload_bytes": int(upload_bytes),
        "download_bytes": upload_bytes * (CLIENTS / 2 if trainer["method"] == "top_r" else 1),
        "reduction_numbers": P / int(numbers),
        "reduction_bytes": 4 * P / int(upload_bytes),
        "train_loss": 0.1 if finished else np.nan,
        "train_accuracy": value + 0.05 if finished else np.nan,
        "test_loss": 0.5 if finished else np.nan,
        "test_accuracy": value if finished else np.nan,
        "wall_seconds": 2.0,
        "peak_memory_mib": 300.0,
    }


def diverges(trainer, rate, seed):
    """Count-Sketch with error feedback at reduction 1000 always; without, there at the largest rate, seed 0 alone."""
    if trainer["method"] != "count_sketch" or trainer["reduction"] != 1000.0:
        return False
    return trainer["error_feedback"] or (rate == RATES[0] and seed == 0)


def runs_table(seeds=(0, 1, 2), reductions=REDUCTIONS, named=NAMED, rates=RATES, **identity):
    """Runs at every rate; without `selected`."""
    rows = [
        run_row(trainer, rate, seed, "diverged" if diverges(trainer, rate, seed) else "finished", **identity)
        for trainer in trainers(reductions, named)
        for rate in rates
        for seed in seeds
    ]
    return pd.DataFrame(rows)


def rounds_table(runs):
    """The rounds of selected runs: losses and lift errors of closed form, test accuracy every fifth round."""
    frames = [_rounds(run) for run in runs[runs["selected"]].to_dict("records")]
    return pd.concat(frames, ignore_index=True)


def _rounds(run):
    count = run["rounds"]
    t = np.arange(1, count + 1)
    reduction = np.nan_to_num(run["reduction"], nan=1.0)
    slower = 40 * PENALTY[run["method"]] * (0.6 if run["error_feedback"] else 1.0)
    noise = (P - 1) * reduction / P
    sketched = noise / (1 + noise) if run["error_feedback"] else noise
    theory = {"count_sketch": sketched, "uncompressed": 0.0, "top_r": 1 - 0.5 / reduction}.get(run["method"], np.nan)
    measured = {"count_sketch": theory * (1 + 0.2 * np.sin(t)), "uncompressed": 0.0 * t}
    accuracy = 0.1 + (np.nan_to_num(run["test_accuracy"], nan=0.1) - 0.1) * (1 - np.exp(-t / 8))
    evaluated = (t % 5 == 0) | (t == count)
    keys = {k: run[k] for k in (*IDENTITY, "trainer", "method", "error_feedback", "reduction", "learning_rate", "seed")}
    return pd.DataFrame(
        {
            **keys,
            "round": t,
            "server_rate": 1.0,
            "train_loss": 2.3 * np.exp(-t / (6 + slower * np.log10(reduction))) + 0.01 * (1 + run["seed"]),
            "train_accuracy": accuracy,
            "test_loss": np.where(evaluated, 1.0, np.nan),
            "test_accuracy": np.where(evaluated, accuracy, np.nan),
            "update_norm": 2.0 / t,
            "lift_error": measured.get(run["method"], (1 - 1 / reduction) * (0.4 + slower / 4 + 0.1 * np.sin(t))),
            "lift_error_theory": theory,
            "error_norm": slower * np.log10(reduction) * (1 - 1 / t) if run["error_feedback"] else 0.0,
            "upload_bytes": float(run["upload_bytes"]),
            "download_bytes": run["download_bytes"],
            "participants": CLIENTS,
            "seconds": 0.05,
        }
    )


def checkpoint(trainer, split="train", seed=0, kind="round", round=10, target_loss=np.nan, **values):
    """One row of the curvature table; `values` overrides columns."""
    row = {
        **IDENTITY,
        **trainer,
        "learning_rate": 0.1,
        "seed": seed,
        "kind": kind,
        "round": round,
        "train_loss": 0.5,
        "target_loss": target_loss,
        "split": split,
        "operator": "hessian",
        "n": 800 if split == "train" else 200,
        "p": P,
        "classes": 10,
        "largest_eigenvalue": 20.0,
        "largest_magnitude": 20.0,
        "trace": 150.0,
        "trace_standard_error": 3.0,
        "frobenius_squared": 900.0,
        "frobenius_squared_standard_error": 9.0,
        "absolute_sum": 200.0,
        "absolute_sum_standard_error": 5.0,
        "kappa": 10.0,
        "kappa_standard_error": 0.25,
        "gradient_norm_squared": 0.3 if split == "train" else np.nan,
    }
    return {**row, **values}


COMPARED = (
    trainer_columns("uncompressed"),
    trainer_columns("count_sketch", False, 10.0),
    trainer_columns("count_sketch", False, 100.0),
    trainer_columns("top_r", True, 100.0),
)


def curvature_table(seeds=(0, 1, 2), compared=COMPARED, targets=(1.0, 0.5), rounds=(0, 5, 10, 20, 40)):
    """Checkpoints over rounds and at equal losses; the last trainer never reaches the lowest target."""
    rows = []
    for i, trainer in enumerate(compared):
        for seed in seeds:
            for split in ("train", "test"):
                for round in rounds:
                    scale = (1 + 0.1 * seed) * (1 + 0.3 * i) * (1.0 if split == "train" else 1.7)
                    largest, total = scale * (5 + round / 2), scale * (200 - 2 * round)
                    values = {"largest_eigenvalue": largest, "largest_magnitude": largest, "trace": 0.8 * total}
                    values |= {"absolute_sum": total, "kappa": total / largest, "train_loss": 2.3 * np.exp(-round / 10)}
                    rows.append(checkpoint(trainer, split, seed, "round", round, **values))
                for target in targets[: len(targets) - (i == len(compared) - 1)]:
                    values = {"target_loss": target, "train_loss": 0.98 * target, "kind": "loss"}
                    rows.append(checkpoint(trainer, split, seed, **values, round=12 + i))
    return pd.DataFrame(rows)


def equal_loss_spectra(equal, points=301):
    """Tables density and eigenvalues of checkpoints: a peak at zero and three outliers at 10, 20 and 30 times scale."""
    densities, eigenvalues = [], []
    for i, row in enumerate(equal.to_dict("records")):
        keys = {k: v for k, v in row.items() if k not in _MEASURED}
        leading = np.array([30.0, 20.0, 10.0]) * (1 + 0.15 * (i // 2)) * (1 if row["split"] == "train" else 1.6)
        grid = np.linspace(-3.0, 1.1 * leading[0], points)
        width = (grid[-1] - grid[0]) / 150
        centres, weights = np.append(leading, 0.0), np.append(np.full(3, 1 / P), 1 - 3 / P)
        kernel = np.exp(-0.5 * ((grid[:, None] - centres) / width) ** 2) / (width * np.sqrt(2 * np.pi))
        curve = {"eigenvalue": grid, "density": kernel @ weights, "density_standard_error": 0.1 * (kernel @ weights)}
        for deflated in (False, True):
            densities.append(
                pd.DataFrame({**keys, "estimator": "lanczos", "deflated": deflated, **curve, "broadening": width})
            )
        ranks = {"rank": [1, 2, 3], "eigenvalue": leading, "residual_norm": 1e-6, "column_norm": leading}
        eigenvalues.append(pd.DataFrame({**keys, **ranks}))
    return pd.concat(densities, ignore_index=True), pd.concat(eigenvalues, ignore_index=True)


_MEASURED = [
    *(f"{name}{end}" for name in ("trace", "frobenius_squared", "absolute_sum", "kappa")
      for end in ("", "_standard_error")),
    "largest_eigenvalue", "largest_magnitude", "gradient_norm_squared",
]  # fmt: skip
