import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad

from hessketch.errors import InputError
from hessketch.linalg.grassmannian import DISTANCES, METRICS, distances, largest_distances, similarities
from hessketch.linalg.subspaces import overlap, principal_angles

RIGHT = math.pi / 2


def angles(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def random_basis(p: int, k: int, seed: int) -> torch.Tensor:
    columns = torch.randn(p, k, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.linalg.qr(columns).Q


def test_distances_of_known_angles_are_their_formulas():
    expected = {
        "geodesic": math.pi * math.sqrt(13) / 6,
        "chordal_max": math.sqrt(2),
        "chordal": math.sqrt(3),
        "projection_max": 1.0,
        "projection": math.sqrt(7) / 2,
        "fubini_study": RIGHT,
    }
    assert distances(angles(0, math.pi / 3, RIGHT)) == pytest.approx(expected, rel=1e-14)


def test_maxima_are_taken_over_angles_in_any_order():
    found = distances(angles(0.7, 0.2))
    assert found["chordal_max"] == pytest.approx(2 * math.sin(0.35), rel=1e-14)
    assert found["projection_max"] == pytest.approx(math.sin(0.7), rel=1e-14)
    assert found["fubini_study"] == pytest.approx(math.acos(math.cos(0.7) * math.cos(0.2)), rel=1e-13)


@pytest.mark.parametrize("turn", [0.0, 1e-12, 1e-7, 0.4, math.pi / 4, 1.3, RIGHT - 1e-9, RIGHT])
def test_a_line_turned_in_a_plane_is_away_by_the_angle(turn):
    first = torch.tensor([[1.0], [0.0], [0.0]], dtype=torch.float64)
    second = torch.tensor([[math.cos(turn)], [0.0], [math.sin(turn)]], dtype=torch.float64)
    half, sine = 2 * math.sin(turn / 2), math.sin(turn)
    expected = dict(zip(DISTANCES, (turn, half, half, sine, sine, turn), strict=True))
    assert distances(principal_angles(first, second)) == pytest.approx(expected, rel=1e-10, abs=1e-15)


def test_a_turn_of_a_space_within_itself_changes_nothing():
    basis = random_basis(9, 4, 0)
    found = similarities(principal_angles(basis, basis @ random_basis(4, 4, 1)))
    assert found == pytest.approx(dict.fromkeys(METRICS, 1.0), abs=1e-14)


def test_orthogonal_spaces_are_as_far_as_spaces_can_be():
    basis = random_basis(9, 8, 0)
    t = principal_angles(basis[:, :4], basis[:, 4:])
    assert distances(t) == pytest.approx(largest_distances(4), rel=1e-14)
    assert similarities(t) == pytest.approx(dict.fromkeys(METRICS, 0.0), abs=1e-14)


def test_no_rounding_makes_orthogonal_spaces_less_than_orthogonal():
    values = [value for k in range(1, 60) for value in similarities(angles(*[RIGHT] * k)).values()]
    assert min(values) >= 0 and max(values) < 1e-14


def test_fubini_study_keeps_angles_whose_cosines_are_one_in_float64():
    assert distances(angles(*[1e-10] * 4))["fubini_study"] == pytest.approx(2e-10, rel=1e-9)
    assert distances(angles(0, RIGHT - 1e-10))["fubini_study"] == pytest.approx(RIGHT - 1e-10, abs=1e-15)


def test_fubini_study_of_many_large_angles_does_not_underflow():
    assert distances(angles(*[1.5] * 2000))["fubini_study"] == pytest.approx(RIGHT, abs=1e-15)


def test_distances_agree_with_their_definitions_by_matrices():
    u, v = random_basis(12, 3, 5), random_basis(12, 3, 6)
    found = distances(principal_angles(u, v))
    projections = torch.linalg.matrix_norm(u @ u.T - v @ v.T)
    assert found["projection"] == pytest.approx(float(projections) / math.sqrt(2), rel=1e-12)
    assert found["projection_max"] == pytest.approx(float(torch.linalg.matrix_norm(u @ u.T - v @ v.T, 2)), rel=1e-12)
    left, _, right = torch.linalg.svd(u.T @ v)
    nearest = u @ left - v @ right.T  # orthogonal Procrustes: the closest bases of the two spaces
    assert found["chordal"] == pytest.approx(float(torch.linalg.matrix_norm(nearest)), rel=1e-12)
    assert found["chordal_max"] == pytest.approx(float(torch.linalg.matrix_norm(nearest, 2)), rel=1e-12)
    determinant = abs(float(torch.linalg.det(u.T @ v)))
    assert found["fubini_study"] == pytest.approx(math.acos(determinant), rel=1e-12)
    assert similarities(principal_angles(u, v))["overlap"] == pytest.approx(overlap(u, v), rel=1e-12)


@given(st.lists(st.floats(0, RIGHT), min_size=1, max_size=8))
def test_similarities_lie_in_the_unit_interval_and_the_overlap_follows_from_the_projection(values):
    found = similarities(angles(*values))
    assert list(found) == list(METRICS)
    assert all(0 <= value <= 1 for value in found.values())
    assert found["overlap"] == pytest.approx(1 - distances(angles(*values))["projection"] ** 2 / len(values), abs=1e-14)


def limit_mean(ratio: float, function) -> float:
    """Mean of function(angle) between random spaces of ratio < 1/2 of infinitely many dimensions (Wachter 1980)."""
    end = 4 * ratio * (1 - ratio)

    def weighted(cosine: float) -> float:
        x = cosine**2
        return 2 * cosine * function(math.acos(cosine)) * math.sqrt(x * (end - x)) / (x * (1 - x))

    return quad(weighted, 0, math.sqrt(end))[0] / (2 * math.pi * ratio)


def test_random_spaces_of_a_fifth_of_the_dimensions_are_at_the_published_distances():
    limit = {
        "geodesic": math.sqrt(limit_mean(0.2, lambda t: t**2)) / RIGHT,
        "chordal": math.sqrt(limit_mean(0.2, lambda t: 1 - math.cos(t))),
        "projection": math.sqrt(limit_mean(0.2, lambda t: math.sin(t) ** 2)),
    }
    # Fernandez et al. 2025, normalised distances, from random pairs.
    published = {"geodesic": 0.75466, "chordal": 0.78246, "projection": 0.89430}
    assert limit == pytest.approx(published, abs=2e-4)

    p, pairs = 200, 40
    bases = [random_basis(p, p // 5, seed) for seed in range(2 * pairs)]
    drawn = [similarities(principal_angles(u, v)) for u, v in zip(bases[::2], bases[1::2], strict=True)]
    for metric, expected in {**{name: 1 - value for name, value in limit.items()}, "overlap": 0.2}.items():
        found = torch.tensor([one[metric] for one in drawn])
        error = float(found.std()) / math.sqrt(pairs)
        assert abs(float(found.mean()) - expected) < 4 * error, metric
        assert error < 2e-3  # so that the test can tell


def test_what_is_no_angle_is_refused():
    for wrong in (torch.tensor([]), torch.zeros(2, 2), torch.tensor([0, 1])):
        with pytest.raises(InputError, match=r"real numbers \(k,\), k >= 1"):
            distances(wrong)
    for wrong in (angles(0.2, 1.6), angles(-0.1), angles(0.3, math.nan)):
        with pytest.raises(InputError, match=r"radians in \[0, pi / 2\]"):
            similarities(wrong)
