"""Traces and Frobenius norms against dense matrices, and XTrace against its definition."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from known_spectra import Counted, generator, rotated

from hessketch.errors import InputError, NotFiniteError
from hessketch.linalg.traces import (
    Estimate,
    frobenius_norm_squared,
    gaussian_vector,
    hutch_plus_plus_trace,
    hutchinson_trace,
    rademacher_vector,
    xtrace,
)

SKETCHED = [hutch_plus_plus_trace, xtrace]
TRACES = [hutchinson_trace, *SKETCHED]
ALL = [*TRACES, frobenius_norm_squared]

SPECTRA = {
    "decaying": 1 / np.arange(1.0, 61),
    "indefinite": np.linspace(-1, 1.3, 60),
    "outliers": np.r_[[-30.0, 20.0, 50.0], np.linspace(-0.5, 0.5, 57)],
}


def truth(method, matrix) -> float:
    return float((matrix.double() ** 2).sum() if method is frobenius_norm_squared else matrix.double().trace())


def estimates(method, matrix, products: int, seeds: int) -> tuple[np.ndarray, np.ndarray]:
    """Values and standard errors (seeds,)."""
    found = [method(matrix, products, generator(seed)) for seed in range(seeds)]
    return np.array([f.value for f in found]), np.array([f.standard_error for f in found])


@pytest.mark.parametrize("method", ALL)
@pytest.mark.parametrize("spectrum", SPECTRA)
def test_estimates_are_unbiased(method, spectrum):
    matrix = rotated(SPECTRA[spectrum])
    values, _ = estimates(method, matrix, 12, seeds=150)
    error = values.std(ddof=1) / np.sqrt(len(values))
    assert abs(values.mean() - truth(method, matrix)) < 4 * error


@pytest.mark.parametrize("method", ALL)
@pytest.mark.parametrize("spectrum", ["decaying", "outliers"])
def test_two_standard_errors_cover_the_truth_at_about_their_rate(method, spectrum):
    matrix = rotated(SPECTRA[spectrum])
    values, errors = estimates(method, matrix, 48, seeds=200)
    covered = (np.abs(values - truth(method, matrix)) <= 1.96 * errors).mean()
    assert covered >= (0.75 if method is xtrace else 0.85)
    assert 0.6 < np.sqrt((errors**2).mean() / np.mean((values - truth(method, matrix)) ** 2)) < 1.25


def test_xtrace_is_the_mean_of_its_leave_one_out_definition():
    matrix, k = rotated(SPECTRA["outliers"], seed=3), 7
    draws = generator(5)
    probes = torch.stack([gaussian_vector(matrix, draws) for _ in range(k)]).T
    expected = []
    for i in range(k):
        others = torch.linalg.qr(matrix @ probes[:, [j for j in range(k) if j != i]]).Q
        rest = probes[:, i] - others @ (others.T @ probes[:, i])
        scale = (60 - k + 1) / (rest @ rest)
        expected.append(float(torch.trace(others.T @ matrix @ others) + scale * (rest @ matrix @ rest)))
    found = xtrace(matrix, 2 * k, generator(5))
    assert found.value == pytest.approx(np.mean(expected), rel=1e-11)
    assert found.standard_error == pytest.approx(np.std(expected, ddof=1) / np.sqrt(k), rel=1e-9)


def test_hutch_plus_plus_is_its_definition():
    matrix, k = rotated(SPECTRA["outliers"], seed=3), 4
    draws = generator(5)
    q = torch.linalg.qr(matrix @ torch.stack([gaussian_vector(matrix, draws) for _ in range(k)]).T).Q
    rest = torch.eye(60, dtype=torch.float64) - q @ q.T
    probes = [rest @ rademacher_vector(matrix, draws) for _ in range(6)]
    samples = np.array([float(z @ matrix @ z) for z in probes])
    found = hutch_plus_plus_trace(matrix, 14, generator(5))
    assert found.value == pytest.approx(float(torch.trace(q.T @ matrix @ q)) + samples.mean(), rel=1e-11)
    assert found.standard_error == pytest.approx(samples.std(ddof=1) / np.sqrt(6), rel=1e-9)


def test_hutchinson_has_the_variance_of_sign_probes():
    matrix = rotated(SPECTRA["indefinite"])
    off_diagonal = matrix - torch.diag(torch.diagonal(matrix))
    values, errors = estimates(hutchinson_trace, matrix, 10, seeds=1000)
    expected = 2 * float((off_diagonal**2).sum()) / 10
    assert values.var(ddof=1) == pytest.approx(expected, rel=0.2)
    assert (errors**2).mean() == pytest.approx(expected, rel=0.1)


def test_sketching_beats_hutchinson_where_eigenvalues_decay_fast():
    matrix = rotated(0.7 ** np.arange(100))
    rms = {
        method: np.sqrt(np.mean((estimates(method, matrix, 48, seeds=60)[0] - truth(method, matrix)) ** 2))
        for method in TRACES
    }
    # Measured: 2.8e-1, 2.9e-3 and 2.2e-4.
    assert rms[hutch_plus_plus_trace] < rms[hutchinson_trace] / 30
    assert rms[xtrace] < rms[hutch_plus_plus_trace] / 4


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(SKETCHED),
    st.lists(st.floats(-10, 10, allow_subnormal=False), min_size=0, max_size=7),
    st.integers(0, 99),
)
def test_operators_of_low_rank_come_out_exact(method, eigenvalues, seed):
    matrix = rotated(eigenvalues + [0.0] * (40 - len(eigenvalues)), seed=seed)
    found = method(matrix, 24, generator(seed))
    assert found.value == pytest.approx(sum(eigenvalues), abs=1e-9)
    assert found.standard_error < 1e-9


@pytest.mark.parametrize("method", SKETCHED)
def test_low_rank_is_exact_for_axis_aligned_eigenvectors_and_odd_numbers_of_products(method):
    diagonal = torch.zeros(50, dtype=torch.float64)
    diagonal[[3, 17, 41]] = torch.tensor([1e3, -1.0, 1e-3]).double()
    for products in range(10, 26):
        found = method(torch.diag(diagonal), products, generator(products))
        assert found.value == pytest.approx(float(diagonal.sum()), abs=1e-9), products


@pytest.mark.parametrize("method", SKETCHED)
@pytest.mark.parametrize("products", [9, 10, 30])
def test_as_many_products_as_dimensions_give_the_exact_trace_in_p_of_them(method, products):
    operator = Counted(rotated(np.linspace(-1, 3, 9)))
    told = []
    found = method(operator, products, generator(), lambda *numbers: told.append(numbers))
    assert found == Estimate(pytest.approx(9.0, rel=1e-13), 0.0, 9)
    assert operator.products == 9
    assert told == [(i, 9) for i in range(1, 10)]


@pytest.mark.parametrize("method", ALL)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("p", [1, 2, 30])
def test_zero_operators_give_zero(method, dtype, p):
    for products in (4, 7, 12):
        found = method(torch.zeros(p, p, dtype=dtype), products, generator())
        assert (found.value, found.standard_error) == (0.0, 0.0)


@pytest.mark.parametrize("method", ALL)
def test_operators_of_one_entry_come_out_exact(method):
    matrix = torch.tensor([[-2.5]])
    found = method(matrix, 5, generator())
    assert found.value == pytest.approx(truth(method, matrix), rel=1e-14)
    assert found.standard_error < 1e-14


@pytest.mark.parametrize("method", ALL)
@pytest.mark.parametrize("products", [5, 12, 31])
def test_as_many_products_are_taken_as_reported(method, products):
    operator = Counted(rotated(SPECTRA["decaying"]))
    told = []
    found = method(operator, products, generator(), lambda *numbers: told.append(numbers))
    expected = products - products % 2 if method is xtrace else products
    assert operator.products == found.products == expected
    assert told == [(i, expected) for i in range(1, expected + 1)]


@pytest.mark.parametrize("method", ALL)
def test_a_seed_gives_the_same_result_and_the_generator_moves_on(method):
    matrix, draws = rotated(SPECTRA["indefinite"]), generator(4)
    first, second = (method(matrix, 9, draws) for _ in range(2))
    assert first == method(matrix, 9, generator(4))
    assert first.value != second.value


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(TRACES),
    st.one_of(st.just(0.0), st.floats(1e-100, 1e3), st.floats(-1e3, -1e-100)),
    st.integers(4, 40),
    st.integers(0, 99),
)
def test_scaling_the_operator_scales_the_estimate(method, factor, products, seed):
    matrix = rotated(np.linspace(-1, 2, 30))
    before = method(matrix, products, generator(seed))
    after = method(factor * matrix, products, generator(seed))
    assert after.value == pytest.approx(factor * before.value, rel=1e-9, abs=1e-11 * abs(factor))
    assert after.standard_error == pytest.approx(abs(factor) * before.standard_error, rel=1e-7, abs=1e-9 * abs(factor))


@pytest.mark.parametrize("method", SKETCHED)
def test_spectra_over_many_orders_of_magnitude_lose_nothing(method):
    matrix = rotated(10.0 ** -np.arange(80.0), seed=1)
    found = method(matrix, 60, generator())
    assert found.value == pytest.approx(float(matrix.trace()), abs=1e-12)
    assert np.isfinite(found.standard_error)


@pytest.mark.parametrize("method", ALL)
@pytest.mark.parametrize("spectrum", SPECTRA)
def test_float32_operators_give_nearly_the_result_of_float64(method, spectrum):
    exact = method(rotated(SPECTRA[spectrum]), 20, generator(2))
    found = method(rotated(SPECTRA[spectrum], dtype=torch.float32), 20, generator(2))
    scale = np.abs(SPECTRA[spectrum]).max()
    assert found.value == pytest.approx(exact.value, rel=1e-5, abs=1e-5 * scale)
    assert found.standard_error == pytest.approx(exact.standard_error, rel=1e-3, abs=1e-5 * scale)


def test_inner_products_do_not_lose_a_small_term_beside_large_ones():
    matrix = torch.diag(torch.tensor([1e8, 1.0, -1e8]))
    assert hutchinson_trace(matrix, 3, generator()).value == pytest.approx(1.0, abs=1e-7)


@pytest.mark.parametrize("method", ALL)
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("products_first", [1, 5, 12])
def test_products_that_are_not_finite_are_named(method, bad, products_first):
    operator = Counted(rotated(np.arange(30.0)), bad_from=products_first, bad=bad)
    with pytest.raises(NotFiniteError, match=f"product {products_first} of 12"):
        method(operator, 12, generator())


@pytest.mark.parametrize("method", SKETCHED)
def test_products_that_are_not_finite_are_named_in_the_exact_trace(method):
    with pytest.raises(NotFiniteError, match="product 3 of 5"):
        method(Counted(rotated(np.arange(5.0)), bad_from=3), 40, generator())


@pytest.mark.parametrize(("method", "least"), [(method, 4 if method in SKETCHED else 2) for method in ALL])
def test_too_few_products_are_refused(method, least):
    for products in (least - 1, 0, -3, 6.0, True, None):
        with pytest.raises(InputError, match=f"products is .*; allowed: integers from {least}"):
            method(rotated(SPECTRA["decaying"]), products, generator())
    assert np.isfinite(method(rotated(SPECTRA["decaying"]), least, generator()).standard_error)


@pytest.mark.parametrize("method", ALL)
def test_operators_that_are_not_square_are_refused(method):
    for shape in ((3, 4), (0, 0), (3,)):
        with pytest.raises(InputError, match="give a symmetric one"):
            method(torch.ones(shape), 12, generator())


def test_sign_probes_are_signs_and_the_same_in_every_precision():
    single, double = (
        rademacher_vector(torch.empty(999, 999, dtype=t), generator()) for t in (torch.float32, torch.float64)
    )
    assert set(single.tolist()) == {-1.0, 1.0}
    assert torch.equal(single.double(), double)
    assert abs(double.mean()) < 4 / np.sqrt(999)
