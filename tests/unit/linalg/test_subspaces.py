import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hessketch.errors import InputError
from hessketch.linalg.subspaces import cumulative_overlaps, overlap, principal_angles


def random_basis(p: int, k: int, seed: int = 0) -> torch.Tensor:
    columns = torch.randn(p, k, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.linalg.qr(columns).Q


def planes_at(angles: list[float], p: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
    """Two k-spaces with exactly these principal angles."""
    k = len(angles)
    first, second = torch.zeros(2, p, k, dtype=torch.float64)
    for i, angle in enumerate(angles):
        first[i, i] = 1
        second[i, i], second[k + i, i] = math.cos(angle), math.sin(angle)
    return first, second


def assert_angles(found: torch.Tensor, expected: list[float]) -> None:
    torch.testing.assert_close(found, torch.tensor(sorted(expected), dtype=torch.float64), rtol=1e-6, atol=2e-15)


@pytest.mark.parametrize("angle", [0.0, 1e-9, 1e-5, 0.3, math.pi / 4, 1.2, math.pi / 2 - 1e-9, math.pi / 2])
def test_lines_at_a_known_angle_are_told_so(angle):
    found = principal_angles(*planes_at([angle]))
    assert abs(float(found) - angle) <= 1e-15 + 1e-12 * angle


def test_small_and_large_angles_of_one_pair_are_both_accurate():
    angles = [1.5, 1e-9, 0.8, 3e-4]
    first, second = planes_at(angles)
    assert_angles(principal_angles(first, second), angles)
    assert_angles(principal_angles(second, first), angles)


def test_small_angles_survive_rotations_of_space_and_bases():
    angles = [1e-9, 2e-7, 0.5]
    first, second = planes_at(angles)
    space, inside, within = random_basis(12, 12), random_basis(3, 3, 1), random_basis(3, 3, 2)
    found = principal_angles(space @ first @ inside, space @ second @ within)
    torch.testing.assert_close(found, torch.tensor(angles, dtype=torch.float64), rtol=1e-5, atol=1e-14)


def test_bases_of_different_sizes_have_as_many_angles_as_the_smaller():
    first, second = planes_at([0.2, 0.9, 1.3])
    assert_angles(principal_angles(first, second[:, :2]), [0.2, 0.9])
    assert_angles(principal_angles(second[:, :2], first), [0.2, 0.9])


def test_overlap_of_equal_subspaces_is_one():
    basis = random_basis(20, 4)
    assert overlap(basis, basis @ random_basis(4, 4, 1)) == pytest.approx(1, abs=1e-14)


def test_overlap_of_orthogonal_subspaces_is_zero():
    basis = random_basis(20, 8)
    assert overlap(basis[:, :4], basis[:, 4:]) == pytest.approx(0, abs=1e-28)


def test_overlap_is_the_mean_squared_cosine_of_the_angles():
    angles = [0.1, 0.7, 1.4]
    assert overlap(*planes_at(angles)) == pytest.approx(sum(math.cos(a) ** 2 for a in angles) / 3, rel=1e-13)


@settings(max_examples=25, deadline=None)
@given(p=st.integers(2, 15), data=st.data())
def test_cumulative_overlaps_are_those_of_the_leading_columns(p, data):
    k = data.draw(st.integers(1, p))
    first, second = (random_basis(p, k, data.draw(st.integers(0, 1000))) for _ in range(2))
    found = cumulative_overlaps(first, second)
    expected = [float((first[:, :j].T @ second[:, :j]).square().sum()) / j for j in range(1, k + 1)]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-10, atol=1e-13)
    assert overlap(first, second) == pytest.approx(expected[-1], rel=1e-10)
    angles = principal_angles(first, second)
    assert float(angles.cos().square().mean()) == pytest.approx(expected[-1], abs=1e-12)
    assert (angles.diff() >= -1e-12).all()


def test_random_subspaces_overlap_by_chance():
    p, k, pairs = 40, 5, 300
    found = torch.tensor([overlap(random_basis(p, k, 2 * i), random_basis(p, k, 2 * i + 1)) for i in range(pairs)])
    error = float(found.std()) / pairs**0.5
    assert abs(float(found.mean()) - k / p) < 4 * error
    assert error < 0.04 * k / p  # so that the test can tell


def test_float32_bases_are_made_orthonormal_before_small_angles_are_taken():
    basis = random_basis(500, 6).float()
    angles = principal_angles(basis, basis @ random_basis(6, 6, 1).float())
    assert angles.dtype == torch.float64 and float(angles.max()) < 1e-6


def test_bases_that_are_not_orthonormal_are_refused():
    basis = random_basis(10, 3)
    with pytest.raises(InputError, match=r"second basis is not orthonormal.*1\.0e-06"):
        principal_angles(basis, basis * (1 + 5e-7))
    with pytest.raises(InputError, match="first basis is not orthonormal"):
        overlap(basis * torch.nan, basis)
    assert float(principal_angles(basis, basis * (1 + 1e-9)).max()) < 1e-14


def test_bases_of_different_spaces_or_impossible_shapes_are_refused():
    with pytest.raises(InputError, match="10 and 11 dimensions"):
        principal_angles(random_basis(10, 3), random_basis(11, 3))
    with pytest.raises(InputError, match="one dimension; 3 and 2"):
        overlap(random_basis(10, 3), random_basis(10, 2))
    for wrong in (torch.eye(3)[:2], torch.eye(3)[:, :0], torch.ones(3), torch.eye(3).long()):
        with pytest.raises(InputError, match="1 <= k <= p"):
            principal_angles(wrong, wrong)
