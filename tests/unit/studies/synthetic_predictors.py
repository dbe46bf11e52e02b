"""Raw tables of predictor Hessians with known kappas, as the jobs of the pipeline would write them."""

import numpy as np
import pandas as pd

from hessketch.runs import Run
from hessketch.studies.predictor_hessian import columns_of
from hessketch.trainers import trainer_columns

P = 5000
IDENTITY = {
    "dataset": "digits",
    "label_noise": 0.0,
    "examples_per_class": 100,
    "network": "mlp",
    "norm": "none",
    "width": 1.0,
    "loss": "binary_cross_entropy",
    "trainer": "sgd-full",
    "learning_rate": 0.1,
    "seed": 0,
}
LOSSES = ("binary_cross_entropy", "mean_squared_error")
TRAINERS = ("uncompressed", "count_sketch-x10", "count_sketch-x100", "top_r_ef-x10")


def kappa_of(example, seed, time):
    """The known kappa of the estimator `paper`."""
    return 10.0 + 4.0 * example + 2.0 * seed + time / 100


def row(kind="epoch", time=0, example=0, estimator="paper", kappa=None, slope=0.5, **identity):
    """One row of the raw table of kappas; `fast` finds a tenth more, and a slope of zero makes a Hessian of zero."""
    run = {**IDENTITY, **identity}
    magnitude = 4.0 * abs(slope) if not np.isnan(slope) else 2.0
    value = kappa_of(example, run["seed"], time) * (1.1 if estimator == "fast" else 1.0) if kappa is None else kappa
    value = value if magnitude else np.nan
    smoothed = np.nan if estimator == "fast" else 1.0
    return {
        **run,
        **trainer_columns(Run(**run)),
        "kind": kind,
        "time": time,
        "train_loss": 1.0 / (1 + time) + 0.1 * run["seed"],
        "example": example,
        "label": example % 2,
        "p": P,
        "outputs": 10 if np.isnan(slope) else 1,
        "estimator": estimator,
        "example_loss": 0.25,
        "slope": slope,
        "largest_eigenvalue": magnitude,
        "smallest_eigenvalue": -magnitude / 2,
        "largest_magnitude": magnitude,
        "absolute_sum": value * magnitude,
        "absolute_sum_standard_error": 0.3 * magnitude,
        "kappa": value,
        "kappa_standard_error": 0.3 if magnitude else np.nan,
        "kappa_lower": value / 2 if estimator == "paper" else value - 0.5,
        "kappa_smoothed": smoothed * (value + 20.0),
        "kappa_floor": smoothed * 15.0,
        "products": 1000 if estimator == "paper" else 96,
        "seconds": 2.0,
    }


def epochs(
    seeds=(0, 1), examples=(0, 1, 2), times=(0, 100, 200), losses=LOSSES, estimators=("paper", "fast"), **values
):
    """Kappas of trajectories."""
    return pd.DataFrame(
        row("epoch", time, example, estimator, **{"loss": loss, "seed": seed, **values})
        for loss in losses
        for seed in seeds
        for time in times
        for example in examples
        for estimator in estimators
    )


def rounds(seeds=(0, 1), examples=(0, 1), times=(0, 10, 40), trainers=TRAINERS, **values):
    """Kappas of federated networks: each trainer's is by its place times the round above that of uncompressed."""
    return pd.DataFrame(
        row(
            "round", time, example, "fast", kappa_of(example, seed, time) + place * time / 10, np.nan,
            **{"loss": "cross_entropy", "trainer": trainer, "seed": seed, **values},
        )
        for place, trainer in enumerate(trainers)
        for seed in seeds
        for time in times
        for example in examples
    )  # fmt: skip


def density_of(kappa, points=201):
    """Curves for rows of kappas: all mass at zero but an eigenvalue at each end; NaN for a Hessian of zero."""
    frames = []
    names = [name for name in columns_of("density") if name in kappa]
    for found in kappa.to_dict("records"):
        ends = np.array([found["smallest_eigenvalue"], 0.0, found["largest_eigenvalue"]])
        width = (0.02 if found["estimator"] == "paper" else 0.05) * found["largest_magnitude"]
        grid = np.linspace(ends[0] - 6 * width, ends[2] + 6 * width, points)
        with np.errstate(invalid="ignore", divide="ignore"):
            kernel = np.exp(-0.5 * ((grid[:, None] - ends) / width) ** 2) / (width * np.sqrt(2 * np.pi))
        density = kernel @ np.array([1 / P, 1 - 2 / P, 1 / P])
        curve = {"eigenvalue": grid, "density": density, "density_standard_error": 0.1 * density, "broadening": width}
        frames.append(pd.DataFrame({**{name: found[name] for name in names}, **curve}))
    return pd.concat(frames, ignore_index=True)
