"""Leading eigenpairs by three methods against the Hessian written out, and what the quality table says of them."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.func import functional_call

from hessketch.curvature.operators import CurvatureOperator
from hessketch.data.examples import Examples
from hessketch.eigenspaces import eigenpairs
from hessketch.eigenspaces.eigenpairs import (
    Eigenspace,
    exact_eigenspace,
    krylov_eigenspace,
    quality,
    sketch_settings,
    sketched_eigenspace,
)
from hessketch.eigenspaces.settings import EigenspaceSettings
from hessketch.errors import InputError, NotFiniteError

K = 8


def network() -> torch.nn.Module:
    generator = torch.Generator().manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(5, 6), torch.nn.Tanh(), torch.nn.Linear(6, 3))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return model.eval()


def examples() -> Examples:
    """The input of number 4 is dead."""
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(30, 5, generator=generator)
    inputs[:, 4] = 0
    return Examples(inputs, torch.randint(3, (30,), generator=generator), 3)


P = 5 * 6 + 6 + 6 * 3 + 3
DEAD = 6


@pytest.fixture(scope="module")
def written_out() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Hessian by nested derivatives in float64, and its eigenpairs by descending magnitude."""
    model, data = network().double(), examples()
    shapes = {name: q.shape for name, q in model.named_parameters()}
    theta = torch.cat([q.detach().reshape(-1) for q in model.parameters()])

    def loss(flat):
        pieces = flat.split([shape.numel() for shape in shapes.values()])
        named = {name: piece.view(shape) for (name, shape), piece in zip(shapes.items(), pieces, strict=True)}
        return torch.nn.functional.cross_entropy(functional_call(model, named, data.inputs.double()), data.targets)

    matrix = torch.autograd.functional.hessian(loss, theta).numpy()
    values, vectors = np.linalg.eigh(matrix)
    order = np.argsort(-np.abs(values))
    return matrix, values[order], vectors[:, order]


@pytest.fixture(scope="module")
def exact() -> Eigenspace:
    return exact_eigenspace(network(), "cross_entropy", examples(), K, batch_size=11)


def operator(dtype=torch.float64) -> CurvatureOperator:
    model = network().to(dtype)
    data = examples()
    return CurvatureOperator(
        "hessian", model, torch.nn.CrossEntropyLoss(reduction="none"), [(data.inputs.to(dtype), data.targets)]
    )


def projection(vectors) -> np.ndarray:
    u = np.asarray(vectors, dtype=np.float64)
    return u @ u.T


def test_the_exact_eigenspace_is_that_of_the_hessian(exact, written_out):
    matrix, values, vectors = written_out
    np.testing.assert_allclose(exact.values, values[:K], rtol=1e-9)
    np.testing.assert_allclose(projection(exact.vectors), projection(vectors[:, :K]), atol=1e-8)
    assert exact.vectors.dtype == torch.float64 and exact.products == P and exact.method == "exact"
    assert (exact.residuals < 1e-12 * np.linalg.norm(matrix)).all() and exact.seconds > 0


def test_the_exact_method_knows_the_norms_and_the_share_of_negative_eigenvalues(exact, written_out):
    matrix, values, _ = written_out
    assert exact.frobenius_squared == pytest.approx(np.linalg.norm(matrix) ** 2)
    assert exact.residual_squared == pytest.approx((values[K:] ** 2).sum())
    nonzero = np.abs(values) > 1e-12 * np.abs(values).max()
    assert (~nonzero).sum() >= DEAD
    assert exact.negative_share == (values[nonzero] < 0).sum() / P, "zeros of dead inputs are not negative"
    assert math.isnan(exact.residual_lower) and math.isnan(exact.residual_upper)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_lanczos_finds_the_eigenspace_with_its_residuals(written_out, dtype):
    matrix, values, vectors = written_out
    found = krylov_eigenspace(operator(dtype), K, seed=0)
    assert found.method == "lanczos" and found.vectors.dtype == dtype and found.products < P
    np.testing.assert_allclose(found.values, values[:K], rtol=1e-3)
    assert np.abs(projection(found.vectors) - projection(vectors[:, :K])).max() < 0.01
    true = np.linalg.norm(
        matrix @ found.vectors.double().numpy() - found.vectors.double().numpy() * found.values, axis=0
    )
    assert (true <= found.residuals).all() and (found.residuals <= 1e-3 * np.abs(found.values)).all()
    assert math.isnan(found.negative_share) and math.isnan(found.frobenius_squared)


def test_pairs_that_lanczos_says_have_not_converged_are_not_there(monkeypatch):
    whole = krylov_eigenspace(operator(), K, seed=0)
    original = eigenpairs.many_eigenpairs

    def interrupted(*arguments, **options):
        found = original(*arguments, **options)
        return replace(found, converged=3, residuals=np.where(np.arange(K) < 3, found.residuals, 1.0))

    monkeypatch.setattr(eigenpairs, "many_eigenpairs", interrupted)
    found = krylov_eigenspace(operator(), K, seed=0)
    assert found.values.tolist() == whole.values[:3].tolist() and len(found.residuals) == 3
    assert torch.equal(found.vectors, whole.vectors[:, :3])


def test_of_a_sketch_in_place_of_lanczos_the_pairs_with_small_residuals_are_there(written_out):
    matrix, values, _ = written_out
    found = krylov_eigenspace(operator(), 20, seed=0, method="sketched")
    u = found.vectors.numpy()
    assert 0 < len(found.values) < 20 and u.shape == (P, len(found.values))
    assert (np.linalg.norm(matrix @ u - u * found.values, axis=0) <= 1.01e-3 * np.abs(found.values)).all()
    np.testing.assert_allclose(found.values, values[: len(found.values)], rtol=1e-3)


@pytest.mark.parametrize("method", ["fast", "paper"])
def test_the_sketch_finds_the_eigenspace_and_estimates_what_is_left(written_out, method):
    matrix, values, _ = written_out
    wanted = EigenspaceSettings(pairs=10, measurements=40, sketch_method=method, probes=50)
    found = sketched_eigenspace(operator(), sketch_settings(wanted, 10), seed=1)
    assert found.method == "sketched" and found.products == 90 and np.isnan(found.residuals).all()
    np.testing.assert_allclose(found.values[:4], values[:4], rtol=0.05)
    u = found.vectors.numpy()
    true = np.linalg.norm(matrix - (u * found.values) @ u.T) ** 2
    assert found.residual_lower <= true <= found.residual_upper
    assert found.residual_lower < found.residual_squared < found.residual_upper
    assert found.frobenius_squared == pytest.approx(np.linalg.norm(matrix) ** 2, rel=0.6)


def test_a_sketch_without_probes_has_no_estimate():
    wanted = sketch_settings(EigenspaceSettings(pairs=5, probes=0), 5)
    found = sketched_eigenspace(operator(), wanted, seed=1)
    assert wanted.count == 20 == found.products
    assert all(math.isnan(getattr(found, name)) for name in ("frobenius_squared", "residual_squared", "residual_upper"))


def space(values, vectors, method="sketched") -> Eigenspace:
    return Eigenspace(method, np.array(values), vectors, np.full(len(values), math.nan), 7, 0.5)


def turned(vectors, first: int, second: int, angle: float):
    """The columns with one of them turned towards another."""
    other = vectors.clone()
    other[:, first] = math.cos(angle) * vectors[:, first] + math.sin(angle) * vectors[:, second]
    other[:, second] = math.cos(angle) * vectors[:, second] - math.sin(angle) * vectors[:, first]
    return other


def test_quality_holds_what_was_found_against_the_exact_eigenpairs():
    vectors = torch.linalg.qr(torch.randn(9, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)).Q
    exact = space([8.0, -4.0, 2.0, 1.0], vectors[:, :4], "exact")
    found = space([8.4, -4.1, 1.0, 0.5], turned(vectors, 1, 5, 0.3)[:, :4])
    row = quality(found, exact)
    assert row["eigenvalue_error"] == pytest.approx(0.05), "of the leading half, the first two"
    assert row["subspace_overlap_half"] == pytest.approx((1 + math.cos(0.3) ** 2) / 2)
    assert row["subspace_overlap"] == pytest.approx((3 + math.cos(0.3) ** 2) / 4)
    assert (row["pairs"], row["products"], row["seconds"]) == (4, 7, 0.5)


def test_the_eigenvalue_error_counts_wrong_signs_and_no_change_of_order():
    vectors = torch.eye(9, dtype=torch.float64)
    exact = space([3.0, -2.9, 2.0, 1.0], vectors[:, :4], "exact")
    assert quality(space([-3.1, 3.0, 2.0, 1.0], vectors[:, :4]), exact)["eigenvalue_error"] == pytest.approx(0.2 / 2.9)
    assert quality(space([3.0, 2.9, 2.0, 1.0], vectors[:, :4]), exact)["eigenvalue_error"] == 1.0
    assert quality(space([3.0], vectors[:, :1]), exact)["eigenvalue_error"] == 1.0


def test_quality_says_nothing_of_spaces_that_are_not_there():
    vectors = torch.eye(9, dtype=torch.float64)
    exact = space([4.0, 3.0, 2.0, 1.0], vectors[:, :4], "exact")
    fewer = quality(space([4.0, 3.0], vectors[:, :2]), exact)
    assert fewer["subspace_overlap_half"] == pytest.approx(1) and math.isnan(fewer["subspace_overlap"])
    alone = quality(exact, None)
    assert all(math.isnan(alone[name]) for name in ("eigenvalue_error", "subspace_overlap_half", "subspace_overlap"))


def test_a_decomposition_that_memory_does_not_hold_is_refused_before_it_starts():
    with pytest.raises(InputError, match=f"decomposing the Hessian of {P} parameters needs"):
        exact_eigenspace(network(), "cross_entropy", examples(), K, memory=3 * 8 * P * P)


def test_nan_among_the_weights_is_an_error():
    model = network()
    with torch.no_grad():
        model[0].weight[0, 0] = math.nan
    with pytest.raises(NotFiniteError):
        exact_eigenspace(model, "cross_entropy", examples(), K)


def test_settings_that_no_measurement_could_use_are_all_named_at_once():
    with pytest.raises(InputError, match=r"pairs: 0 given; .*probes: -1 given; .*ratios: \(\) given"):
        EigenspaceSettings(pairs=0, probes=-1, ratios=())
    for name, value in {
        "pairs": 2.5, "measurements": -1, "passes": 0, "exact_up_to": -1, "batch_size": 0, "ratios": (1.0,),
        "stability_ratios": (0.1, 0.1), "kind": "sparse", "sketch_method": "best",
    }.items():  # fmt: skip
        with pytest.raises(InputError, match=f"{name}: "):
            EigenspaceSettings(**{name: value})
    with pytest.raises(InputError, match=r"methods: \['exakt'\] given; allowed: exact.*valid name: exact"):
        EigenspaceSettings(methods=("exakt",))
    with pytest.raises(InputError, match=r"splits: \[\] given; allowed: train, test"):
        EigenspaceSettings(splits=())


def test_pairs_below_one_are_a_share_of_the_parameters():
    share = EigenspaceSettings(pairs=0.05)
    assert share.pairs_of(7030) == 352 and share.pairs_of(4) == 1
    assert replace(share, pairs=12).pairs_of(7030) == 12
    assert sketch_settings(share, 352).count == 714
