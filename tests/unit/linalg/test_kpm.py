"""The Kernel Polynomial Method against Chebyshev polynomials written out."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from known_spectra import Counted, generator, integral, rotated

from hessketch.errors import InputError, NotFiniteError
from hessketch.linalg.kpm import DAMPINGS, chebyshev_moments, kpm_density, kpm_density_of_ritz, kpm_products
from hessketch.linalg.lanczos import Ritz, ritz, slow_lanczos
from hessketch.linalg.normalization import Bounds


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(-3, 5), min_size=1, max_size=10), st.integers(2, 60), st.integers(0, 99))
def test_moments_are_the_chebyshev_polynomials_of_the_eigenvalues(values, moments, seed):
    start = torch.randn(len(values), generator=generator(seed), dtype=torch.float64)
    start /= start.norm()
    found = chebyshev_moments(torch.diag(torch.tensor(values).double()), Bounds(-3.1, 5.1), moments, start)
    angles = np.arccos((np.array(values, dtype=np.float32).astype(float) - 1) / 4.1)
    expected = np.cos(np.arange(moments)[:, None] * angles) @ (start.numpy() ** 2)
    assert found == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize("moments", [2, 3, 10, 11])
def test_half_as_many_products_as_moments_suffice(moments):
    operator = Counted(rotated(np.linspace(-1, 1, 9)))
    kpm_density(operator, Bounds(-1.1, 1.1), generator(), moments=moments, vectors=3)
    assert operator.products == 3 * kpm_products(moments) == 3 * (moments // 2)


def test_jackson_damping_turns_one_eigenvalue_into_a_gaussian_of_the_stated_width():
    # Weisse et al. 2006, equation 75: at t = 0 the kernel of N moments has variance
    # N (1 - cos(2 pi / (N + 1))) / (2 (N + 1)), nearly (pi / N)^2, and nearly the shape of a Gaussian.
    density = kpm_density(
        2.0 * torch.eye(4, dtype=torch.float64), Bounds(-2.0, 6.0), generator(), moments=128, points=8001
    )
    x, weight = density.eigenvalues, density.density * np.diff(density.eigenvalues)[0]
    assert density.broadening == pytest.approx(4 * np.pi / 128)
    assert (weight * x).sum() == pytest.approx(2, abs=1e-6)
    variance = 16 * 128 * (1 - np.cos(2 * np.pi / 129)) / (2 * 129)
    assert (weight * (x - 2) ** 2).sum() == pytest.approx(variance, rel=5e-3)
    gaussian = np.exp(-((x - 2) ** 2) / (2 * variance)) / np.sqrt(2 * np.pi * variance)
    assert np.abs(density.density - gaussian).max() < 0.04 * gaussian.max()


@pytest.mark.parametrize("damping", ["jackson", "lanczos_sigma", "none"])
def test_every_damping_keeps_the_integral(damping):
    matrix = rotated(np.linspace(-1, 3, 60))
    density = kpm_density(matrix, Bounds(-1.2, 3.2), generator(), moments=40, vectors=2, points=4000, damping=damping)
    assert integral(density) == pytest.approx(1, abs=5e-3)


def test_dampings_differ_in_sharpness_and_in_sign():
    found = {
        damping: kpm_density(torch.zeros(3, 3), Bounds(-1.0, 1.0), generator(), 64, 1, 2001, damping).density
        for damping in ("jackson", "lanczos_sigma", "none")
    }
    assert found["jackson"].min() > -1e-9
    assert found["none"].min() < found["lanczos_sigma"].min() < -1e-3
    assert found["jackson"].max() < found["lanczos_sigma"].max() < found["none"].max()
    # Undamped, the density of one eigenvalue at 0 is (1 + 2 * 31) / pi there: T_2k(0) = (-1)^k.
    assert found["none"][1000] == pytest.approx(63 / np.pi, rel=1e-5)


def test_the_density_of_chebyshev_nodes_is_the_arcsine_law():
    nodes = np.cos(np.pi * (np.arange(200) + 0.5) / 200)  # their moments from 1 to 199 vanish
    density = kpm_density(rotated(nodes), Bounds(-1.0, 1.0), generator(), moments=20, vectors=200, points=401)
    inner = np.abs(density.eigenvalues) < 0.95
    arcsine = 1 / (np.pi * np.sqrt(1 - density.eigenvalues[inner] ** 2))
    error = density.standard_error[inner]
    assert (np.abs(density.density[inner] - arcsine) < 4.5 * error).all()
    assert (error < 0.05 * arcsine).all()


def test_shift_and_scale_of_operator_and_bounds_move_the_density():
    matrix = rotated(np.linspace(-1, 1, 20))
    before = kpm_density(matrix, Bounds(-1.1, 1.1), generator(2), moments=30)
    moved = 4 * matrix + 3 * torch.eye(20, dtype=torch.float64)
    after = kpm_density(moved, Bounds(-1.4, 7.4), generator(2), moments=30)
    assert after.eigenvalues == pytest.approx(4 * before.eigenvalues + 3)
    assert 4 * after.density == pytest.approx(before.density, abs=1e-9)
    assert np.isnan(after.standard_error).all()


def test_products_that_are_not_finite_name_the_moment():
    with pytest.raises(NotFiniteError, match="moment 6 of 20"):
        kpm_density(Counted(rotated(np.arange(5.0)), bad_from=3), Bounds(-1.0, 5.0), generator(), moments=20)


def test_eigenvalues_outside_the_bounds_are_reported():
    with pytest.raises(NotFiniteError, match="outside the bounds"):
        kpm_density(rotated(np.arange(5.0)), Bounds(-0.01, 0.01), generator(), moments=256)


def test_progress_runs_over_all_vectors():
    told = []
    kpm_density(
        torch.eye(4), Bounds(0.0, 2.0), generator(), 6, vectors=2, progress=lambda *numbers: told.append(numbers)
    )
    assert told == [(i, 6) for i in range(1, 7)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"moments": 1}, "moments is 1"),
        ({"vectors": 0}, "vectors is 0"),
        ({"points": 1}, "points is 1"),
        ({"damping": "hann"}, "allowed: jackson, lanczos_sigma, none"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        kpm_density(torch.eye(3), Bounds(-1.0, 2.0), generator(), **arguments)


def of_ritz(matrix, steps: int, bounds: Bounds, vectors: int = 2, seed: int = 3, **options):
    """From Lanczos runs of so many steps from the vectors that `kpm_density` draws with the same seed."""
    draws = generator(seed)
    found = [ritz(slow_lanczos(matrix, steps, draws)) for _ in range(vectors)]
    return kpm_density_of_ritz(found, bounds, **options)


@pytest.mark.parametrize("damping", DAMPINGS)
@pytest.mark.parametrize("steps", [1, 7, 20, 50])
def test_a_lanczos_run_gives_the_density_of_twice_as_many_moments_as_steps(steps, damping):
    matrix, bounds = rotated(np.r_[np.linspace(-1, 1, 47), 2.0, 2.5, 3.0]), Bounds(-1.2, 3.2)
    found = of_ritz(matrix, steps, bounds, moments=2 * steps, points=300, damping=damping)
    direct = kpm_density(matrix, bounds, generator(3), moments=2 * steps, vectors=2, points=300, damping=damping)
    assert np.array_equal(found.eigenvalues, direct.eigenvalues)
    assert found.density == pytest.approx(direct.density, abs=1e-8)
    assert found.standard_error == pytest.approx(direct.standard_error, abs=1e-8)
    assert found.broadening == direct.broadening


def test_fewer_moments_than_the_run_gives_are_the_first_ones():
    matrix, bounds = rotated(np.linspace(-1, 1, 40)), Bounds(-1.1, 1.1)
    found = of_ritz(matrix, 30, bounds, vectors=1, moments=25)
    direct = kpm_density(matrix, bounds, generator(3), moments=25)
    assert found.density == pytest.approx(direct.density, abs=1e-8)
    assert np.isnan(found.standard_error).all()


def test_moments_that_the_shortest_run_does_not_give_are_left_out():
    bounds = Bounds(-1.1, 1.1)
    short, long = (Ritz(np.linspace(-1, 1, m), np.full(m, 1 / m), np.zeros(m)) for m in (6, 9))
    found = kpm_density_of_ritz([long, short], bounds, moments=100)
    assert found.broadening == pytest.approx(np.pi * 1.1 / 12)
    assert np.array_equal(found.density, kpm_density_of_ritz([long, short], bounds, moments=12).density)


@pytest.mark.parametrize("moments", [2, 11, 64])
@pytest.mark.parametrize("damping", DAMPINGS)
def test_the_mass_of_ritz_values_with_weights_of_sum_one_is_one(moments, damping):
    rng = np.random.default_rng(moments)
    weights = rng.random(32)
    pairs = Ritz(np.sort(rng.uniform(-2, 5, 32)), weights / weights.sum(), np.zeros(32))
    density = kpm_density_of_ritz([pairs], Bounds(-2.5, 5.5), moments, points=20001, damping=damping)
    assert integral(density) == pytest.approx(1, abs=0.01)  # the ends' square roots, on an even grid


def test_a_single_eigenvalue_of_ritz_values_alone_gives_one_peak_there():
    density = kpm_density_of_ritz([Ritz(np.full(32, 1.0), np.full(32, 1 / 32), np.zeros(32))], Bounds(-3.0, 5.0), 64)
    assert density.eigenvalues[density.density.argmax()] == pytest.approx(1, abs=0.01)
    assert (density.density > -1e-9).all()
