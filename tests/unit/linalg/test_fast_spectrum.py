"""The fast method: its products, pairs and settings, with little memory, and after a kill."""

import dataclasses

import numpy as np
import pytest
import torch
from fast_spectra import (
    BULK,
    LEADING,
    MEMORIES,
    PRECISIONS,
    SHORT,
    SPIKES,
    VALUES,
    diagonal,
    distribution,
    exact_sums,
    spectrum,
    sums_of,
)
from interruptions import Interrupted, MemoryStore
from known_spectra import Counted, generator, integral, rotated

from hessketch.errors import InputError, NotFiniteError
from hessketch.linalg.fast_spectrum import FastSettings, fast_spectrum


@pytest.fixture(scope="module")
def operator():
    return Counted(rotated(VALUES))


@pytest.fixture(scope="module")
def told():
    return []


@pytest.fixture(scope="module")
def found(operator, told):
    settings = FastSettings(kpm_moments=60, grid_points=512)
    return fast_spectrum(operator, settings, generator(1), lambda *numbers: told.append(numbers))


def test_products_are_counted_and_those_of_the_runs_alone(operator, found):
    assert found.products == operator.products == 96


def test_progress_never_goes_back_and_ends_with_all_products(told, found):
    done, planned = np.array(told).T
    assert (np.diff(done) >= 0).all()
    assert (done <= planned).all()
    assert told[0] == (1, 96) and told[-1] == (96, 96)


def test_the_pairs_are_the_leading_ones_each_within_its_bound(operator, found):
    pairs = found.pairs
    assert found.unconverged == 0
    assert (np.abs(pairs.values - LEADING) <= pairs.residuals).all()
    assert (pairs.residuals <= 1e-3 * np.abs(pairs.values)).all()
    v = pairs.vectors
    assert (v.T @ v - torch.eye(10)).abs().max().item() < 1e-13
    products = operator.matrix @ v
    assert ((products - v * torch.from_numpy(pairs.values)).norm(dim=0).numpy() <= pairs.residuals).all()
    assert pairs.paper_values == pytest.approx(products.norm(dim=0).numpy(), rel=1e-9)
    assert found.reorthogonalization == "full, float64 basis on cpu"


def test_densities_integrate_to_one_and_every_start_vector_has_all_weight(found):
    raw, deflated = found.parts
    assert (raw.deflated, deflated.deflated) == (False, True)
    for part in found.parts:
        assert integral(part.density) == pytest.approx(1, abs=1e-6)
        assert len(part.density.eigenvalues) == 512
        assert np.isfinite(part.density.standard_error).all()
        assert len(part.ritz) == 2
        for pairs in part.ritz:
            assert pairs.weights.sum() == pytest.approx(1, abs=1e-12)
            assert (pairs.weights >= 0).all()
            assert (np.diff(pairs.values) >= 0).all()
            assert part.bounds.lower < pairs.values[0] and pairs.values[-1] < part.bounds.upper


def test_the_raw_part_holds_each_leading_eigenvalue_once_and_the_deflated_one_none(found):
    raw, deflated = found.parts
    for pairs in raw.ritz:
        far = np.abs(pairs.values) > 5
        assert np.sort(pairs.values[far]) == pytest.approx(np.sort(SPIKES), rel=1e-6)
        assert pairs.weights[far] == pytest.approx([1 / 200] * 10)
    for pairs in deflated.ritz:
        assert np.abs(pairs.values).max() < np.abs(BULK).max() + 1e-9
        assert pairs.weights[pairs.values == 0].sum() == pytest.approx(10 / 200)
    assert deflated.bounds.upper < 5 < 60 < raw.bounds.upper


def test_kpm_takes_no_product_of_its_own_and_is_the_raw_density(found):
    assert integral(found.kpm) == pytest.approx(1, abs=0.01)
    raw = found.parts[0]
    assert np.array_equal(found.kpm.eigenvalues, raw.density.eigenvalues)
    beyond = found.kpm.eigenvalues > 50  # a single eigenvalue, with its exact weight
    above = np.trapezoid(found.kpm.density[beyond], found.kpm.eigenvalues[beyond])
    assert above == pytest.approx((VALUES > 50).mean(), abs=0.002)


@PRECISIONS
def test_without_memory_the_results_agree_and_say_how_they_were_made(dtype):
    matrix = diagonal(VALUES, dtype)
    for seed in range(3):
        with_vectors, without = (fast_spectrum(matrix, SHORT, generator(seed), memory=m) for m in (None, 0))
        assert without.reorthogonalization == "none, for want of memory: copies of converged eigenvalues were merged"
        assert without.pairs.vectors is None
        assert (np.abs(without.pairs.values - LEADING) <= without.pairs.residuals).all()
        (a, error), (b, other) = sums_of(with_vectors), sums_of(without)
        assert (np.abs(a - b) <= 4 * np.hypot(error, other)).all()
        assert (np.abs(b - exact_sums(VALUES)) <= 4 * other).all()
        for part, same in zip(without.parts, with_vectors.parts, strict=True):
            assert integral(part.density) == pytest.approx(1, abs=1e-6)
            points = np.linspace(-2, 2, 5)
            (a, _), (b, _) = (distribution(p.ritz, points, 0.5) for p in (part, same))
            assert np.abs(a - b).max() < 0.02  # the start vectors are the same


def test_without_memory_long_runs_keep_their_ghosts_out_of_pairs_and_deflated_density():
    values = np.r_[np.linspace(-1, 1, 290), np.geomspace(10, 100, 10)]
    for seed in range(3):
        found = spectrum(values, seed, 0, lanczos_steps=150)
        assert found.pairs.values == pytest.approx(np.geomspace(100, 10, 10), rel=1e-9)
        assert found.parts[1].bounds.upper < 1.2
        assert all(np.abs(pairs.values).max() < 1.001 for pairs in found.parts[1].ritz)
        got, error = sums_of(found)
        assert (np.abs(got - exact_sums(values)) <= 4 * error).all()


def test_a_single_start_vector_gives_all_but_the_band():
    found = spectrum(VALUES, start_vectors=1)
    assert found.products == 24
    assert [len(part.ritz) for part in found.parts] == [1, 1]
    assert np.isnan(found.parts[0].density.standard_error).all()
    got, error = sums_of(found)
    assert (error > 0).all()
    assert (np.abs(got - exact_sums(VALUES)) <= 4 * error).all()


def test_without_pairs_there_is_the_raw_part_only():
    found = spectrum(BULK, top=0)
    assert found.pairs is None
    assert [part.deflated for part in found.parts] == [False]
    assert (found.products, found.unconverged) == (48, 0)
    assert integral(found.parts[0].density) == pytest.approx(1, abs=1e-6)


def test_too_few_steps_leave_pairs_out_and_say_how_many():
    found = spectrum(VALUES, lanczos_steps=8, max_steps=11)
    assert 0 < found.unconverged < 10
    assert len(found.pairs.values) == 10 - found.unconverged
    assert found.products == 11 + 8
    assert found.pairs.values == pytest.approx(LEADING[: len(found.pairs.values)], rel=1e-3)
    assert all(integral(part.density) == pytest.approx(1, abs=1e-6) for part in found.parts)


def test_memory_for_few_vectors_limits_the_steps():
    operator = Counted(diagonal(np.linspace(0, 1, 300)))
    found = fast_spectrum(operator, FastSettings(lanczos_steps=20, top=1), generator(), memory=27 * 300 * 8)
    assert found.reorthogonalization == "full, float64 basis on cpu"
    assert operator.products == found.products == 27 + 20
    assert found.pairs is None and found.unconverged == 1


@pytest.mark.parametrize(
    ("precision", "said", "dtype"),
    [("same", "float32", torch.float32), ("float64", "float64", torch.float64), ("float32", "float32", torch.float32)],
)
def test_the_basis_is_kept_in_the_precision_asked_for(precision, said, dtype):
    matrix = diagonal(VALUES, torch.float32)
    found = fast_spectrum(matrix, dataclasses.replace(SHORT, basis_precision=precision), generator())
    assert found.reorthogonalization == f"full, {said} basis on cpu"
    assert found.pairs.vectors.dtype == dtype
    assert found.pairs.values == pytest.approx(LEADING, rel=1e-5)


def test_the_same_seed_gives_the_same_numbers():
    first, same, other = (spectrum(VALUES, seed, kpm_moments=20) for seed in (1, 1, 2))
    assert_equal(first, same)
    assert not np.array_equal(first.parts[0].density.density, other.parts[0].density.density)


def assert_equal(a, b) -> None:
    """Two results are the same, bit for bit."""
    if dataclasses.is_dataclass(a):
        for field in dataclasses.fields(a):
            assert_equal(getattr(a, field.name), getattr(b, field.name))
    elif isinstance(a, tuple):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert_equal(x, y)
    elif isinstance(a, torch.Tensor):
        assert torch.equal(a, b)
    elif isinstance(a, np.ndarray):
        assert np.array_equal(a, b, equal_nan=True)
    else:
        assert a == b


@MEMORIES
@PRECISIONS
@pytest.mark.parametrize(("after", "every"), [(7, 1), (31, 1), (31, 4), (45, 5)])
def test_a_run_killed_in_any_start_vector_goes_on_bit_for_bit(after, every, dtype, memory):
    matrix = rotated(VALUES, dtype=dtype)
    settings = dataclasses.replace(SHORT, kpm_moments=10)
    undisturbed = fast_spectrum(matrix, settings, generator(1), memory=memory)
    places: dict[str, MemoryStore] = {}

    def stores(name: str) -> MemoryStore:
        return places.setdefault(name, MemoryStore(every))

    with pytest.raises(KeyboardInterrupt):
        fast_spectrum(Interrupted(matrix, after), settings, generator(1), memory=memory, stores=stores)
    assert len(places) == (1 if after < 24 else 2)
    told, operator = [], Counted(matrix)
    resumed = fast_spectrum(
        operator, settings, generator(1), lambda *numbers: told.append(numbers), memory=memory, stores=stores
    )
    assert operator.products < undisturbed.products
    assert_equal(resumed, undisturbed)
    done = [number for number, _ in told]
    assert done == sorted(done) and told[-1] == (resumed.products, resumed.products)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"top": -1}, "top is -1; allowed: integers from 0"),
        ({"top": 2.0}, "top is 2.0"),
        ({"tolerance": 0.0}, "tolerance is 0.0; allowed: numbers between 0 and 1"),
        ({"tolerance": 1.0}, "tolerance is 1.0"),
        ({"tolerance": float("nan")}, "tolerance is nan"),
        ({"lanczos_steps": 1}, "lanczos_steps is 1; allowed: integers from 2"),
        ({"max_steps": 0}, "max_steps is 0"),
        ({"max_steps": 47}, "max_steps 47 is less than lanczos_steps 48"),
        ({"start_vectors": 0}, "start_vectors is 0"),
        ({"start_vectors": True}, "start_vectors is True"),
        ({"grid_points": 15}, "grid_points is 15; allowed: integers from 16"),
        ({"grid_points": 47}, "grid_points 47 does not resolve lanczos_steps 48"),
        ({"kpm_moments": -2}, "kpm_moments is -2"),
        ({"kpm_moments": 1}, "kpm_moments is 1; allowed: 0 for no KPM, or integers from 2"),
        ({"broadening": "gaussian"}, "broadening 'gaussian' is unknown; allowed: paper, spacing"),
        ({"basis_place": "disk"}, "basis_place 'disk' is unknown; allowed: auto, device, host"),
        ({"basis_precision": "float16"}, "basis_precision 'float16' is unknown; allowed: same, float32, float64"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        FastSettings(**settings)


def test_an_operator_that_is_not_symmetric_or_finite_is_refused():
    with pytest.raises(InputError, match="not symmetric"):
        fast_spectrum(torch.randn(90, 90, generator=generator()), SHORT, generator())
    with pytest.raises(NotFiniteError, match="Lanczos, step 6:"):
        fast_spectrum(Counted(rotated(VALUES), bad_from=30), SHORT, generator())


@pytest.mark.parametrize("values", [np.r_[np.zeros(60), np.arange(1.0, 13)], np.repeat(np.arange(6.0), 12), VALUES])
def test_a_coarser_basis_than_the_operator_is_no_asymmetry(values):
    for seed in range(3):
        matrix = rotated(values)
        settings = dataclasses.replace(SHORT, basis_precision="float32", start_vectors=3)
        found = fast_spectrum(matrix, settings, generator(seed))
        exact = np.linalg.eigvalsh(matrix.numpy())
        nearest = np.abs(found.pairs.values[:, None] - exact).min(axis=1)
        assert (nearest <= found.pairs.residuals).all()
        v = found.pairs.vectors.double()
        assert (v.T @ v - torch.eye(v.shape[1])).abs().max().item() < 1e-5
