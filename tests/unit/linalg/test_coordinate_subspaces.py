import math
from itertools import combinations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hessketch.errors import InputError
from hessketch.linalg import coordinate_subspaces
from hessketch.linalg.coordinate_subspaces import (
    largest_entries_mask,
    leverages_at,
    magnitude_order,
    mask_angles,
    mask_iou,
    require_mask,
)
from hessketch.linalg.subspaces import overlap, principal_angles


def random_basis(p: int, k: int, seed: int = 0) -> torch.Tensor:
    columns = torch.randn(p, k, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.linalg.qr(columns).Q


def random_mask(p: int, k: int, seed: int = 0) -> torch.Tensor:
    return torch.randperm(p, generator=torch.Generator().manual_seed(seed))[:k].sort().values


def axes(p: int, mask: torch.Tensor) -> torch.Tensor:
    """The basis (p, k) that a mask stands for."""
    return torch.eye(p, dtype=torch.float64)[:, mask]


@pytest.fixture
def small_blocks(monkeypatch):
    """Every loop over rows takes several turns."""
    monkeypatch.setattr(coordinate_subspaces, "_ENTRIES", 24)


def test_order_is_by_magnitude_and_ties_go_by_index():
    values = torch.tensor([1.0, -3.0, 0.0, 3.0, -1.0, -0.0, 3.0])
    assert magnitude_order(values).tolist() == [1, 3, 6, 0, 4, 2, 5]


@given(st.lists(st.sampled_from([-2.0, -1.0, 0.0, 1.0, 2.0, 0.5]), min_size=2, max_size=12), st.data())
def test_largest_entries_are_the_leading_ones_of_the_order(values, data):
    k = data.draw(st.integers(1, len(values) - 1))
    expected = magnitude_order(torch.tensor(values))[:k].sort().values
    assert largest_entries_mask(torch.tensor(values), k).tolist() == expected.tolist()


def test_sums_are_in_float64_for_float32_vectors():
    p, k = 400, 200
    basis = random_basis(p, k).float()
    *_, (_, leverages) = leverages_at(basis, [3, k])
    torch.testing.assert_close(leverages, basis.double().square().sum(1), rtol=1e-13, atol=0)


def test_leverages_grow_by_the_columns_between(small_blocks):
    basis = random_basis(30, 11)
    for k, leverages in list(leverages_at(basis, [1, 4, 5, 11])):
        torch.testing.assert_close(leverages, basis[:, :k].square().sum(1), rtol=1e-12, atol=1e-16)


def test_the_mask_of_largest_leverages_has_the_largest_overlap_of_all():
    p, k = 9, 4
    basis = random_basis(p, k, 3)
    (_, leverages), *_ = leverages_at(basis, [k])
    every = {mask: overlap(basis, axes(p, torch.tensor(mask))) for mask in combinations(range(p), k)}
    best = largest_entries_mask(leverages, k)
    assert every[tuple(best.tolist())] == pytest.approx(max(every.values()), rel=1e-14)
    assert max(every.values()) > 1.05 * sorted(every.values())[-10]  # so that the test can tell


@pytest.mark.parametrize(("p", "k", "size"), [(12, 3, 5), (12, 5, 3), (12, 4, 4), (12, 8, 7), (12, 3, 11), (12, 12, 5)])
def test_angles_with_a_mask_are_those_of_the_dense_subspaces(p, k, size, small_blocks):
    basis, mask = random_basis(p, k, k), random_mask(p, size, size)
    found = mask_angles(basis, mask)
    torch.testing.assert_close(found, principal_angles(basis, axes(p, mask)), rtol=1e-12, atol=1e-14)
    assert len(found) == min(k, size)


@pytest.mark.parametrize("mask", [random_mask(70, 9), torch.arange(60, 69), torch.arange(3), torch.arange(69)])
def test_angles_with_a_mask_do_not_depend_on_the_blocks_of_rows(mask, small_blocks):
    basis = random_basis(70, 5)  # blocks of 20 rows
    torch.testing.assert_close(
        mask_angles(basis, mask), principal_angles(basis, axes(70, mask)), rtol=1e-11, atol=1e-14
    )


def test_small_and_near_right_angles_with_a_mask_are_accurate():
    angles = [0.0, 1e-11, 1e-5, 0.6, math.pi / 2 - 1e-11]
    basis, k = torch.zeros(14, 5, dtype=torch.float64), len(angles)
    for column, angle in enumerate(angles):  # the mask is the first five axes
        basis[column, column], basis[5 + column, column] = math.cos(angle), math.sin(angle)
    turned = basis @ random_basis(k, k, 7)
    expected = torch.tensor(angles, dtype=torch.float64)
    torch.testing.assert_close(mask_angles(turned, torch.arange(5)), expected, rtol=1e-9, atol=2e-15)
    wider = torch.tensor([0, 1, 2, 3, 4, 10])  # an axis that the basis has no part in
    torch.testing.assert_close(mask_angles(turned, wider), expected, rtol=1e-9, atol=2e-15)


def test_angles_of_float32_columns_are_those_of_their_span():
    basis = axes(300, torch.arange(6)).float() @ random_basis(6, 6, 1).float()
    angles = mask_angles(basis, torch.arange(6))
    assert angles.dtype == torch.float64 and float(angles.max()) < 1e-15


@given(p=st.integers(3, 12), data=st.data())
def test_intersection_over_union_of_masks_of_one_size_follows_from_their_overlap(p, data):
    k = data.draw(st.integers(1, p - 1))
    first, second = (random_mask(p, k, data.draw(st.integers(0, 99))) for _ in range(2))
    shared = overlap(axes(p, first), axes(p, second))
    assert mask_iou(first, second) == pytest.approx(shared / (2 - shared), abs=1e-14)


def test_intersection_over_union_of_masks_of_two_sizes_counts_each_coordinate_once():
    assert mask_iou(torch.tensor([0, 2, 5, 9]), torch.tensor([2, 9])) == pytest.approx(0.5)


def test_a_mask_of_zero_or_full_size_is_refused():
    basis, values = random_basis(6, 6), torch.arange(6.0)
    for size in (0, 6):
        with pytest.raises(InputError, match=f"mask of {size} of 6 coordinates says nothing; allowed sizes: 1 to 5"):
            largest_entries_mask(values, size)
        with pytest.raises(InputError, match="allowed sizes: 1 to 5"):
            mask_angles(basis, torch.arange(size))
    with pytest.raises(InputError, match="says nothing"):
        mask_iou(torch.tensor([], dtype=torch.int64), torch.tensor([1]))
    for ks in ([6], [], [2, 7]):
        with pytest.raises(InputError, match="allowed: one or more from 1 to 5"):
            leverages_at(basis, ks)
    with pytest.raises(InputError, match="k is 0"):
        leverages_at(basis, [0, 3])


def test_sizes_beyond_the_columns_or_out_of_order_are_refused():
    with pytest.raises(InputError, match=r"3 columns.*from 1 to 3"):
        next(leverages_at(random_basis(6, 3), [4]))
    with pytest.raises(InputError, match="ascending, each once"):
        next(leverages_at(random_basis(6, 3), [2, 2]))


def test_indices_out_of_range_repeated_or_not_whole_are_refused():
    basis = random_basis(6, 3)
    for wrong in ([0, 6], [-1, 2]):
        with pytest.raises(InputError, match="outside the 6 coordinates; allowed: 0 to 5"):
            mask_angles(basis, torch.tensor(wrong))
    for wrong in ([1, 1], [3, 2]):
        with pytest.raises(InputError, match="repeat or are not ascending"):
            require_mask(torch.tensor(wrong), 6)
    for wrong in (torch.tensor([0.0, 1.0]), torch.tensor([[0, 1]]), [0, 1]):
        with pytest.raises(InputError, match=r"int64 indices \(k,\)"):
            require_mask(wrong, 6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_columns_that_are_not_orthonormal_are_refused(dtype):
    basis, allowed = random_basis(10, 4).to(dtype), torch.finfo(dtype).eps ** 0.5
    longer, slanted, damaged = basis.clone(), basis.clone(), basis.clone()
    longer[:, 2] *= 1 + 2 * allowed
    slanted[:, 3] += 3 * allowed * slanted[:, 0]
    damaged[7, 1] = torch.nan
    for wrong in (longer, slanted, damaged):
        with pytest.raises(InputError, match="not orthonormal"):
            next(leverages_at(wrong, [4]))
        with pytest.raises(InputError, match="not orthonormal"):
            mask_angles(wrong, torch.arange(3))
    assert len(list(leverages_at(slanted, [2]))) == 1  # of the leading two nothing is wrong


def test_shapes_that_are_no_basis_and_values_without_order_are_refused():
    for wrong in (torch.ones(3), torch.eye(4)[:2], torch.eye(3).long()):
        with pytest.raises(InputError, match="1 <= k <= p"):
            mask_angles(wrong, torch.tensor([0]))
    for wrong in (torch.tensor([1.0, torch.nan]), torch.tensor([1.0, -torch.inf])):
        with pytest.raises(InputError, match=r"values\[1\] is .*finite"):
            magnitude_order(wrong)
    with pytest.raises(InputError, match="vector of real numbers"):
        largest_entries_mask(torch.ones(3, 3), 2)
