"""The fast method against spectra that are known, against the paper's method, and against itself without memory."""

import dataclasses

import numpy as np
import pytest
import torch
from interruptions import Interrupted, MemoryStore
from known_spectra import Counted, generator, integral, rotated
from scipy.special import ndtr
from scipy.stats import wasserstein_distance

from hessketch.errors import InputError, NotFiniteError
from hessketch.linalg.deflation import Eigenpairs, deflate
from hessketch.linalg.fast_spectrum import FastSettings, fast_spectrum
from hessketch.linalg.lanczos import Ritz, ritz, slow_lanczos
from hessketch.linalg.paper_spectrum import PaperSettings, paper_spectrum

BULK = np.random.default_rng(0).standard_normal(190)
SPIKES = np.geomspace(10, 100, 10) * np.r_[np.ones(7), -1, 1, -1]
VALUES = np.r_[BULK, SPIKES]
LEADING = SPIKES[::-1]
DEFLATED = np.r_[BULK, np.zeros(10)]
SHORT = FastSettings(lanczos_steps=24)
SEEDS = 60

PRECISIONS = pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
MEMORIES = pytest.mark.parametrize("memory", [None, 0])


def diagonal(values, dtype=torch.float64) -> torch.Tensor:
    """A random start vector sees the same in it as in a rotated one."""
    return torch.diag(torch.as_tensor(np.asarray(values, float)).to(dtype))


def spectrum(values, seed=0, memory=None, settings=SHORT, **changes):
    return fast_spectrum(diagonal(values), dataclasses.replace(settings, **changes), generator(seed), memory=memory)


def exact_sums(values) -> np.ndarray:
    return np.array([values.sum(), (values**2).sum(), np.abs(values).sum()])


def sums_of(found) -> tuple[np.ndarray, np.ndarray]:
    """Trace, squares and magnitudes, and their standard errors."""
    three = (found.sums.trace, found.sums.frobenius_squared, found.sums.absolute)
    return np.array([s.value for s in three]), np.array([s.standard_error for s in three])


def distribution(measures, points, width) -> tuple[np.ndarray, np.ndarray]:
    """Share of the spectrum below each point, steps smoothed to the width, and its standard error."""
    shares = np.array([[m.weights @ ndtr((x - m.values) / width) for x in points] for m in measures])
    return shares.mean(axis=0), shares.std(axis=0, ddof=1) / np.sqrt(len(shares))


def exact_density(density, values) -> np.ndarray:
    distance = (density.eigenvalues[:, None] - values) / density.broadening
    return np.exp(-(distance**2) / 2).mean(axis=1) / (density.broadening * np.sqrt(2 * np.pi))


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


def test_kpm_uses_no_more_moments_than_the_runs_give():
    many = spectrum(VALUES, kpm_moments=1000, start_vectors=1)
    half_width = many.parts[0].bounds.half_width
    assert many.kpm.broadening == pytest.approx(np.pi * half_width / (2 * many.products))


@pytest.mark.parametrize("name", ["paper", "spacing"])
def test_densities_are_those_of_the_exact_spectrum_smoothed_within_their_standard_errors(name):
    found = spectrum(VALUES, 3, start_vectors=12, lanczos_steps=40, broadening=name)
    for part, values in zip(found.parts, (VALUES, DEFLATED), strict=True):
        assert integral(part.density) == pytest.approx(1, abs=1e-6)
        exact = exact_density(part.density, values)
        seen = exact > 0.05 * exact.max()
        # What the leading values alone make, at the far end of the axis, does not vary: no less than its rounding.
        error = np.maximum(part.density.standard_error, 1e-3 * exact.max())[seen]
        deviation = (part.density.density - exact)[seen] / error
        assert np.sqrt((deviation**2).mean()) < 1.7
        assert np.abs(deviation).max() < 5


def test_the_widths_are_those_asked_for():
    paper, spacing = (spectrum(VALUES, broadening=name, start_vectors=1).parts[1] for name in ("paper", "spacing"))
    nodes = len(paper.ritz[0].values)
    spread = np.ptp(paper.ritz[0].values)
    assert paper.density.broadening == pytest.approx(spread / (nodes - 1) / np.sqrt(8 * np.log(1.25)), rel=0.05)
    assert spacing.density.broadening == pytest.approx(spread / (nodes - 1), rel=0.05)


def test_the_deflated_density_is_that_of_the_exactly_deflated_matrix():
    points, width = np.linspace(-2.5, 2.5, 11), 0.15
    found = spectrum(VALUES, 5, start_vectors=12, lanczos_steps=40)
    matrix = diagonal(VALUES)
    pairs = Eigenpairs(SPIKES, torch.eye(200, dtype=torch.float64)[:, 190:], np.zeros(10), np.abs(SPIKES))
    measures = [ritz(slow_lanczos(deflate(matrix, pairs), 40, generator(100 + seed))) for seed in range(12)]
    got, error = distribution(found.parts[1].ritz, points, width)
    expected, other = distribution(measures, points, width)
    deviation = (got - expected) / np.hypot(error, other)
    assert np.abs(deviation).max() < 4, deviation
    exact = ndtr((points[:, None] - DEFLATED) / width).mean(axis=1)
    assert np.abs((got - exact) / error).max() < 4.5


def test_taking_the_leading_values_out_brings_the_measure_three_times_nearer_to_the_spectrum():
    with_them, plain = [], []
    for seed in range(10):
        found = spectrum(VALUES, seed, lanczos_steps=40)
        other = generator(1000 + seed)
        steps = found.products // 2
        with_them.append(found.parts[0].ritz)
        plain.append([ritz(slow_lanczos(diagonal(VALUES), steps, other)) for _ in range(2)])

    def distance(measures) -> float:
        nodes, weights = (np.concatenate([getattr(m, name) for m in measures]) for name in ("values", "weights"))
        return wasserstein_distance(nodes, VALUES, weights)

    near, far = (np.mean([distance(measures) for measures in found]) for found in (with_them, plain))
    assert 3 * near <= far, f"{near:.3f} with the leading values taken out, {far:.3f} as usual"


@MEMORIES
@pytest.mark.parametrize("start_vectors", [1, 2])
def test_sums_deviate_as_their_standard_errors_say(start_vectors, memory):
    exact = exact_sums(VALUES)
    results = [sums_of(spectrum(VALUES, seed, memory, start_vectors=start_vectors)) for seed in range(SEEDS)]
    errors = np.array([values - exact for values, _ in results])
    stated = np.array([error for _, error in results])
    assert (np.abs(errors) <= 4 * stated).mean(axis=0).min() >= 1 - 1 / SEEDS
    ratio = errors.std(axis=0, ddof=1) / np.sqrt((stated**2).mean(axis=0))
    assert ((ratio > 1 / 1.5) & (ratio < 1.5)).all(), ratio
    assert (np.abs(errors.mean(axis=0)) < 4 * errors.std(axis=0) / np.sqrt(SEEDS)).all(), errors.mean(axis=0)


@MEMORIES
def test_sums_are_right_where_the_bulk_is_narrow_beside_the_leading_values(memory):
    # All of the bulk is nearer together than copies of the largest eigenvalue may be.
    values = np.r_[np.linspace(0, 0.02, 290), np.geomspace(10, 100, 10)]
    for seed in range(8):
        found = spectrum(values, seed, memory, lanczos_steps=48)
        got, error = sums_of(found)
        assert (np.abs(got - exact_sums(values)) <= 4 * error).all()
        assert (error[[0, 2]] > 0.01).all()
        bulk = found.parts[1].ritz[0].values
        assert len(bulk[bulk > 0]) > 8 and bulk[-1] < 0.021


@MEMORIES
def test_where_the_leading_values_are_the_bulks_own_edges_sums_are_right_as_well(memory):
    values = np.linspace(-1, 1.5, 200)
    for seed in range(6):
        got, error = sums_of(spectrum(values, seed, memory, top=5))
        assert (np.abs(got - exact_sums(values)) <= 4 * error).all()


def test_a_further_value_beside_the_least_of_the_leading_ones_is_not_counted_twice():
    values = np.r_[np.linspace(0, 1e-3, 190), np.geomspace(2, 100, 10), 1.9995]
    errors = []
    for seed in range(SEEDS):
        found = spectrum(values, seed)
        assert found.pairs.values[-2:] == pytest.approx([2, 1.9995], abs=1e-6)
        assert found.parts[1].bounds.upper < 0.1
        errors.append(found.sums.trace.value - values.sum())
    assert abs(np.mean(errors)) < 4 * np.std(errors) / np.sqrt(SEEDS)


@pytest.mark.parametrize("multiplicity", [2, 20])
@pytest.mark.parametrize("start_vectors", [2, 3])
def test_sums_and_raw_density_are_right_where_not_all_copies_of_an_eigenvalue_were_found(multiplicity, start_vectors):
    values = np.r_[np.linspace(-1, 1, 140), 30.0, *[10.0] * multiplicity]
    errors, shares = [], []
    for seed in range(SEEDS):
        found = spectrum(values, seed, lanczos_steps=8, top=2, start_vectors=start_vectors)
        assert (np.abs(found.pairs.values[1:] - 10) < 0.1).all()
        errors.append((sums_of(found)[0] - exact_sums(values))[:2])  # 8 steps do not resolve the third's corner
        raw = found.parts[0].ritz
        shares.append(np.mean([pairs.weights[np.abs(pairs.values - 10) < 1].sum() for pairs in raw]))
        assert found.parts[1].bounds.upper < 9
    assert (np.abs(np.mean(errors, axis=0)) < 4 * np.std(errors, axis=0) / np.sqrt(SEEDS)).all(), np.mean(
        errors, axis=0
    )
    exact = multiplicity / len(values)
    assert abs(np.mean(shares) - exact) < 4 * np.std(shares) / np.sqrt(SEEDS) + 1e-9


@MEMORIES
@pytest.mark.parametrize("start_vectors", [1, 2])
def test_where_eigenvalues_are_multiple_throughout_nothing_is_known_exactly_and_the_errors_say_so(
    start_vectors, memory
):
    values = np.repeat(np.arange(-5.0, 7), 10)
    for seed in range(8):
        found = spectrum(values, seed, memory, start_vectors=start_vectors, lanczos_steps=12)
        got, error = sums_of(found)
        assert (error > 1).all()
        assert (np.abs(got - exact_sums(values)) <= 5 * error).all()


@MEMORIES
@pytest.mark.parametrize("values", [np.arange(20.0), np.repeat([1.0, 5, -2], 7)])
def test_with_as_many_steps_as_dimensions_all_is_exact_unless_there_is_no_memory(values, memory):
    told = []
    operator = Counted(rotated(values))
    found = fast_spectrum(operator, FastSettings(), generator(), lambda *numbers: told.append(numbers), memory=memory)
    got, error = sums_of(found)
    assert told[-1] == (found.products, found.products) == (operator.products, operator.products)
    if memory is None:
        assert got == pytest.approx(exact_sums(values), rel=1e-12)
        assert error.tolist() == [0, 0, 0]
        assert found.products == len(values)
        (raw,), (deflated,) = (part.ritz for part in found.parts)
        assert raw.values == pytest.approx(np.sort(values), abs=1e-12)
        assert raw.weights == pytest.approx(np.full(len(values), 1 / len(values)))
        rest = np.sort(np.abs(values))[:-10]
        assert np.sort(np.abs(deflated.values)) == pytest.approx(np.sort(np.r_[rest, np.zeros(10)]), abs=1e-12)
        assert deflated.weights.sum() == pytest.approx(1)
    else:
        assert (np.abs(got - exact_sums(values)) <= 4 * error + 1e-4).all()
    assert all(integral(part.density) == pytest.approx(1, abs=1e-6) for part in found.parts)


@PRECISIONS
@pytest.mark.parametrize("seed", range(4))
def test_a_leading_eigenvalue_is_found_as_often_as_it_occurs(seed, dtype):
    values = np.r_[np.linspace(-1, 1, 197), 10.0, 10, 10]
    found = fast_spectrum(rotated(values, dtype=dtype), FastSettings(top=3), generator(seed))
    assert np.count_nonzero(np.abs(found.pairs.values) > 5) == 3
    assert found.pairs.values[:3] == pytest.approx([10, 10, 10], rel=1e-5)
    v = found.pairs.vectors.double()
    assert (v.T @ v - torch.eye(v.shape[1])).abs().max().item() < 20 * torch.finfo(dtype).eps
    assert found.parts[1].bounds.upper < 2
    got, error = sums_of(found)
    assert (np.abs(got - exact_sums(values)) <= 4 * error + 1e-3).all()


@pytest.mark.parametrize("start_vectors", [2, 3])
def test_each_start_vector_adds_a_copy_that_those_before_could_not_see(start_vectors):
    values = np.r_[np.linspace(-1, 1, 140), 20.0, *[10.0] * start_vectors]
    for seed in range(3):
        # Too few steps for rounding to bring the copies into the first vector's run.
        found = spectrum(values, seed, lanczos_steps=8, top=2, start_vectors=start_vectors)
        assert found.pairs.values == pytest.approx([20, *[10] * start_vectors], rel=1e-4)
        got, error = sums_of(found)
        assert (np.abs(got - exact_sums(values)) <= 4 * error).all()
        assert found.products <= 8 * start_vectors + 6


@PRECISIONS
@MEMORIES
@pytest.mark.parametrize("value", [0.0, 3.0])
@pytest.mark.parametrize("size", [1, 7, 30, 60, 200])
def test_a_multiple_of_the_identity_has_that_value_alone(size, value, memory, dtype):
    told = []
    matrix = value * torch.eye(size, dtype=dtype)
    found = fast_spectrum(matrix, SHORT, generator(), lambda *numbers: told.append(numbers), memory=memory)
    got, _ = sums_of(found)
    assert got == pytest.approx([size * value, size * value**2, size * value], rel=1e-6)
    assert found.pairs.values == pytest.approx(np.full(len(found.pairs.values), value), rel=1e-6)
    assert told[-1] == (found.products, found.products)
    assert found.unconverged == (0 if memory is None else min(10, size) - 1)
    for part in found.parts:
        assert integral(part.density) == pytest.approx(1, abs=1e-6)
        for pairs in part.ritz:
            assert pairs.weights.sum() == pytest.approx(1)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_when_copies_fill_the_whole_space_all_is_known_and_further_start_vectors_are_not_run(value):
    told = []
    matrix = Counted(value * torch.eye(40, dtype=torch.float64))
    settings = FastSettings(lanczos_steps=10, start_vectors=6)
    found = fast_spectrum(matrix, settings, generator(), lambda *numbers: told.append(numbers))
    assert found.products == matrix.products == 40
    assert len(found.pairs.values) == 40
    got, error = sums_of(found)
    assert got == pytest.approx([40 * value] * 3)
    assert error.tolist() == [0, 0, 0]
    assert told[-1] == (40, 40)


@PRECISIONS
@MEMORIES
@pytest.mark.parametrize("steps", [15, 48])
def test_a_rank_of_five_in_twenty_five_dimensions(steps, memory, dtype):
    values = np.r_[np.zeros(20), np.arange(1.0, 6)]
    for seed in range(4):
        found = fast_spectrum(
            rotated(values, dtype=dtype), FastSettings(lanczos_steps=steps), generator(seed), memory=memory
        )
        assert found.pairs.values[:5] == pytest.approx([5, 4, 3, 2, 1], rel=1e-5)
        got, error = sums_of(found)
        assert (np.abs(got - exact_sums(values)) <= 4 * error + 1e-4).all()
        if memory is None:
            assert len(found.pairs.values) == 10
            assert (found.unconverged, got[0]) == (0, pytest.approx(15, rel=1e-5))
        assert all(integral(part.density) == pytest.approx(1, abs=1e-6) for part in found.parts)


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


def test_the_papers_method_and_this_one_agree():
    points = np.array([-2.0, -1, -0.5, 0, 0.5, 1, 2, 11, 15, 20, 30, 50, 90])
    matrix = diagonal(VALUES)
    paper = paper_spectrum(
        matrix,
        PaperSettings(
            lanczos_steps=60, start_vectors=10, deflation_rank=10, deflation_iterations=60, rayleigh_ritz=True,
            reorthogonalize=True,
        ),
        generator(1),
    )  # fmt: skip
    fast = spectrum(VALUES, 2, start_vectors=10, lanczos_steps=60)
    assert np.abs(fast.pairs.values) == pytest.approx(np.abs(paper.pairs.values), rel=1e-6)
    assert (np.abs(fast.pairs.values - paper.pairs.values) <= fast.pairs.residuals + paper.pairs.residuals).all()
    for one, other in zip(paper.parts, fast.parts, strict=True):
        assert one.deflated == other.deflated
        (a, error), (b, small) = (distribution(part.ritz, points, 0.15) for part in (one, other))
        known = np.hypot(error, small) > 1e-9  # beyond the deflated spectrum both are 1
        deviation = (a - b)[known] / np.hypot(error, small)[known]
        assert np.abs(deviation).max() < 4.5, deviation
        assert np.abs((a - b)[~known]).max(initial=0.0) < 1e-9
    got, error = sums_of(fast)
    expected, other = sums_of(paper)
    assert (np.abs(got - expected) <= 4 * np.hypot(error, other)).all()
    assert (error[:2] < other[:2] / 3).all()


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


def test_weights_beyond_what_one_eigenvalue_can_have_stay_in_the_density():
    values = np.r_[np.full(150, 4.0), np.linspace(-1, 1, 50)]
    found = spectrum(values, top=1, start_vectors=1)
    raw = found.parts[0].ritz[0]
    assert isinstance(raw, Ritz)
    assert raw.weights[raw.values > 3].sum() == pytest.approx(0.75, abs=0.12)
    got, error = sums_of(found)
    assert (np.abs(got - exact_sums(values)) <= 4 * error).all()


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


def test_pairs_of_several_start_vectors_are_orthogonal():
    values = np.repeat(np.arange(-4.0, 6), 8)
    for seed in range(4):
        v = fast_spectrum(rotated(values), dataclasses.replace(SHORT, start_vectors=3), generator(seed)).pairs.vectors
        assert v.shape[1] > 15
        assert (v.T @ v - torch.eye(v.shape[1])).abs().max().item() < 1e-12


@pytest.mark.parametrize("points", [48, 64, 100])
def test_a_coarse_grid_still_resolves_the_kernel(points):
    found = spectrum(np.random.default_rng(3).standard_normal(60), lanczos_steps=48, grid_points=points)
    for part in found.parts:
        assert integral(part.density) == pytest.approx(1, abs=1e-6)
        assert part.density.broadening >= np.diff(part.density.eigenvalues)[0] * 0.999
