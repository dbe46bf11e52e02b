import math
from itertools import combinations, product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import hypergeom

from hessketch.errors import InputError
from hessketch.linalg.chance_overlaps import (
    Chance,
    chance_overlap,
    mask_chance,
    mask_pair_chance,
    stratified_chance,
)


def random_bases(count: int, p: int, k: int, seed: int = 0) -> torch.Tensor:
    columns = torch.randn(count, p, k, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.linalg.qr(columns).Q


def leverages_of(p: int, k: int, seed: int = 0) -> torch.Tensor:
    return random_bases(1, p, k, seed)[0].square().sum(1)


def counted(values: list[float]) -> Chance:
    return Chance(float(np.mean(values)), float(np.std(values)))


def assert_drawn_from(values: torch.Tensor, chance: Chance) -> None:
    """Mean and standard deviation of independent draws, each within four of its standard errors."""
    n, centred = len(values), values - values.mean()
    variance = float(centred.square().mean())
    assert abs(float(values.mean()) - chance.mean) < 4 * math.sqrt(variance / n)
    error = math.sqrt((float((centred**4).mean()) - variance**2) / n)
    assert abs(variance - chance.sd**2) < 4 * error
    assert error < 0.1 * variance  # so that the test can tell


@pytest.mark.parametrize(("p", "k", "l"), [(7, 2, 2), (7, 2, 4), (7, 5, 3), (30, 6, 6), (12, 11, 11)])
def test_random_spaces_overlap_as_the_formula_says(p, k, l):
    first, second = random_bases(4000, p, k, 1), random_bases(4000, p, l, 2)
    assert_drawn_from((first.mT @ second).square().sum((1, 2)) / k, chance_overlap(p, k, l))


def test_two_random_lines_of_a_plane_overlap_by_the_cosine_squared_of_a_uniform_angle():
    assert chance_overlap(2, 1) == pytest.approx((1 / 2, math.sqrt(1 / 8)), rel=1e-15)


def test_a_random_line_has_a_beta_distributed_share_in_a_space():
    p, l = 11, 4  # a normalised Gaussian vector: Beta(l / 2, (p - l) / 2)
    a, b = l / 2, (p - l) / 2
    sd = math.sqrt(a * b / ((a + b) ** 2 * (a + b + 1)))
    assert chance_overlap(p, 1, l) == pytest.approx((l / p, sd), rel=1e-14)


@given(p=st.integers(2, 50), data=st.data())
def test_the_shared_trace_of_random_spaces_varies_as_that_of_their_complements(p, data):
    k, l = data.draw(st.integers(1, p - 1)), data.draw(st.integers(1, p - 1))
    spread = k * chance_overlap(p, k, l).sd
    assert (p - k) * chance_overlap(p, p - k, l).sd == pytest.approx(spread, rel=1e-12)
    assert l * chance_overlap(p, l, k).sd == pytest.approx(spread, rel=1e-12)


def test_the_whole_space_holds_every_other():
    assert chance_overlap(5, 5) == chance_overlap(1, 1) == mask_pair_chance(1, 1) == (1, 0)
    assert chance_overlap(5, 2, 5) == (1, 0)
    assert mask_chance(leverages_of(6, 2), 6) == pytest.approx((2 / 6, 0), abs=1e-15)


@pytest.mark.parametrize(("p", "k", "columns"), [(7, 3, 3), (8, 5, 2), (6, 1, 1), (5, 4, 5)])
def test_random_masks_against_a_fixed_space_match_all_masks_counted(p, k, columns):
    leverages = leverages_of(p, columns)
    every = [float(leverages[list(mask)].sum()) / k for mask in combinations(range(p), k)]
    assert mask_chance(leverages, k) == pytest.approx(counted(every), rel=1e-12, abs=1e-15)


def test_random_masks_against_a_fixed_space_match_draws():
    p, k = 60, 9
    leverages = leverages_of(p, k)
    draws = torch.rand(4000, p, generator=torch.Generator().manual_seed(5)).argsort(1)[:, :k]
    assert_drawn_from(leverages[draws].sum(1) / k, mask_chance(leverages, k))


@pytest.mark.parametrize("counts", [[2, 1, 1], [0, 2, 1], [3, 0, 1], [3, 2, 0], [1, 0, 0]])
def test_random_masks_by_layer_match_all_such_masks_counted(counts):
    strata = torch.tensor([0, 2, 0, 1, 1, 0])
    leverages = leverages_of(6, 3)
    choices = [combinations(np.flatnonzero(strata == s), c) for s, c in enumerate(counts)]
    every = [float(leverages[list(sum(mask, ()))].sum()) / sum(counts) for mask in product(*choices)]
    assert stratified_chance(leverages, strata, counts) == pytest.approx(counted(every), rel=1e-12, abs=1e-15)
    assert stratified_chance(leverages, strata, torch.tensor(counts)) == stratified_chance(leverages, strata, counts)


def test_random_masks_by_layer_match_draws():
    sizes, counts = [10, 25, 40], [7, 3, 5]
    leverages = leverages_of(75, 15)
    strata = torch.repeat_interleave(torch.arange(3), torch.tensor(sizes))
    keys = torch.rand(4000, 75, generator=torch.Generator().manual_seed(6)).split(sizes, dim=1)
    chosen = [key.argsort(1)[:, :count] for key, count in zip(keys, counts, strict=True)]
    parts = [part[mask].sum(1) for part, mask in zip(leverages.split(sizes), chosen, strict=True)]
    assert_drawn_from(sum(parts) / 15, stratified_chance(leverages, strata, counts))


def test_random_masks_among_live_parameters_match_all_such_masks_counted():
    leverages = torch.zeros(9, dtype=torch.float64)
    live = torch.tensor([0, 2, 3, 6, 8])
    leverages[live] = leverages_of(5, 2)
    every = [float(leverages[list(mask)].sum()) / 2 for mask in combinations(live.tolist(), 2)]
    found = mask_chance(leverages[live], 2)
    assert found == pytest.approx(counted(every), rel=1e-12)
    assert found.mean == pytest.approx(2 / 5) and mask_chance(leverages, 2).mean == pytest.approx(2 / 9)


@pytest.mark.parametrize(("p", "k", "l"), [(7, 3, 3), (8, 5, 2), (6, 2, 5)])
def test_two_random_masks_share_a_hypergeometric_number(p, k, l):
    every = [len(set(range(l)) & set(mask)) / k for mask in combinations(range(p), k)]
    assert mask_pair_chance(p, k, l) == pytest.approx(counted(every), rel=1e-12)
    law = hypergeom(p, l, k)
    assert mask_pair_chance(p, k, l) == pytest.approx((law.mean() / k, law.std() / k), rel=1e-12)


@settings(max_examples=30)
@given(p=st.integers(2, 40), data=st.data())
def test_a_mask_as_the_fixed_space_gives_the_law_of_two_masks(p, data):
    k, l = data.draw(st.integers(1, p)), data.draw(st.integers(1, p))
    leverages = (torch.arange(p) < l).double()
    assert mask_chance(leverages, k) == pytest.approx(mask_pair_chance(p, k, l), rel=1e-10, abs=1e-14)


def test_random_masks_against_random_spaces_vary_as_random_spaces_do():
    # The law of total variance: the mean over masks is k / p for every space, so all variance is within spaces.
    p, k = 20, 4
    squares = [mask_chance(leverages_of(p, k, seed), k).sd ** 2 for seed in range(300)]
    error = float(np.std(squares)) / math.sqrt(len(squares))
    assert abs(float(np.mean(squares)) - chance_overlap(p, k).sd ** 2) < 4 * error
    assert error < 0.05 * chance_overlap(p, k).sd ** 2


def test_dimensions_that_cannot_be_are_refused():
    for wrong in ((5, 6), (5, 2, 6)):
        with pytest.raises(InputError, match="is 6 in 5 dimensions; allowed: 1 to 5"):
            chance_overlap(*wrong)
        with pytest.raises(InputError, match="allowed: 1 to 5"):
            mask_pair_chance(*wrong)
    with pytest.raises(InputError, match="k is 0"):
        chance_overlap(5, 0)
    with pytest.raises(InputError, match="k is 7 in 6 dimensions"):
        mask_chance(leverages_of(6, 2), 7)
    with pytest.raises(InputError, match="k is 0"):
        mask_chance(leverages_of(6, 2), 0)


def test_leverages_that_no_basis_has_are_refused():
    for wrong in ([0.2, 1.1], [-0.1, 0.5], [0.2, math.nan]):
        with pytest.raises(InputError, match=r"allowed: \[0, 1\]"):
            mask_chance(torch.tensor(wrong, dtype=torch.float64), 1)
    with pytest.raises(InputError, match=r"real numbers \(p,\)"):
        mask_chance(torch.eye(3), 1)


def test_leverages_of_a_float32_basis_may_exceed_one_by_its_rounding():
    found = mask_chance(torch.tensor([1 + 2e-7, 0.0, 0.0, 0.0], dtype=torch.float64), 1)
    assert found == pytest.approx((1 / 4, math.sqrt(3) / 4), rel=1e-6)


def test_strata_and_counts_that_do_not_fit_are_refused():
    leverages, strata = leverages_of(4, 2), torch.tensor([0, 0, 1, 1])
    with pytest.raises(InputError, match=r"counts\[1\] is 3, but stratum 1 has 2; allowed: 0 to 2"):
        stratified_chance(leverages, strata, [1, 3])
    with pytest.raises(InputError, match=r"counts\[0\] is -1"):
        stratified_chance(leverages, strata, [-1, 2])
    with pytest.raises(InputError, match="zero coordinates"):
        stratified_chance(leverages, strata, [0, 0])
    with pytest.raises(InputError, match="run from 0 to 1, but 1 counts"):
        stratified_chance(leverages, strata, [2])
    for wrong in (strata[:3], strata.double()):
        with pytest.raises(InputError, match=r"int64 numbers \(4,\)"):
            stratified_chance(leverages, wrong, [1, 1])
