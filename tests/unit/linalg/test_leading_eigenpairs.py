"""Leading eigenpairs against spectra that are known."""

import numpy as np
import pytest
import torch
from interruptions import Interrupted, MemoryStore
from known_spectra import Counted, generator, rotated

from hessketch.errors import InputError, NotFiniteError
from hessketch.linalg.leading_eigenpairs import Room, Wanted, leading_eigenpairs

PRECISIONS = pytest.mark.parametrize("dtype", [torch.float64, torch.float32])


def _marchenko_pastur() -> np.ndarray:
    data = np.random.default_rng(1).standard_normal((300, 150))
    return np.linalg.eigvalsh(data.T @ data / 300)


def _clustered(gap: float) -> np.ndarray:
    return np.r_[np.linspace(-1, 1, 110), 100, 100 * (1 - gap), -70, -70 * (1 - gap), 50, 40, 30, 20, 15, 12]


# Spectra, and of how many leading values a single start vector is sure to find the exact ones.
SPECTRA = {
    "spikes over a Gaussian bulk": (
        np.r_[np.random.default_rng(0).standard_normal(190), np.geomspace(10, 100, 10)],
        10,
    ),
    "gaps of 1e-2": (_clustered(1e-2), 10),
    "gaps of 1e-4": (_clustered(1e-4), 10),
    "gaps of 1e-8": (_clustered(1e-8), 1),
    "indefinite, of equal magnitudes": (np.r_[np.linspace(-1, 1, 110), 50, -50, 20, -20, 10, -10, 5, -5, 3, -3], 10),
    "rank deficient": (np.r_[np.zeros(100), np.arange(1.0, 6)], 10),
    "geometric": (np.geomspace(1e-6, 1e3, 120), 10),
    "Marchenko-Pastur without outliers": (_marchenko_pastur(), 10),
    "one by one": (np.array([-2.5]), 1),
    "one by one, zero": (np.array([0.0]), 1),
    "zero": (np.zeros(30), 10),
    "identity": (np.ones(30), 10),
    "fewer dimensions than asked for": (np.array([-8.0, 7, -6, 5, 4, 3, -2, 1]), 8),
}


def by_magnitude(values) -> np.ndarray:
    return values[np.argsort(-np.abs(values), kind="stable")]


def exact_values(matrix) -> np.ndarray:
    return by_magnitude(np.linalg.eigvalsh(matrix.double().numpy()))


def residuals(matrix, pairs) -> np.ndarray:
    v = pairs.vectors.double()
    return (matrix.double() @ v - v * torch.from_numpy(pairs.values)).norm(dim=0).numpy()


@PRECISIONS
@pytest.mark.parametrize("name", SPECTRA)
def test_as_many_as_asked_for_are_found_each_within_its_bound(name, dtype):
    values, sure = SPECTRA[name]
    operator = Counted(rotated(values, dtype=dtype))
    exact, eps = exact_values(operator.matrix), torch.finfo(dtype).eps
    found = leading_eigenpairs(operator, 10, generator(3))
    assert found.converged
    assert len(found.values) == min(10, len(values))
    assert found.products == operator.products <= 100
    assert (np.diff(np.abs(found.values)) <= 0).all()
    assert (np.abs(found.values[:, None] - exact).min(axis=1) <= found.residuals).all()
    assert (found.residuals <= np.maximum(1e-3 * np.abs(found.values), 100 * eps * np.abs(exact[0]))).all()
    error = np.abs(np.abs(found.values[:sure]) - np.abs(exact[:sure]))
    assert (error <= found.residuals[:sure]).all(), f"found {found.values[:sure]}, exact are {exact[:sure]}"
    v = found.vectors
    assert v.dtype == dtype and v.shape == (len(values), len(found.values))
    assert (v.double().T @ v.double() - torch.eye(v.shape[1])).abs().max().item() < 20 * eps
    true = residuals(operator.matrix, found)
    assert (true <= found.residuals).all()
    assert (found.residuals <= true + 100 * eps * np.abs(exact[0])).all()
    assert found.reorthogonalization == f"full, {str(dtype)[6:]} basis on cpu"


def test_equal_magnitudes_keep_their_signs():
    values, _ = SPECTRA["indefinite, of equal magnitudes"]
    found = leading_eigenpairs(rotated(values), 8, generator(3))
    assert sorted(found.values) == pytest.approx([-50, -20, -10, -5, 5, 10, 20, 50], abs=1e-3)


def test_a_smaller_tolerance_takes_more_products_and_gives_smaller_residuals():
    matrix = rotated(SPECTRA["Marchenko-Pastur without outliers"][0])
    coarse, fine = (leading_eigenpairs(matrix, 5, generator(), tolerance=t) for t in (1e-2, 1e-9))
    assert coarse.products < fine.products < 150
    assert (fine.residuals <= 1e-9 * fine.values).all()
    assert fine.values == pytest.approx(exact_values(matrix)[:5], rel=1e-12)


@pytest.mark.parametrize("count", [1, 3])
def test_few_pairs_of_a_large_gap_take_few_products(count):
    values = np.r_[np.linspace(-1, 1, 197), 1000.0, 800, -500]
    found = leading_eigenpairs(rotated(values), count, generator())
    assert found.values == pytest.approx([1000, 800, -500][:count], rel=1e-6)
    assert found.products <= 4 + count


@PRECISIONS
def test_a_trained_networks_spectrum_takes_a_few_tens_of_products(dtype):
    rng = np.random.default_rng(2)
    bulk = np.minimum(4.9, 0.05 * rng.pareto(1.5, 990)) * rng.choice([1, 1, 1, -1], 990)
    values = np.r_[bulk, np.geomspace(10, 100, 10)]
    matrix = torch.diag(torch.from_numpy(values).to(dtype))
    for seed in range(5):
        found = leading_eigenpairs(matrix, 10, generator(seed))
        assert found.converged
        assert found.values == pytest.approx(by_magnitude(values)[:10], rel=1e-4)
        assert found.products <= 45, f"seed {seed}: {found.products} products"


@pytest.mark.parametrize("memory", [None, 0])
def test_too_few_steps_give_fewer_pairs_and_say_so(memory):
    matrix = rotated(SPECTRA["spikes over a Gaussian bulk"][0])
    found = leading_eigenpairs(matrix, 10, generator(), max_steps=11, memory=memory)
    assert not found.converged
    assert found.products == 11
    assert 0 < len(found.values) < 10
    assert len(found.residuals) == len(found.values)
    assert found.values == pytest.approx(exact_values(matrix)[: len(found.values)], rel=1e-3)
    assert found.vectors is None if memory == 0 else found.vectors.shape == (200, len(found.values))


def test_a_single_step_of_a_large_operator_finds_nothing():
    found = leading_eigenpairs(rotated(np.arange(50.0)), 3, generator(), max_steps=1)
    assert (len(found.values), found.vectors.shape, found.converged) == (0, (50, 0), False)


@PRECISIONS
@pytest.mark.parametrize("name", [name for name in SPECTRA if "1e-8" not in name])
def test_without_memory_there_are_values_only_none_twice(name, dtype):
    values, sure = SPECTRA[name]
    operator = Counted(rotated(values, dtype=dtype))
    found, exact = leading_eigenpairs(operator, 10, generator(3), memory=0), exact_values(operator.matrix)
    assert found.vectors is None
    assert found.reorthogonalization == "none, for want of memory: copies of converged eigenvalues were merged"
    assert found.products == operator.products
    assert (np.abs(found.values[:, None] - exact).min(axis=1) <= found.residuals).all()
    distinct = len(np.unique(values))
    if distinct >= 10:
        error = np.abs(np.abs(found.values[:sure]) - np.abs(exact[:sure]))
        assert found.converged and len(found.values) == 10
        assert (error <= found.residuals[:sure]).all(), f"found {found.values}, exact are {exact[:sure]}"
    else:  # copies of a multiple eigenvalue cannot be told from false ones: it is given once
        once = by_magnitude(np.unique(values))
        least = distinct if distinct == len(values) else max(np.count_nonzero(once), 1)  # zero may stay rounding
        assert least <= len(found.values) <= distinct
        assert found.converged == (distinct == len(values))
        assert found.values == pytest.approx(once[: len(found.values)], abs=1e-5)


@PRECISIONS
@pytest.mark.parametrize("steps", [64, 128, 256])
def test_without_memory_long_runs_report_no_ghosts(steps, dtype):
    values = SPECTRA["spikes over a Gaussian bulk"][0]
    matrix = torch.diag(torch.from_numpy(np.r_[values, values[:100] / 2]).to(dtype))
    exact = by_magnitude(matrix.diagonal().double().numpy())
    for seed in range(3):
        # A tolerance that no value can meet but by rounding keeps the run going to its last step.
        found = leading_eigenpairs(matrix, 40, generator(seed), tolerance=1e-14, max_steps=steps, memory=0)
        assert found.products == steps
        nearest = np.abs(found.values[:, None] - exact).argmin(axis=1)
        assert len(set(nearest)) == len(nearest), f"seed {seed}: {found.values}"
        assert (np.abs(found.values - exact[nearest]) <= found.residuals).all()


def test_memory_for_so_many_vectors_limits_the_steps():
    matrix = rotated(SPECTRA["Marchenko-Pastur without outliers"][0])
    found = leading_eigenpairs(matrix, 2, generator(), tolerance=1e-12, memory=32 * 150 * 8 + 7)
    assert not found.converged and found.products == 32
    assert found.vectors is not None
    # Less than a run is expected to take is not worth starting with.
    assert leading_eigenpairs(matrix, 2, generator(), memory=31 * 150 * 8).vectors is None


def test_room_is_for_the_vectors_of_the_precision_asked_for():
    matrix, wanted = torch.eye(100), Wanted(1, 1e-3, 30, 1000)
    room = Room(matrix, wanted, 50 * 100 * 4)
    assert (room.capacity, room.steps(wanted), room.dtype) == (50, 50, torch.float32)
    assert Room(matrix, wanted, 50 * 100 * 4, torch.float64).place is None
    room = Room(matrix, wanted, 50 * 100 * 8, torch.float64)
    assert (room.capacity, room.basis().dtype) == (50, torch.float64)
    assert room.describe() == "full, float64 basis on cpu"
    none = Room(matrix, wanted, 0)
    assert (none.basis(), none.steps(wanted)) == (None, 1000)


def test_a_run_that_was_interrupted_gives_the_same_pairs_bit_for_bit():
    matrix, store = rotated(SPECTRA["indefinite, of equal magnitudes"][0]), MemoryStore(2)
    undisturbed = leading_eigenpairs(matrix, 10, generator(4))
    with pytest.raises(KeyboardInterrupt):
        leading_eigenpairs(Interrupted(matrix, 9), 10, generator(4), store=store)
    resumed = leading_eigenpairs(matrix, 10, generator(4), store=store)
    assert resumed.products == undisturbed.products
    assert np.array_equal(resumed.values, undisturbed.values)
    assert np.array_equal(resumed.residuals, undisturbed.residuals)
    assert torch.equal(resumed.vectors, undisturbed.vectors)


def test_a_seed_repeats_the_pairs_and_progress_counts_the_products():
    matrix, told = rotated(SPECTRA["geometric"][0]), []
    first = leading_eigenpairs(matrix, 4, generator(1), progress=lambda *numbers: told.append(numbers))
    same, other = (leading_eigenpairs(matrix, 4, generator(seed)) for seed in (1, 2))
    assert np.array_equal(first.values, same.values)
    assert not np.array_equal(first.values, other.values)
    assert [done for done, _ in told] == list(range(1, first.products + 1))


@pytest.mark.parametrize(("arguments", "message"), [({"count": 0}, "count is 0"), ({"max_steps": 0}, "max_steps is 0")])
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        leading_eigenpairs(torch.eye(3), **{"count": 1, "generator": generator(), **arguments})


def test_an_operator_that_is_not_square_symmetric_or_finite_is_refused():
    with pytest.raises(InputError, match="no spectrum"):
        leading_eigenpairs(torch.ones(3, 4), 1, generator())
    with pytest.raises(InputError, match="not symmetric"):
        leading_eigenpairs(torch.randn(30, 30, generator=generator()), 1, generator())
    with pytest.raises(NotFiniteError, match="step 2"):
        leading_eigenpairs(Counted(torch.diag(torch.arange(9.0)), bad_from=2), 5, generator())


def test_a_tolerance_that_means_nothing_is_refused():
    for tolerance in (-1.0, 0.0, float("nan"), 2.0):
        with pytest.raises(InputError, match=r"tolerance is .*; allowed: numbers between 0 and 1"):
            leading_eigenpairs(torch.eye(3), 1, generator(), tolerance=tolerance)
