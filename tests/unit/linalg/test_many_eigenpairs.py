"""Many eigenpairs by every method against spectra that are known, and what is refused before a product is spent."""

import numpy as np
import pytest
import torch
from interruptions import Interrupted
from interruptions import MemoryStore as RunMemory
from known_spectra import Counted, rotated

from hessketch.errors import InputError, NotFiniteError
from hessketch.linalg.many_eigenpairs import BLOCK, MOST_BY_LANCZOS, KrylovWanted, many_eigenpairs
from hessketch.linalg.measurement_store import MemoryStore
from hessketch.linalg.sketch_room import room_needed
from hessketch.linalg.sketch_settings import SketchSettings

PRECISIONS = pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
KRYLOV = pytest.mark.parametrize("method", ["lanczos", "block_krylov"])
INDEFINITE = 10.0 / np.arange(1, 401) * np.resize([1, 1, -1], 400)
NOISY = np.r_[np.linspace(10, 20, 15), 0.1 * np.random.default_rng(0).standard_normal(385)]
SPECTRA = {"indefinite": INDEFINITE, "low rank and noise": NOISY, "exponential": 10.0 ** (-np.arange(400) / 30)}


def exact_of(values, count):
    return values[np.argsort(-np.abs(values), kind="stable")][:count]


class Diagonal:
    """A diagonal operator that is never formed."""

    def __init__(self, values):
        self.values, self.shape, self.dtype, self.device = values, (len(values),) * 2, values.dtype, values.device

    def __matmul__(self, other):
        return self.values[:, None] * other if other.ndim == 2 else self.values * other


class Disk(MemoryStore):
    """Counts as a disk with room for all."""

    def free_bytes(self) -> int:
        return 2**40


def true_residuals(matrix, found):
    vectors = found.vectors.double()
    return (matrix.double() @ vectors - vectors * torch.from_numpy(found.values)).norm(dim=0).numpy()


@PRECISIONS
@KRYLOV
@pytest.mark.parametrize("name", SPECTRA)
def test_many_pairs_are_found_each_within_its_bound(name, method, dtype):
    operator = Counted(rotated(SPECTRA[name], dtype=dtype))
    found = many_eigenpairs(operator, 60, 3, method=method)
    eps, exact = torch.finfo(dtype).eps, exact_of(SPECTRA[name], 60)
    assert found.method == method
    assert found.reason == "asked for"
    assert found.products == operator.products < 400
    assert found.values == pytest.approx(exact, rel=1e-4, abs=20 * eps * abs(exact[0]))
    assert found.converged == 60
    assert (found.residuals <= np.maximum(1e-3 * np.abs(found.values), 100 * eps * abs(exact[0]))).all()
    assert (true_residuals(operator.matrix, found) <= found.residuals).all()
    assert found.vectors.dtype == dtype
    assert found.vectors.shape == (400, 60)
    inner = found.vectors.double().T @ found.vectors.double()
    assert (inner - torch.eye(60)).abs().max().item() < 50 * eps


@KRYLOV
def test_all_eigenpairs_of_a_small_operator_are_found(method):
    values = np.array([-8.0, 7, -6, 5, 4, 3, -2, 1, 0.5, -0.25])
    found = many_eigenpairs(rotated(values), 10, 0, method=method)
    assert found.values == pytest.approx(values, abs=1e-12)
    assert found.converged == 10


def test_block_krylov_finds_copies_that_lanczos_finds_once():
    values = np.r_[np.repeat([9.0, -7.0], 6), np.linspace(-1, 1, 188)]
    by_blocks = many_eigenpairs(rotated(values), 12, 0, method="block_krylov")
    assert by_blocks.values == pytest.approx(exact_of(values, 12), abs=1e-6)
    assert BLOCK >= 6
    once = many_eigenpairs(rotated(values), 2, 0, method="lanczos")
    assert once.values == pytest.approx([9, -7], abs=1e-6)


def test_a_smaller_tolerance_takes_more_products_and_gives_smaller_residuals():
    matrix = rotated(INDEFINITE)
    coarse, fine = (many_eigenpairs(matrix, 30, 0, method="lanczos", tolerance=t) for t in (1e-1, 1e-8))
    assert coarse.products < fine.products
    assert (fine.residuals <= 1e-8 * np.abs(fine.values)).all()
    assert not (coarse.residuals <= 1e-8 * np.abs(coarse.values)).all()


def test_auto_takes_lanczos_for_few_pairs_blocks_for_many_and_a_sketch_where_memory_is_short():
    matrix = rotated(INDEFINITE, dtype=torch.float32)
    few, many = (many_eigenpairs(matrix, k, 0) for k in (MOST_BY_LANCZOS, MOST_BY_LANCZOS + 1))
    assert (few.method, many.method) == ("lanczos", "block_krylov")
    assert "least products" in few.reason and "least time" in many.reason


def test_auto_streams_a_sketch_where_memory_is_short():
    p, pairs = 400_000, 5
    operator = Diagonal(torch.cat([torch.tensor([9.0, -8, 7, -6, 5]), torch.zeros(p - 5)]))
    settings = SketchSettings(pairs=pairs, probes=0)
    room = room_needed(p, settings, torch.float32)
    memory = room.work
    assert memory < KrylovWanted(pairs, 1e-3, 1, p).expected_steps * p * 4, "a test of nothing"
    found = many_eigenpairs(operator, pairs, 0, sketch=settings, memory=memory, stores=lambda method: Disk("cpu"))
    assert found.method == "sketched"
    assert "would not fit into memory" in found.reason
    assert found.values == pytest.approx([9, -8, 7, -6, 5], rel=1e-3)
    with pytest.raises(InputError, match="would fit"):
        many_eigenpairs(operator, pairs, 0, memory=2**20)


def test_a_sketch_gives_estimates_and_on_request_residuals_by_a_product_a_pair():
    operator = Counted(rotated(INDEFINITE))
    settings = SketchSettings(pairs=10, measurements=60, passes=3, probes=8)
    without = many_eigenpairs(operator, 10, 3, method="sketched", sketch=settings)
    assert without.products == operator.products == 68
    assert np.isnan(without.residuals).all()
    assert without.errors is not None
    operator = Counted(rotated(INDEFINITE))
    found = many_eigenpairs(operator, 10, 3, method="sketched", sketch=settings, residuals=True)
    assert found.products == operator.products == 78
    assert found.residuals == pytest.approx(true_residuals(operator.matrix, found), rel=1e-9)
    assert found.values == pytest.approx(exact_of(INDEFINITE, 10), rel=0.02)
    assert without.converged == 0


def test_with_residuals_the_values_of_a_sketch_are_the_rayleigh_quotients_of_its_vectors():
    """Of two outliers above a flat indefinite bulk, of which so few products resolve nothing."""
    exact = np.concatenate([[1.3, -1.1], np.cos(np.linspace(0, np.pi, 598)) * 0.6])
    matrix, settings = rotated(exact), SketchSettings(pairs=20, measurements=50, probes=8)
    plain = many_eigenpairs(matrix, 20, 0, method="sketched", sketch=settings)
    found = many_eigenpairs(matrix, 20, 0, method="sketched", sketch=settings, residuals=True)
    assert plain.errors.residual_share > 0.1 and not np.allclose(plain.values, found.values, rtol=1e-3)
    quotients = (found.vectors * (matrix @ found.vectors)).sum(0).numpy()
    assert found.values == pytest.approx(quotients, abs=1e-12) and (np.diff(np.abs(found.values)) <= 0).all()
    # No j quotients of orthonormal vectors have a larger sum than the j largest eigenvalues (Ky Fan 1949).
    positive = np.sort(found.values[found.values > 0])[::-1].cumsum()
    assert (positive <= np.sort(exact)[::-1][: len(positive)].cumsum() + 1e-12).all()
    assert found.residuals == pytest.approx(true_residuals(matrix, found), rel=1e-9)


def test_of_a_sketch_with_residuals_those_within_the_tolerance_are_counted():
    settings = SketchSettings(pairs=10, measurements=60, passes=3, probes=0)
    matrix, within = rotated(INDEFINITE), []
    for tolerance in (1e-8, 1e-2, 0.5):
        found = many_eigenpairs(matrix, 10, 3, method="sketched", tolerance=tolerance, sketch=settings, residuals=True)
        good = found.residuals <= tolerance * np.abs(found.values)
        assert good[: found.converged].all() and (found.converged == 10 or not good[found.converged])
        within.append(found.converged)
    assert within[0] < within[1] < within[2] == 10


def test_the_reason_says_where_what_was_asked_of_a_sketch_is_not_used():
    matrix = rotated(INDEFINITE)
    for asked in ({"sketch": SketchSettings(pairs=3, passes=2)}, {"residuals": True}):
        assert "what was asked of a sketch is not used" in many_eigenpairs(matrix, 3, 0, **asked).reason
    assert "sketch" not in many_eigenpairs(matrix, 3, 0).reason


@KRYLOV
def test_memory_that_does_not_suffice_is_said_before_a_product_with_how_many_pairs_would_fit(method):
    operator = Counted(rotated(INDEFINITE))
    memory = (130 + 25) * 400 * 8  # vectors of 10 pairs: 2.5 a pair and 130
    with pytest.raises(InputError, match=r"enough for 10 pairs; ask for fewer, .* or take method sketched"):
        many_eigenpairs(operator, 11, 0, method=method, memory=memory)
    assert operator.products == 0
    assert many_eigenpairs(operator, 10, 0, method=method, memory=memory).converged == 10


def test_a_run_that_memory_ends_says_how_many_have_converged():
    evenly = np.linspace(1, 2, 300)
    found = many_eigenpairs(rotated(evenly), 30, 0, method="lanczos", tolerance=1e-12, memory=205 * 300 * 8)
    assert found.products == 205
    assert len(found.values) == 30
    assert 0 < found.converged < 30
    good = found.residuals <= 1e-12 * np.abs(found.values)
    assert good[: found.converged].all() and not good[found.converged]


@KRYLOV
def test_an_interrupted_run_goes_on_to_the_same_pairs_bit_for_bit(method):
    matrix, store = rotated(INDEFINITE, dtype=torch.float32), RunMemory(3)
    undisturbed = many_eigenpairs(matrix, 40, 4, method=method)
    calls = 50 if method == "lanczos" else 5
    with pytest.raises(KeyboardInterrupt):
        many_eigenpairs(Interrupted(matrix, calls), 40, 4, method=method, stores=lambda name: store)
    assert store.saves > 0
    resumed = many_eigenpairs(matrix, 40, 4, method=method, stores=lambda name: store)
    assert resumed.products == undisturbed.products
    assert np.array_equal(resumed.values, undisturbed.values)
    assert torch.equal(resumed.vectors, undisturbed.vectors)


def test_the_store_is_asked_for_by_the_method_that_was_taken():
    asked = []
    many_eigenpairs(rotated(INDEFINITE), 3, 0, stores=lambda name: asked.append(name))
    assert asked == ["lanczos"]


@pytest.mark.parametrize("method", ["auto", "lanczos", "block_krylov", "sketched"])
def test_more_pairs_than_parameters_are_refused_by_every_method(method):
    operator = Counted(torch.eye(5))
    with pytest.raises(InputError, match="6 eigenpairs asked of an operator of 5 parameters; allowed: 1 to 5"):
        many_eigenpairs(operator, 6, 0, method=method)
    assert operator.products == 0


def test_other_bad_input_is_refused():
    with pytest.raises(InputError, match=r"method .lanczoz. is unknown; .*lanczos"):
        many_eigenpairs(torch.eye(5), 1, 0, method="lanczoz")
    with pytest.raises(InputError, match="count is 0"):
        many_eigenpairs(torch.eye(5), 0, 0)
    with pytest.raises(InputError, match="tolerance is"):
        many_eigenpairs(torch.eye(5), 1, 0, tolerance=0.0)
    with pytest.raises(InputError, match="no spectrum"):
        many_eigenpairs(torch.ones(3, 4), 1, 0)


@pytest.mark.parametrize("method", ["lanczos", "block_krylov", "sketched"])
def test_nan_is_named(method):
    with pytest.raises(NotFiniteError, match=r"step 2|products 17 to|vector 17"):
        many_eigenpairs(Counted(rotated(INDEFINITE), bad_from=2), 30, 0, method=method)


@KRYLOV
def test_progress_counts_the_products_towards_those_expected(method):
    told = []
    found = many_eigenpairs(rotated(INDEFINITE), 30, 0, method=method, progress=lambda *numbers: told.append(numbers))
    assert [done for done, _ in told][-1] == found.products
    assert {total for _, total in told} == {KrylovWanted(30, 1e-3, 1, 400).expected_steps}
