"""Masks and eigenspaces of two steps of a training against sets and matrices written out."""

import math
from itertools import pairwise

import pytest
import torch

from hessketch.eigenspaces.stability import eigenspace_stability, iou_chance, mask_stability
from hessketch.eigenspaces.tables import STABILITY
from hessketch.errors import InputError
from hessketch.linalg.chance_overlaps import chance_overlap
from hessketch.linalg.coordinate_subspaces import mask_iou

P = 20


def drawn(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


WEIGHTS = {30: drawn(3, P), 0: drawn(0, P), 7: drawn(1, P)}
PAIRS = [(0, 0), (0, 7), (0, 30), (7, 7), (7, 30), (30, 30)]


def test_masks_are_compared_by_intersection_over_union():
    found = mask_stability(WEIGHTS, [0.1, 0.5])
    assert list(found) == list(STABILITY) and len(found) == 2 * len(PAIRS)
    assert set(found["split"]) == {""} and set(found["of"]) == {"mask"}
    for _, row in found.iterrows():
        k = {0.1: 2, 0.5: 10}[row["ratio"]]
        first, second = (set(WEIGHTS[row[name]].abs().topk(k).indices.tolist()) for name in ("first", "second"))
        assert row["k"] == k and row["similarity"] == pytest.approx(len(first & second) / len(first | second))
    for ratio in (0.1, 0.5):
        rows = found[found["ratio"] == ratio]
        assert list(zip(rows["first"], rows["second"], strict=True)) == PAIRS


def test_two_random_masks_have_about_the_union_over_which_their_mean_overlap_lies():
    generator, p, k = torch.Generator().manual_seed(0), 400, 80
    drawn = [torch.randperm(p, generator=generator)[:k].sort().values for _ in range(401)]
    found = torch.tensor([mask_iou(first, second) for first, second in pairwise(drawn)])
    level = iou_chance(p, k)
    assert level.mean == pytest.approx(0.2 / 1.8)
    assert float(found.mean()) == pytest.approx(level.mean, abs=4 * level.sd / 20 + 1e-3)
    assert float(found.std()) == pytest.approx(level.sd, rel=0.15)
    rows = mask_stability({0: WEIGHTS[0]}, [0.5])
    assert rows[["chance", "chance_sd"]].to_numpy().tolist() == [list(iou_chance(P, 10))]


def test_masks_of_the_same_weights_are_the_same_whatever_their_scale_and_signs():
    found = mask_stability({0: WEIGHTS[0], 5: -3 * WEIGHTS[0]}, [0.3])
    assert found["similarity"].tolist() == [1.0, 1.0, 1.0]


def test_eigenspaces_are_compared_by_the_overlap_of_their_leading_columns():
    bases = {step: torch.linalg.qr(drawn(step, P, 6)).Q for step in (0, 7, 30)}
    read = []

    def reader(step):
        return lambda: read.append(step) or bases[step].float()

    found = eigenspace_stability("test", {step: reader(step) for step in (30, 0, 7)}, [0.1, 0.3])
    assert list(found) == list(STABILITY) and set(found["split"]) == {"test"} and set(found["of"]) == {"eigenspace"}
    for _, row in found.iterrows():
        k = {0.1: 2, 0.3: 6}[row["ratio"]]
        first, second = (bases[row[name]][:, :k] for name in ("first", "second"))
        expected = float((first @ first.T @ second @ second.T).trace()) / k
        assert row["k"] == k and row["similarity"] == pytest.approx(expected, abs=1e-5)
        assert row["chance"] == pytest.approx(k / P) and row["chance_sd"] == chance_overlap(P, k).sd > 0
    assert len(found) == 2 * len(PAIRS) and len(read) <= len(PAIRS)


def test_a_space_of_fewer_vectors_than_asked_for_is_not_compared():
    bases = {0: torch.linalg.qr(drawn(0, P, 6)).Q, 7: torch.linalg.qr(drawn(7, P, 4)).Q}
    found = eigenspace_stability("train", {step: lambda u=u: u for step, u in bases.items()}, [0.2, 0.3])
    unknown = found[found["similarity"].isna()]
    assert set(unknown["k"]) == {6} and list(zip(unknown["first"], unknown["second"], strict=True)) == [(0, 7), (7, 7)]


def test_weights_that_are_not_finite_are_refused():
    with pytest.raises(InputError, match="allowed: finite numbers"):
        mask_stability({0: WEIGHTS[0], 1: WEIGHTS[7] * math.nan}, [0.1])
