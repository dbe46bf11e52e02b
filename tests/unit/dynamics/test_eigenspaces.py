import math

import numpy as np
import pandas
import pytest
import torch
from torch import nn

from hessketch.data.examples import Examples
from hessketch.dynamics.eigenspaces import OPERATORS, eigenspaces
from hessketch.dynamics.exact import exact_curvature
from hessketch.errors import InputError
from hessketch.networks.mlp import mlp

LANCZOS = {"exact_up_to": 1}


def linear(p: int = 6) -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(p, 1, bias=False).double().eval()


def gaussian(n: int, p: int, seed: int = 1) -> torch.Tensor:
    scales = torch.linspace(2, 0.5, p, dtype=torch.float64)
    return torch.randn(n, p, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * scales


def trained_mlp() -> tuple[nn.Module, Examples]:
    """A float64 network of 208 parameters after some gradient steps on five clusters."""
    torch.manual_seed(0)
    model = mlp(12, 5, hidden=(8, 7), activation=nn.Tanh).double()
    targets = torch.arange(120) % 5
    inputs = torch.randn(5, 12, dtype=torch.float64)[targets] + torch.randn(120, 12, dtype=torch.float64)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs), targets).backward()
        optimizer.step()
    return model.eval(), Examples(inputs, targets, 5)


def of(table, name: str):
    return table[table.operator == name].drop(columns="operator").reset_index(drop=True)


def between(table, first: str, second: str, column: str) -> np.ndarray:
    return table[(table["first"] == first) & (table["second"] == second)][column].to_numpy()


def numpy_matrices(model: nn.Module, x: np.ndarray, y: np.ndarray) -> dict[str, np.ndarray]:
    """Of least squares (f - y)^2 with f = w x: slopes 2 (f - y) x, Hessian 2 x x^T."""
    residuals = x @ model.weight.detach().numpy()[0] - y
    gradients = 2 * residuals[:, None] * x
    moment, mean = gradients.T @ gradients / len(x), gradients.mean(0)
    return {
        "hessian": 2 * x.T @ x / len(x),
        "second_moment": moment,
        "gradient_covariance": moment - np.outer(mean, mean),
    }


@pytest.mark.parametrize("n", [5, 40])
def test_least_squares_has_the_tables_of_its_closed_form(n):
    model, x = linear(), gaussian(n, 6)
    targets = torch.arange(n) % 2
    tables = eigenspaces(model, "mean_squared_error", Examples(x, targets, 2), 3, seed=0)
    matrices = numpy_matrices(model, x.numpy(), targets.numpy())
    tops = {}
    for name, matrix in matrices.items():
        values, vectors = np.linalg.eigh(matrix)
        tops[name] = vectors[:, ::-1]
        found = of(tables["eigenvalues"], name)
        assert found["rank"].tolist() == [1, 2, 3]
        np.testing.assert_allclose(found.eigenvalue, values[::-1][:3], rtol=1e-10)
        row = of(tables["curvature"], name).iloc[0]
        assert row.exact
        assert row.trace == pytest.approx(np.trace(matrix), rel=1e-12)
        assert row.largest_eigenvalue == pytest.approx(values[-1], rel=1e-12)
        assert row.smallest_eigenvalue == pytest.approx(values[0], abs=1e-12)
        assert row.negative_share == pytest.approx(0, abs=1e-14)
        assert row.near_zero_share == pytest.approx(np.mean(values < 1e-3 * values[-1]), abs=1e-14)
    for first, second in (OPERATORS[:2], OPERATORS[1:], OPERATORS[::2]):
        expected = [np.linalg.norm(tops[first][:, :j].T @ tops[second][:, :j]) ** 2 / j for j in (1, 2, 3)]
        np.testing.assert_allclose(between(tables["overlaps"], first, second, "overlap"), expected, rtol=1e-9)
        cosines = np.linalg.svd(tops[first][:, :3].T @ tops[second][:, :3], compute_uv=False)
        angles = between(tables["angles"], first, second, "angle")
        np.testing.assert_allclose(np.cos(angles), cosines, rtol=1e-9)
    np.testing.assert_allclose(tables["overlaps"].chance, tables["overlaps"].k / 6)


@pytest.mark.parametrize("options", [{}, LANCZOS])
def test_residuals_of_one_size_make_moment_and_hessian_parallel(options):
    """With (f - y)^2 = c for all examples M = 2 c H: the same eigenspaces at other eigenvalues."""
    model, x = linear(), gaussian(50, 6)
    with torch.no_grad():
        y = model(x)[:, 0] + 0.25 * (1 - 2 * (torch.arange(50) % 2))
    tables = eigenspaces(model, "mean_squared_error", Examples(x, y, 2), 4, seed=0, **options)
    hessian, moment = (of(tables["eigenvalues"], name).eigenvalue for name in OPERATORS[:2])
    np.testing.assert_allclose(moment, hessian * 2 * 0.25**2, rtol=1e-9)
    np.testing.assert_allclose(between(tables["overlaps"], *OPERATORS[:2], "overlap"), 1, rtol=1e-9)
    assert between(tables["angles"], *OPERATORS[:2], "angle").max() < 1e-6


def test_matrices_and_operators_give_the_same_tables():
    model, examples = trained_mlp()
    exact = eigenspaces(model, "cross_entropy", examples, 12, seed=0)
    found = eigenspaces(model, "cross_entropy", examples, 12, seed=0, batch_size=50, **LANCZOS)
    np.testing.assert_allclose(found["eigenvalues"].eigenvalue, exact["eigenvalues"].eigenvalue, rtol=1e-6)
    np.testing.assert_allclose(found["overlaps"].overlap, exact["overlaps"].overlap, atol=1e-4)
    np.testing.assert_allclose(found["angles"].angle, exact["angles"].angle, atol=1e-3)
    assert not found["curvature"].exact.any() and exact["curvature"].exact.all()
    for name, semidefinite in zip(OPERATORS, (False, True, True), strict=True):
        one, other = of(exact["curvature"], name).iloc[0], of(found["curvature"], name).iloc[0]
        assert other.largest_eigenvalue == pytest.approx(one.largest_eigenvalue, rel=1e-6)
        assert one.trace_standard_error == 0
        if semidefinite:
            assert other.trace == pytest.approx(one.trace, rel=1e-10) and other.trace_standard_error == 0
        else:
            assert 0 < other.trace_standard_error < 0.2 * one.trace
            assert abs(other.trace - one.trace) < 4 * other.trace_standard_error
        assert (other.negative_share == 0) if semidefinite else math.isnan(other.negative_share)
        assert math.isnan(other.near_zero_share)
    smallest = [of(t["curvature"], "hessian").smallest_eigenvalue[0] for t in (exact, found)]
    assert smallest[0] < 0 and (math.isnan(smallest[1]) or smallest[1] == pytest.approx(smallest[0], rel=1e-3))


def test_tables_have_their_columns_and_rows():
    model, examples = trained_mlp()
    tables = eigenspaces(model, "cross_entropy", examples, 7, seed=0)
    rows = {"eigenvalues": 21, "curvature": 3, "overlaps": 21, "angles": 21}
    assert {name: len(table) for name, table in tables.items()} == rows
    kinds = {c: t.kind for table in tables.values() for c, t in table.dtypes.items() if t.kind in "ib"}
    assert kinds == {"rank": "i", "exact": "b", "k": "i", "index": "i"}
    assert list(tables["overlaps"]) == ["first", "second", "k", "overlap", "chance"]
    for _, angles in tables["angles"].groupby(["first", "second"]):
        assert (np.diff(angles.angle) >= 0).all() and angles["index"].tolist() == list(range(1, 8))


@pytest.mark.parametrize("options", [{}, LANCZOS])
def test_spaces_that_reach_into_the_null_space_have_no_overlap(options):
    """Inputs of rank 2: every operator has two eigenvalues that are not zero."""
    model, x = linear(), gaussian(20, 2) @ torch.eye(6, dtype=torch.float64)[:2]
    tables = eigenspaces(model, "mean_squared_error", Examples(x, torch.arange(20) % 2, 2), 4, seed=0, **options)
    for pair in (OPERATORS[:2], OPERATORS[1:]):
        found = between(tables["overlaps"], *pair, "overlap")
        np.testing.assert_allclose(found[1], 1, rtol=1e-9)  # the plane of the inputs
        assert 0 <= found[0] < 1 + 1e-12 and np.isnan(found[2:]).all()
        assert np.isnan(between(tables["angles"], *pair, "angle")).all()


def test_curvature_that_exists_already_is_taken_and_must_be_of_the_point():
    model, examples = trained_mlp()
    exact = exact_curvature(model, "cross_entropy", examples)
    found = eigenspaces(model, "cross_entropy", examples, 3, seed=0, exact=exact, exact_up_to=1)
    assert found["curvature"].exact.all()
    assert exact.second_moment.shape == (exact.p, exact.p) and exact.n == 120
    torch.testing.assert_close(
        exact.covariance, exact.second_moment - torch.outer(exact.mean_gradient, exact.mean_gradient)
    )
    with pytest.raises(InputError, match="of 120 examples"):
        fewer = Examples(examples.inputs[:50], examples.targets[:50], 5)
        eigenspaces(model, "cross_entropy", fewer, 3, seed=0, exact=exact)


def test_k_beyond_the_rank_of_the_covariance_is_refused_with_what_is_allowed():
    model, x = linear(), gaussian(5, 6)
    examples = Examples(x, torch.arange(5) % 2, 2)
    with pytest.raises(InputError, match=r"gradient_covariance of 5 examples .* allowed: 1 to 4"):
        eigenspaces(model, "mean_squared_error", examples, 5, seed=0)
    with pytest.raises(InputError, match="k is 0"):
        eigenspaces(model, "mean_squared_error", examples, 0, seed=0)
    with pytest.raises(InputError, match="allowed: 1 to 6"):
        eigenspaces(model, "mean_squared_error", Examples(gaussian(50, 6), torch.zeros(50), 2), 7, seed=0)


def test_examples_of_another_precision_are_taken_in_that_of_the_weights():
    model, examples = trained_mlp()
    single = Examples(examples.inputs.float(), examples.targets, 5)
    same = Examples(single.inputs.double(), examples.targets, 5)
    found, expected = (eigenspaces(model, "cross_entropy", e, 3, seed=0, **LANCZOS) for e in (single, same))
    for name, table in expected.items():
        pandas.testing.assert_frame_equal(found[name], table)
    double = eigenspaces(model.float(), "cross_entropy", examples, 3, seed=0, **LANCZOS)
    np.testing.assert_allclose(double["eigenvalues"].eigenvalue, expected["eigenvalues"].eigenvalue, rtol=1e-4)


@pytest.mark.parametrize("options", [{}, LANCZOS])
def test_a_loss_may_be_a_function(options):
    model, examples = trained_mlp()
    by_name = eigenspaces(model, "cross_entropy", examples, 3, seed=0, **options)
    found = eigenspaces(model, nn.CrossEntropyLoss(), examples, 3, seed=0, **options)
    np.testing.assert_allclose(found["eigenvalues"].eigenvalue, by_name["eigenvalues"].eigenvalue, rtol=1e-9)
    np.testing.assert_allclose(found["curvature"].trace, by_name["curvature"].trace, rtol=1e-6)
    with pytest.raises(InputError, match="mean with weights"):
        eigenspaces(model, nn.CrossEntropyLoss(torch.arange(1.0, 6.0)), examples, 3, seed=0, **options)


def test_a_pair_of_tensors_in_place_of_examples_is_refused():
    model, examples = trained_mlp()
    pair = (examples.inputs, examples.targets)
    for call in (
        lambda: eigenspaces(model, "cross_entropy", pair, 3, seed=0),
        lambda: exact_curvature(model, "cross_entropy", pair),
    ):
        with pytest.raises(InputError, match=r"examples is tuple; give hessketch.data.examples.Examples\("):
            call()
