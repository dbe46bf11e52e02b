"""Count-Sketch over many hashes: bias, error, independence and loads against theory."""

import itertools
import math

import numpy as np
import pytest
import torch
from hashed_vectors import BLOCK, random_vector, sketches
from known_spectra import generator
from scipy import stats

from hessketch.linalg import count_sketch
from hessketch.linalg.count_sketch import CountSketch


def errors_over_draws(x, rows, columns, placement, draws):
    """lift(apply(x)) - x (draws, p) for hashes of many draws."""
    lifted = []
    for draw in range(draws):
        sketch = CountSketch(len(x), rows, columns, 11, draw, placement=placement)
        lifted.append(sketch.lift(sketch.apply(x)))
    return torch.stack(lifted) - x


def concentrated(dimension):
    x = torch.full((dimension,), 0.01, dtype=torch.float64)
    x[torch.tensor([3, dimension // 2, dimension - 1])] = torch.tensor([5.0, -2.0, 1.0], dtype=torch.float64)
    return x


def uneven_blocks(dimension):
    """Energy that falls with the index: the blocks of shifts have very different shares of it."""
    return random_vector(dimension) * torch.linspace(3, 0, dimension, dtype=torch.float64).exp()


@sketches
@pytest.mark.parametrize("rows, columns", [(1, 25), (3, 25), (5, 12)])
@pytest.mark.parametrize("make", [random_vector, concentrated, uneven_blocks], ids=lambda make: make.__name__)
def test_the_mean_lift_is_unbiased_and_its_error_is_that_of_theory(placement, rows, columns, make):
    """The bias is looked at along the vector, along ones and in every 30th coordinate: few enough for 4 standard
    errors to be no accident."""
    x = make(110)
    errors = errors_over_draws(x, rows, columns, placement, 2000 // rows)
    looked_at = torch.stack([errors @ x, errors.sum(1), *errors[:, ::30].T])
    standard_errors = looked_at.std(1) / math.sqrt(len(errors))
    assert (looked_at.mean(1).abs() / standard_errors).max() < 4
    ratios = errors.square().sum(1) / x.square().sum()
    expected = CountSketch(110, rows, columns, 0, placement=placement).expected_error(x)
    measured = float(ratios.mean())
    assert measured == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("block", [BLOCK, 16], ids=["one block", "several blocks"])
def test_the_variance_of_each_coordinate_is_that_of_theory(block, monkeypatch):
    """(|x|^2 - x_i^2) / columns. A variance of 3,000 draws is known to 5 % or so, the mean of all ratios far better."""
    monkeypatch.setattr(count_sketch, "_BLOCK", block)
    x = torch.linspace(-2, 3, 60, dtype=torch.float64)
    x[7] = 20
    variance = errors_over_draws(x, 1, 10, "hash", 3000).square().mean(0)
    ratios = variance / ((x.square().sum() - x.square()) / 10)
    assert ratios.max() < 1.25 and ratios.min() > 0.75
    assert float(ratios.mean()) == pytest.approx(1, rel=0.05)
    assert float(ratios[7]) == pytest.approx(1, rel=0.15)


@sketches
def test_the_error_is_that_of_theory_over_several_blocks_of_2_16(placement):
    x = uneven_blocks(2 * BLOCK + 5000)
    errors = errors_over_draws(x, 1, 2500, placement, 25)
    measured = float(errors.square().sum() / len(errors) / x.square().sum())
    expected = CountSketch(len(x), 1, 2500, 0, placement=placement).expected_error(x)
    assert measured == pytest.approx(expected, rel=0.05)


def test_the_error_of_shifts_is_smaller_by_the_blocks_own_shares():
    """By hand: blocks of 2, 2 and 1 with energies 5, 1 and 4; a coordinate meets the energy of the other blocks."""
    sketch = CountSketch(5, 3, 2, 0, placement="shift")
    x = torch.tensor([1.0, -2.0, 0.0, 1.0, 2.0])
    assert sketch.expected_error(x) == pytest.approx((2 * 5 + 2 * 9 + 1 * 6) / (10 * 3 * 2))
    assert sketch.expected_error(torch.zeros(5)) == 0
    assert CountSketch(5, 3, 2, 0).expected_error(x) == pytest.approx(4 / 6)


def p_values_of_all_triples(placement, dimension, columns, draws):
    """Of each three coordinates, that all (columns * 2)^3 joint values of bucket and sign are equally likely."""
    values = torch.empty(draws, dimension, dtype=torch.int64)
    for draw in range(draws):
        buckets, signs = CountSketch(dimension, 1, columns, 17, draw, placement=placement).buckets_and_signs(0)
        values[draw] = 2 * buckets + (signs > 0)
    kinds, found = 2 * columns, {}
    for triple in itertools.combinations(range(dimension), 3):
        joint = (values[:, triple] * torch.tensor([kinds**2, kinds, 1])).sum(1)
        found[triple] = stats.chisquare(torch.bincount(joint, minlength=kinds**3).numpy()).pvalue
    return found


@pytest.mark.parametrize("columns", [2, 3])
def test_any_three_hashes_are_independent_also_across_blocks(columns, monkeypatch):
    """Blocks of 4, all 120 triples: the least p-value of so many is below 1e-6 once in 8,000 such tests."""
    monkeypatch.setattr(count_sketch, "_BLOCK", 4)
    p_values = p_values_of_all_triples("hash", 10, columns, 5000)
    assert min(p_values.values()) > 1e-6
    assert np.mean(list(p_values.values())) == pytest.approx(0.5, abs=0.15)


def test_four_hashes_of_a_rectangle_are_not_independent(monkeypatch):
    """The limit of this hash, which shows that the tests above could fail: two places in two blocks."""
    monkeypatch.setattr(count_sketch, "_BLOCK", 4)
    for draw in range(50):
        buckets, signs = CountSketch(8, 1, 10, 17, draw).buckets_and_signs(0)
        assert signs[[0, 1, 4, 5]].prod() == 1
        assert (buckets[0] + buckets[5] - buckets[1] - buckets[4]) % 10 == 0


def test_hashes_of_three_shifted_blocks_are_independent():
    p_values = p_values_of_all_triples("shift", 12, 4, 5000)
    across = [p for triple, p in p_values.items() if len({place // 4 for place in triple}) == 3]
    assert len(across) == 64
    assert min(across) > 1e-6


def test_three_hashes_that_cross_real_blocks_are_independent():
    """Three coordinates in three blocks of 2^16, two of them at the same place in theirs."""
    places, counts = [5, BLOCK + 5, 2 * BLOCK], np.zeros((4, 4, 4))
    for draw in range(320):
        buckets, signs = CountSketch(2 * BLOCK + 1, 1, 2, 17, draw).buckets_and_signs(0)
        counts[tuple((2 * buckets[places] + (signs[places] > 0)).tolist())] += 1
    assert stats.chisquare(counts.ravel()).pvalue > 1e-4


@pytest.mark.parametrize(
    "dimension, columns",
    [(50_000, 500), (BLOCK, 5000), (5 * BLOCK + 100, 1000), (1_117_396, 11_174), (1_117_396, 100_003)],
)
def test_loads_of_buckets_are_near_poisson(dimension, columns):
    """Their variance over their mean is that of throwing at random, 1 - 1 / columns, with a deviation of
    sqrt(2 / columns)."""
    for row in range(3):
        buckets, _ = CountSketch(dimension, 3, columns, 5).buckets_and_signs(row)
        loads = torch.bincount(buckets, minlength=columns).double()
        assert len(loads) == columns
        dispersion = float(loads.var(correction=0) / loads.mean())
        assert dispersion == pytest.approx(1 - 1 / columns, abs=4 * math.sqrt(2 / columns))


def test_loads_of_shifts_are_even():
    buckets, _ = CountSketch(10 * 700, 1, 700, 5, placement="shift").buckets_and_signs(0)
    assert (torch.bincount(buckets) == 10).all()


def test_signs_and_buckets_of_rows_are_uncorrelated():
    """A correlation of p pairs that are independent two by two has standard deviation 1 / sqrt(p)."""
    dimension = 3 * BLOCK + 99
    sketch = CountSketch(dimension, 5, 1000, 5)
    hashes = [sketch.buckets_and_signs(row) for row in range(5)]
    for part in (
        torch.stack([bucket.double() for bucket, _ in hashes]),
        torch.stack([sign.double() for _, sign in hashes]),
    ):
        correlations = torch.corrcoef(part)[torch.ones(5, 5, dtype=torch.bool).triu(1)]
        assert len(correlations) == 10
        assert correlations.abs().max() < 4 / math.sqrt(dimension)
    assert all(abs(float(sign.mean())) < 4 / math.sqrt(dimension) for _, sign in hashes)


@sketches
def test_the_median_finds_all_heavy_coordinates(placement):
    """20 of 140,000, in all blocks. A row's noise has a deviation of |x| / sqrt(columns) = 1 or so; they have 12."""
    dimension = 2 * BLOCK + 9000
    x = torch.randn(dimension, generator=generator(3)) * 0.1
    heavy = torch.randperm(dimension, generator=generator(4))[:20].sort().values
    x[heavy] = 12 * (1 - 2 * (torch.arange(20) % 2)).float()
    sketch = CountSketch(dimension, 5, 4000, 9, placement=placement)
    lifted = sketch.lift(sketch.apply(x), "median")
    assert torch.equal(lifted.abs().topk(20).indices.sort().values, heavy)
    assert (lifted[heavy] - x[heavy]).abs().max() < 4
