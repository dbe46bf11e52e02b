"""Tables of the sketching study and of the predictor Hessians', of trainings whose numbers are known."""

import numpy as np
import pandas as pd
from made_spectra import RUN

MLP = {**RUN, "network": "mlp", "norm": "none", "n": 5000, "p": 16_842, "classes": 10}
_REDUCTIONS = (10.0, 100.0, 1000.0)


def runs(accuracy, seeds: int = 3, reductions=_REDUCTIONS, **others) -> pd.DataFrame:
    """Selected runs of all methods; `accuracy(method, error_feedback, reduction)` is that of every seed."""
    methods = [("uncompressed", False, np.nan)]
    methods += [(method, feedback, reduction) for method in ("count_sketch", "top_r", "fetch_sgd")
                for feedback in (False, True) for reduction in reductions]  # fmt: skip
    rows = [
        {**MLP, "trainer": f"{method}{'_ef' * feedback}-x{reduction:g}", "method": method, "error_feedback": feedback,
         "reduction": reduction, "seed": seed, "status": "finished", "selected": True,
         "test_accuracy": accuracy(method, feedback, reduction), "upload_numbers": 100, **others}
        for method, feedback, reduction in methods for seed in range(seeds)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def good(method: str, feedback: bool, reduction: float) -> float:
    """As the paper says: all alike, but for Top-r and FetchSGD without error feedback."""
    lost = 0.1 * np.log10(reduction) if method in ("top_r", "fetch_sgd") and not feedback else 0.0
    return 0.8 - lost


def bad(method: str, feedback: bool, reduction: float) -> float:
    """Its opposite: Count-Sketch fails without error feedback, which harms the others, the more the less is sent."""
    if method == "count_sketch":
        return 0.7 if feedback else 0.3
    return 0.8 - (0.1 * np.log10(reduction) if feedback else 0.0)


def rounds(of: pd.DataFrame, lift: float = 1.0, losses=None) -> pd.DataFrame:
    """Two rounds of each run, with the lift's squared error `lift` times that of theory."""
    rows = []
    for row in of.to_dict("records"):
        own = losses(row) if losses else [2.0, 0.5]
        for number, loss in enumerate(own, 1):
            theory = row["reduction"]
            rows.append({**row, "round": number, "train_loss": loss, "lift_error": lift * theory,
                         "lift_error_theory": theory})  # fmt: skip
    return pd.DataFrame(rows).drop(columns=["p", "n", "classes"])


def curvature(kappa: float = 10.0) -> pd.DataFrame:
    """Two checkpoints of two trainers, the test Hessian's kappa being large."""
    rows = [
        {**MLP, "trainer": trainer, "operator": "hessian", "split": split, "round": step,
         "kappa": 5000.0 if split == "test" else kappa / step}
        for trainer in ("uncompressed", "count_sketch-x10") for split in ("train", "test") for step in (1, 2)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def kappa(value: float = 20.0, p: int = 11_000_000, last: float | None = None, smallest: float = -1.0) -> pd.DataFrame:
    """Two losses, epochs 0, 10 and 20, two examples; one sketched training. `last` is kappa at the last epoch."""
    rows = []
    for loss in ("binary_cross_entropy", "sigmoid_squared_error"):
        for time in (0, 10, 20):
            own = value if last is None or time < 20 else last
            rows += [{**_PREDICTOR, "loss": loss, "time": time, "kappa": own, "p": p, "example": example,
                      "smallest_eigenvalue": smallest} for example in (0, 1)]  # fmt: skip
    sketched = {**_PREDICTOR, "kind": "round", "method": "count_sketch", "trainer": "count_sketch-x10", "p": p}
    rows.append({**sketched, "time": 5, "kappa": value, "example": 0, "smallest_eigenvalue": smallest})
    return pd.DataFrame(rows)


_PREDICTOR = {
    **RUN, "network": "resnet18_smooth", "kind": "epoch", "method": "sgd", "estimator": "fast", "outputs": 1,
    "largest_eigenvalue": 2.0, "largest_magnitude": 2.0, "label": 0,
}  # fmt: skip


def densities(of: pd.DataFrame, width: float) -> pd.DataFrame:
    """A flat density over [-width, width] of each spectrum of training without sketches, on [-2, 2]."""
    grid = np.linspace(-2, 2, 201)
    frames = [
        pd.DataFrame({"eigenvalue": grid, "density": (np.abs(grid) <= width) / (2 * width)})
        .assign(**row, broadening=0.02)
        for row in of[of["kind"] == "epoch"].to_dict("records")
    ]  # fmt: skip
    return pd.concat(frames, ignore_index=True)
