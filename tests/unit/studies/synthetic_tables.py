"""Long tables of spectra of dense symmetric matrices with planted outliers, as the pipeline would write them."""

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

threadpool_limits(1, user_api="blas")  # on matrices so small, threads cost more than they bring

DIMENSION = 240
RUN = {
    "dataset": "mnist",
    "label_noise": 0.0,
    "examples_per_class": 100,
    "network": "vgg11",
    "norm": "batch",
    "width": 1.0,
    "loss": "cross_entropy",
    "trainer": "sgd",
    "learning_rate": 0.1,
    "seed": 0,
}


def spectrum_columns(operator="hessian", split="train", classes=10, p=DIMENSION, **run):
    """The values of SPECTRUM_KEYS of one spectrum."""
    identity = {**RUN, **run}
    n = classes * identity["examples_per_class"]
    return {**identity, "split": split, "operator": operator, "n": n, "p": p, "classes": classes}


def planted_parts(random, classes, p=DIMENSION, gap=1.0):
    """GGN with `classes` outliers above a small bulk, and a symmetric heavy-tailed residual, both p x p."""
    basis = np.linalg.qr(random.normal(size=(p, p)))[0]
    spikes = gap * np.linspace(12.0, 45.0, classes)
    factor = random.normal(size=(p, p // 3)) * 0.05
    ggn = (basis[:, :classes] * spikes) @ basis[:, :classes].T + factor @ factor.T
    tails = 0.05 * (1 - random.uniform(size=2 * p // 3)) ** (-1 / 1.6)
    signs = np.where(np.arange(len(tails)) % 2, 1.0, -1.0)
    other = np.linalg.qr(random.normal(size=(p, len(tails))))[0]
    residual = (other * np.minimum(tails, 4.0) * signs) @ other.T
    return {"ggn": ggn, "residual": residual, "hessian": ggn + residual}


def ritz_rows(keys, values, weights, deflated=False, start_vector=0):
    """Rows of the ritz table of one exact start vector: the Ritz values are the eigenvalues."""
    return pd.DataFrame(
        {
            **keys,
            "deflated": deflated,
            "start_vector": start_vector,
            "ritz_value": np.asarray(values, dtype=float),
            "weight": np.asarray(weights, dtype=float),
            "residual_bound": 1e-12 * np.ones(len(values)),
        }
    )


def density_rows(keys, values, weights, deflated=False, points=512, error=np.nan, estimator="lanczos"):
    """Rows of the density table: the exact spectrum smoothed as LANCZOSAPPROXSPEC smooths it."""
    margin = 0.05 * (values.max() - values.min())
    grid = np.linspace(values.min() - margin, values.max() + margin, points)
    broadening = (grid[-1] - grid[0]) / (255 * np.sqrt(8 * np.log(1.25)))
    kernel = np.exp(-0.5 * ((grid[:, None] - values) / broadening) ** 2) / (broadening * np.sqrt(2 * np.pi))
    density = np.where(kernel < 1e-8 * kernel.max(), 0.0, kernel) @ weights
    return pd.DataFrame(
        {
            **keys,
            "estimator": estimator,
            "deflated": deflated,
            "eigenvalue": grid,
            "density": density,
            "density_standard_error": error * density,
            "broadening": broadening,
        }
    )


def eigenvalue_rows(keys, leading):
    """Rows of the eigenvalues table, `leading` by descending absolute value."""
    ranks = np.arange(1, len(leading) + 1)
    columns = {"rank": ranks, "eigenvalue": leading, "residual_norm": 1e-6, "column_norm": np.abs(leading)}
    return pd.DataFrame({**keys, **columns})


def spectra(random, runs, vectors=1, points=512, error=np.nan, gaps=None):
    """Tables ritz, density and eigenvalues of several runs (dictionaries of spectrum columns), train and test."""
    tables = {"ritz": [], "density": [], "eigenvalues": []}
    for i, run in enumerate(runs):
        for split, gap in (("train", gaps[i] if gaps else 1.0), ("test", 0.6 * (gaps[i] if gaps else 1.0))):
            parts = planted_parts(random, run.get("classes", 10), gap=gap)
            for operator, matrix in parts.items():
                keys = spectrum_columns(**{**run, "operator": operator, "split": split})
                _add_spectrum(tables, keys, matrix, random, vectors, points, error)
    return {name: pd.concat(parts, ignore_index=True) for name, parts in tables.items()}


def _add_spectrum(tables, keys, matrix, random, vectors, points, error):
    values, basis = np.linalg.eigh(matrix)
    outlying = np.argsort(-np.abs(values))[: keys["classes"]]
    bulk = values.copy()
    bulk[outlying] = 0.0
    starts = random.normal(size=(len(values), vectors))
    weights = (basis.T @ (starts / np.linalg.norm(starts, axis=0))) ** 2
    for deflated, spectrum in ((False, values), (True, bulk)):
        if deflated and keys["operator"] == "residual":
            continue
        order = np.argsort(spectrum)
        for vector in range(vectors):
            ritz = ritz_rows(keys, spectrum[order], weights[order, vector], deflated, vector)
            tables["ritz"].append(ritz)
        mean = weights.mean(axis=1)[order]
        tables["density"].append(density_rows(keys, spectrum[order], mean, deflated, points, error))
    if keys["operator"] != "residual":
        tables["eigenvalues"].append(eigenvalue_rows(keys, values[outlying]))


def training_runs(runs, rates=(0.1, 0.05, 0.01)):
    """A runs table: every rate of every run; the middle one is selected, the largest diverged on odd runs."""
    rows = []
    for i, run in enumerate(runs):
        identity = {key: value for key, value in {**RUN, **run}.items() if key in RUN}
        classes, size = run.get("classes", 10), identity["examples_per_class"]
        for j, rate in enumerate(rates):
            diverged = j == 0 and i % 2 == 1
            accuracy = np.nan if diverged else 1 - 2.0 / np.log(size * classes) ** (1.5 - 0.2 * abs(j - 1))
            rows.append(
                {
                    **identity,
                    "learning_rate": rate,
                    "status": "diverged" if diverged else "finished",
                    "selected": j == 1,
                    "epochs": 200,
                    "n": classes * size,
                    "p": DIMENSION,
                    "classes": classes,
                    "train_accuracy": np.nan if diverged else 1.0 - 0.01 * j,
                    "test_accuracy": accuracy,
                }
            )
    return pd.DataFrame(rows)
