import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from interruptions import Interrupted
from known_spectra import Counted, rotated

from hessketch.errors import InputError, NotFiniteError
from hessketch.linalg.measurement_store import MemoryStore
from hessketch.linalg.measurements import MEASUREMENTS, measurements
from hessketch.linalg.sketched_eigh import SketchSettings, room_needed, sketched_eigh
from hessketch.linalg.subspaces import overlap
from hessketch.seeds import derive_seed

P, M = 600, 100
INDEX = np.arange(P)
SIGNS = np.where(np.random.default_rng(5).random(P) < 0.4, -1, 1)
SPECTRA = {
    "exponential": np.exp(-INDEX / 12),
    "exponential, indefinite": SIGNS * np.exp(-INDEX / 12),
    "polynomial": 1 / (1.0 + INDEX) ** 2,
    "polynomial, indefinite": SIGNS / (1.0 + INDEX),
    "slow, indefinite": SIGNS / (1.0 + INDEX) ** 0.5,
    "clustered": np.concatenate([np.repeat([10, 5, -4], 8), np.linspace(-0.1, 0.1, P - 24)]),
    "low rank and noise": np.concatenate([SIGNS[:25] * np.linspace(1, 2, 25), 1e-3 * SIGNS[25:]]),
}


def settings(pairs: int = 20, m: int = M, **others) -> SketchSettings:
    return SketchSettings(**{"pairs": pairs, "measurements": m, "probes": 0, "passes": 2, **others})


def errors(matrix: torch.Tensor, spectrum: np.ndarray, k: int, **others) -> tuple[float, float]:
    """Median relative error of the k values, and |H - H_k|_F over that of the best approximation."""
    found = sketched_eigh(matrix, settings(k, **others), 1)
    exact = np.sort(np.abs(spectrum))[::-1]
    left = matrix - found.vectors * torch.from_numpy(found.values) @ found.vectors.T
    values = np.median(np.abs(np.abs(found.values) - exact[:k]) / exact[:k])
    return float(values), float(left.norm()) / math.sqrt(np.sum(exact[k:] ** 2))


@pytest.mark.parametrize("name", SPECTRA)
def test_fast_is_better_than_paper_at_equal_products_and_two_passes_are_better_still(name):
    matrix = rotated(SPECTRA[name])
    paper = errors(matrix, SPECTRA[name], 20, method="paper")
    single = errors(matrix, SPECTRA[name], 20, passes=1)
    double = errors(matrix, SPECTRA[name], 20, passes=2)
    assert single[0] < 1.05 * paper[0] and single[1] <= paper[1]
    assert double[0] < paper[0] / 2 and double[1] <= single[1] < 1.25
    assert double[1] < 1.03


@pytest.mark.parametrize("options", [{"method": "paper"}, {"passes": 1}, {"passes": 2}, {"passes": 3}])
@pytest.mark.parametrize("kind", MEASUREMENTS)
def test_a_matrix_of_low_rank_is_recovered_exactly(kind, options):
    values = np.array([9.0, -7.0, 5.0, 4.0, -3.0, 2.0, 1.0, -0.5, 0.25, 0.125])
    matrix = rotated(np.concatenate([values, np.zeros(190)]))
    found = sketched_eigh(matrix, settings(10, 40, kind=kind, **options), 3)
    np.testing.assert_allclose(found.values, values, rtol=1e-10)
    torch.testing.assert_close(
        found.vectors * torch.from_numpy(found.values) @ found.vectors.T, matrix, rtol=0, atol=1e-9
    )


@pytest.mark.parametrize("options", [{"method": "paper"}, {"passes": 1}, {"passes": 2}, {"passes": 4}])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_no_more_pairs_are_returned_than_the_rank_shows(options, dtype):
    matrix = rotated(np.concatenate([[3.0, -2.0, 1.0], np.zeros(97)]), dtype=dtype)
    found = sketched_eigh(matrix, settings(10, 40, **options), 0)
    np.testing.assert_allclose(found.values, [3, -2, 1], rtol=1e4 * torch.finfo(dtype).eps)
    assert found.vectors.shape == (100, 3)


@pytest.mark.parametrize("method", ["fast", "paper"])
def test_a_zero_operator_has_no_pairs(method):
    found = sketched_eigh(torch.zeros(30, 30), settings(3, 10, probes=4, method=method), 0)
    assert len(found.values) == 0 and found.vectors.shape == (30, 0) and found.errors.residual_squared == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("method", ["fast", "paper"])
def test_vectors_are_orthonormal_and_values_descend_in_magnitude(dtype, method):
    matrix = rotated(SPECTRA["exponential, indefinite"], dtype=dtype)
    found = sketched_eigh(matrix, settings(50, method=method), 2)
    assert found.values.dtype == np.float64 and found.vectors.dtype == dtype
    assert (np.diff(np.abs(found.values)) <= 0).all() and (found.values < 0).any()
    gram = found.vectors.double().T @ found.vectors.double()
    assert float((gram - torch.eye(50)).abs().max()) < 100 * torch.finfo(dtype).eps


@pytest.mark.parametrize("spread", [2, 100, 250, 2000])
def test_float32_vectors_are_orthonormal_to_five_digits_however_the_values_spread(spread):
    values = SIGNS * np.logspace(0, -math.log10(spread) * P / 90, P)
    found = sketched_eigh(rotated(values, dtype=torch.float32), settings(90, 100, passes=4), 3)
    vectors = found.vectors.double()
    assert float((vectors.T @ vectors - torch.eye(90)).abs().max()) < 1e-5


def test_paper_gives_what_its_formulas_give_with_the_basis_formed():
    """Q, the core from Upsilon_L Q and Upsilon_R Q by least squares, its eigenpairs: with dense test matrices."""
    matrix, options = rotated(SPECTRA["polynomial, indefinite"]), settings(20, method="paper", kind="gaussian")
    found = sketched_eigh(matrix, options, 9)
    left, right = (_map(purpose) for purpose in ("left", "right"))
    products = matrix @ right
    q = torch.linalg.qr(products[:, : M // 2]).Q
    core = torch.linalg.pinv(left.T @ q) @ (left.T @ products) @ torch.linalg.pinv(right.T @ q).T
    values, vectors = torch.linalg.eigh((core + core.T) / 2)
    order = values.abs().argsort(descending=True)[:20]
    np.testing.assert_allclose(found.values, values[order], rtol=1e-9)
    alike = (found.vectors * (q @ vectors[:, order])).sum(dim=0).abs()
    assert float(alike.min()) > 1 - 1e-9


def _map(purpose: str) -> torch.Tensor:
    seed = derive_seed(9, purpose, "sketched eigendecomposition")
    return measurements("gaussian", P, M, seed, dtype=torch.float64).columns(0, M)


def test_leading_eigenvectors_are_those_of_the_matrix():
    matrix = rotated(SPECTRA["polynomial, indefinite"])
    values, vectors = torch.linalg.eigh(matrix)
    order = values.abs().argsort(descending=True)[:10]
    found = sketched_eigh(matrix, settings(20, passes=4), 2)
    np.testing.assert_allclose(found.values[:10], values[order], rtol=1e-3)
    assert overlap(found.vectors[:, :10], vectors[:, order]) > 0.999


@given(st.integers(10, 60), st.integers(1, 9), st.integers(1, 5), st.sampled_from(MEASUREMENTS), st.integers(0, 10**6))
def test_any_sizes_give_orthonormal_pairs(p, k, passes, kind, seed):
    matrix = rotated(np.linspace(-1, 2, p), seed)
    m = min(p, 2 * k + 2)
    found = sketched_eigh(matrix, settings(k, m, passes=min(passes, m), kind=kind, block=3), seed)
    assert found.products <= m and len(found.values) <= k
    gram = found.vectors.T @ found.vectors
    torch.testing.assert_close(gram, torch.eye(len(gram), dtype=gram.dtype), rtol=0, atol=1e-9)
    assert np.isfinite(found.values).all()


@pytest.mark.parametrize("passes", [1, 2, 3])
def test_products_are_counted_and_taken_in_blocks(passes):
    operator, seen, expected = Counted(rotated(SPECTRA["slow, indefinite"])), [], 101 + 7
    options = settings(5, 101, passes=passes, probes=7, block=9)
    found = sketched_eigh(operator, options, 0, progress=lambda done, total: seen.append((done, total)))
    assert found.products == operator.products == expected
    assert seen[-1] == (expected, expected) and seen == sorted(set(seen))
    assert max(b - a for (a, _), (b, _) in zip([(0, 0), *seen], seen, strict=False)) <= 9


@pytest.mark.parametrize("name", ["exponential", "polynomial, indefinite", "slow, indefinite"])
def test_the_error_lies_within_its_bounds_and_the_values_within_the_error(name):
    matrix = rotated(SPECTRA[name])
    found = sketched_eigh(matrix, settings(20, probes=30), 5)
    left = matrix - found.vectors * torch.from_numpy(found.values) @ found.vectors.T
    low, high = found.errors.residual_bounds(0.999)
    assert low <= float(left.norm()) ** 2 <= high
    assert found.errors.probes == 30
    exact = np.sort(np.abs(SPECTRA[name]))[::-1][:20]
    assert np.abs(np.abs(found.values) - exact).max() <= math.sqrt(high)  # Weyl


class Kept(MemoryStore):
    """A store in memory that outlives a run, as a disk does."""

    def __init__(self):
        super().__init__("cpu")
        self.matrices, self.free = {}, 2**40

    def free_bytes(self) -> int:
        return self.free

    def matrix(self, name, rows, columns, dtype, identity):
        key = (name, rows, columns, dtype, identity)
        return self.matrices.setdefault(key, super().matrix(*key))


@pytest.mark.parametrize("options", [{"method": "paper"}, {"passes": 1}, {"passes": 3}])
@pytest.mark.parametrize("after", [1, 6, 13, 14])
def test_a_killed_run_goes_on_from_its_last_whole_block_to_the_same_bits(options, after):
    matrix = rotated(SPECTRA["polynomial, indefinite"], dtype=torch.float32)
    options = settings(20, probes=16, block=8, **options)
    whole, store = Counted(matrix), Kept()
    expected = sketched_eigh(whole, options, 4)
    with pytest.raises(KeyboardInterrupt):
        sketched_eigh(Interrupted(matrix, after), options, 4, store=store)
    rest = Counted(matrix)
    found = sketched_eigh(rest, options, 4, store=store)
    assert rest.calls == whole.calls - after
    assert np.array_equal(found.values, expected.values) and torch.equal(found.vectors, expected.vectors)
    assert found.errors == expected.errors and found.products == expected.products


def test_a_product_that_is_not_finite_is_named():
    operator = Counted(rotated(SPECTRA["polynomial"]), bad_from=3)
    with pytest.raises(NotFiniteError, match="products1, vector 21 of 50"):
        sketched_eigh(operator, settings(block=10), 0)
    probes = Counted(rotated(SPECTRA["polynomial"]), bad_from=11, bad=float("inf"))
    with pytest.raises(NotFiniteError, match="probes, vector 1 of 5"):
        sketched_eigh(probes, settings(block=10, probes=5), 0)


@pytest.mark.parametrize("method", ["fast", "paper"])
def test_an_operator_that_is_not_symmetric_is_refused(method):
    with pytest.raises(InputError, match="not symmetric"):
        sketched_eigh(torch.triu(torch.ones(90, 90, dtype=torch.float64)), settings(5, 20, method=method), 0)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"pairs": 0}, "pairs: 0 given"),
        ({"pairs": 11, "measurements": 10}, "1 to 10 with 10 measurements"),
        ({"pairs": 6, "measurements": 10, "method": "paper"}, "1 to 5 with 10 measurements"),
        ({"passes": 0}, "passes"),
        ({"block": 0}, "block"),
        ({"probes": -1}, "probes"),
        ({"kind": "gauss"}, "nearest valid name: gaussian"),
        ({"method": "quick"}, "method"),
    ],
)
def test_settings_without_sense_are_refused(options, said):
    with pytest.raises(InputError, match=said):
        SketchSettings(**options)


def test_more_pairs_or_measurements_than_parameters_are_refused_with_what_to_do():
    with pytest.raises(InputError, match=r"31 eigenpairs.*allowed: 1 to 30"):
        sketched_eigh(torch.eye(30), settings(31, 40), 0)
    with pytest.raises(InputError, match="exact decomposition"):
        sketched_eigh(torch.eye(30), settings(3, 31), 0)


def test_measurements_beyond_memory_or_disk_are_refused_before_the_first_product():
    operator, store = Counted(rotated(SPECTRA["polynomial"])), Kept()
    room = room_needed(P, settings(), torch.float64)
    memory = room.columns + room.vectors + room.work
    assert room.columns == (M + M // 2) * P * 8 and room.vectors == 20 * P * 8
    sketched_eigh(operator, settings(), 0, memory=memory)
    with pytest.raises(InputError, match=r"20 eigenpairs from 100 measurements.*\(\d+ pairs\) would fit.*on disk"):
        sketched_eigh(operator, settings(), 0, memory=memory - 1)
    sketched_eigh(operator, settings(), 0, memory=memory - room.columns, store=store)
    store.free = room.columns - 1
    with pytest.raises(InputError, match="of disk"):
        sketched_eigh(operator, settings(), 0, memory=memory, store=store)
    assert operator.products == 2 * M


def test_eigenvectors_that_memory_does_not_hold_are_kept_in_the_store():
    matrix, store, room = rotated(SPECTRA["polynomial"]), Kept(), room_needed(P, settings(), torch.float64)
    expected = sketched_eigh(matrix, settings(), 0)
    found = sketched_eigh(matrix, settings(), 0, memory=room.work, store=store)
    assert torch.equal(found.vectors, expected.vectors)
    kept = next(kept for key, kept in store.matrices.items() if key[0] == "vectors")
    assert kept.whole().data_ptr() == found.vectors.data_ptr()
    store.free = room.columns + room.vectors - 1
    with pytest.raises(InputError, match="for eigenvectors"):
        sketched_eigh(matrix, settings(), 0, memory=room.work, store=store)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("options", [{"method": "paper"}, {"passes": 1}, {"passes": 3}])
def test_a_gpu_finds_what_a_processor_finds(options):
    matrix = rotated(SPECTRA["polynomial, indefinite"])
    here = sketched_eigh(matrix, settings(20, probes=10, **options), 1)
    there = sketched_eigh(matrix.cuda(), settings(20, probes=10, **options), 1)
    assert there.vectors.is_cuda
    np.testing.assert_allclose(there.values, here.values, rtol=1e-8)
    assert there.errors.residual_squared == pytest.approx(here.errors.residual_squared, rel=1e-8)
