"""From kept weights to tables: what stands in every row, against dense linear algebra."""

import math
from collections import namedtuple
from dataclasses import replace
from functools import cache
from itertools import product

import numpy as np
import pytest
import torch
from eigenspace_jobs import FULL, HIDDEN, QUICK, RUN, SETTINGS, K, P, measure, of, read

from hessketch.curvature.losses import cross_entropy
from hessketch.eigenspaces import measuring, room
from hessketch.eigenspaces.tables import TABLES
from hessketch.linalg.grassmannian import METRICS
from hessketch.networks.registry import network_of
from hessketch.runs import IDENTITY

Dense = namedtuple("Dense", "theta matrix values vectors")


@pytest.fixture(scope="module")
def dense(trainings):
    """A function that writes out the Hessian of a step and split, float64, and its eigenpairs by magnitude."""
    subject = trainings.subject(RUN)

    @cache
    def written_out(step: int, split: str) -> Dense:
        point = next(point for point in subject.stability if point.time == step)
        model, examples = network_of(subject.architecture).double(), subject.examples(split)
        shapes = {name: q.shape for name, q in model.named_parameters()}
        theta = torch.cat([point.state[name].double().reshape(-1) for name in shapes])

        def loss(flat):
            pieces = flat.split([shape.numel() for shape in shapes.values()])
            named = {name: piece.view(shape) for (name, shape), piece in zip(shapes.items(), pieces, strict=True)}
            outputs = torch.func.functional_call(model, named, examples.inputs.double())
            return cross_entropy(outputs, examples.targets).mean()

        matrix = torch.autograd.functional.hessian(loss, theta).numpy()
        values, vectors = np.linalg.eigh(matrix)
        order = np.argsort(-np.abs(values))
        return Dense(theta.numpy(), matrix, values[order], vectors[:, order])

    return written_out


def largest(theta, k):
    return np.argsort(-np.abs(theta), kind="stable")[:k]


def test_the_tables_have_the_columns_and_kinds_that_they_say(measured):
    for name, table in measured[0].items():
        assert list(table) == [*IDENTITY, *TABLES[name]], name
        assert {column: str(table[column].dtype) for column in TABLES[name]} == TABLES[name], name


def test_every_point_split_and_method_has_its_rows(measured):
    rows = {"eigenvalues": K, "quality": 1, "overlaps": 3 * K, "metrics": 3 * len(METRICS), "layers": 2 * 6}
    for name, count in rows.items():
        counts = measured[0][name].groupby(["time", "split", "method"]).size()
        assert set(counts) == {count}, name
        assert set(counts.index) == set(product(FULL, ("train", "test"), SETTINGS.methods))


def test_every_row_starts_with_its_run_and_its_point(measured, trainings):
    facts = {point.time: point.facts for point in trainings.subject(RUN).points}
    for name in set(TABLES) - {"stability"}:
        table = measured[0][name]
        for column, value in {
            **RUN.identity(),
            "batch_size": 10,
            "kind": "step",
            "n": 40,
            "p": P,
            "classes": 10,
        }.items():
            assert set(table[column]) == {value}, (name, column)
        for time in FULL:
            for column in ("train_loss", "train_accuracy", "test_loss", "test_accuracy"):
                assert set(of(table, time=time)[column]) == {facts[time][column]}


@pytest.mark.parametrize(("step", "split"), [(0, "train"), (40, "test")])
def test_what_is_measured_exactly_is_what_matrices_give(measured, dense, step, split):
    tables, true = measured[0], dense(step, split)
    here = {"time": step, "split": split, "method": "exact"}
    np.testing.assert_allclose(of(tables["eigenvalues"], **here)["eigenvalue"], true.values[:K], rtol=1e-8)
    row = of(tables["quality"], **here).iloc[0]
    assert row["frobenius_squared"] == pytest.approx((true.matrix**2).sum())
    assert row["residual_squared"] == pytest.approx((true.values[K:] ** 2).sum())
    assert math.isnan(row["subspace_overlap"]) and row["products"] == P and row["pairs"] == K
    overlaps = of(tables["overlaps"], **here)
    live = (true.matrix != 0).any(1)
    assert set(overlaps["live"]) == {live.sum()} and live.sum() <= P - HIDDEN, "one input is dead"
    for k in (1, 5, K):
        mask = np.eye(P)[:, largest(true.theta, k)]
        rows = of(overlaps, k=k).set_index("mask")
        leverages = (true.vectors[:, :k] ** 2).sum(1)
        assert rows.loc["magnitude", "overlap"] == pytest.approx(((mask.T @ true.vectors[:, :k]) ** 2).sum() / k)
        assert rows.loc["best", "overlap"] == pytest.approx(np.sort(leverages)[-k:].sum() / k)
        assert rows["chance"].tolist() == pytest.approx([k / P] * 3)
        assert rows["chance_live"].tolist() == pytest.approx([leverages[live].mean()] * 3)
    energies = of(tables["layers"], **here, k=K).set_index("layer")["energy"]
    assert energies["1.weight"] == pytest.approx((true.vectors[: 16 * HIDDEN, :K] ** 2).sum()) and len(energies) == 6


def test_the_other_methods_are_held_against_the_exact_one(measured, dense):
    quality = measured[0]["quality"].set_index(["time", "split", "method"])
    for time in FULL:
        for split in ("train", "test"):
            lanczos, sketched = quality.loc[(time, split, "lanczos")], quality.loc[(time, split, "sketched")]
            assert lanczos["eigenvalue_error"] < 1e-3 and lanczos["subspace_overlap"] > 0.99
            assert lanczos["products"] < P and math.isnan(lanczos["residual_squared"])
            assert sketched["products"] == 56 and sketched["residual_lower"] < sketched["residual_squared"]
            assert 0.9 < sketched["subspace_overlap_half"] <= 1 + 1e-6
            true = dense(time, split)
            assert lanczos["eigenvalue_error"] >= 0 and quality.loc[(time, split, "exact"), "negative_share"] == (
                pytest.approx((true.values < -1e-12 * true.values[0]).mean())
            )
    residuals = measured[0]["eigenvalues"].groupby("method")["residual"]
    assert residuals.count().to_dict() == {"exact": 4 * K, "lanczos": 4 * K, "sketched": 0}


def test_stability_compares_masks_and_eigenspaces_of_every_two_steps(measured, dense):
    table = measured[0]["stability"]
    assert len(table) == 2 * 6 * (1 + 2)
    assert set(table["n"]) == {40} and set(table["p"]) == {P}
    for ratio, k in ((0.03, 4), (0.07, 10)):
        for first, second in ((0, 40), (40, 40)):
            here = of(table, ratio=ratio, first=first, second=second).set_index("split")
            assert set(here["k"]) == {k}
            masks = [set(largest(dense(step, "train").theta, k)) for step in (first, second)]
            assert here.loc["", "similarity"] == pytest.approx(len(masks[0] & masks[1]) / len(masks[0] | masks[1]))
            for split in ("train", "test"):
                u, v = (dense(step, split).vectors[:, :k] for step in (first, second))
                assert here.loc[split, "similarity"] == pytest.approx(((u.T @ v) ** 2).sum() / k, abs=1e-4)


def test_eigenspaces_of_larger_networks_are_compared_as_products_find_them(trainings, measured, tmp_path, monkeypatch):
    for module in (measuring, room):
        monkeypatch.setattr(module, "FORMED", P - 1)
    record = measure(trainings, [RUN], tmp_path, replace(QUICK, stability_ratios=(0.03,)))
    assert record["measured"][0]["stability_eigenspaces"] == "many_eigenpairs: auto"
    found, exact = (of(table["stability"], split="test", ratio=0.03) for table in (read(tmp_path), measured[0]))
    assert found["similarity"].tolist() == pytest.approx(exact["similarity"].tolist(), abs=1e-3)
