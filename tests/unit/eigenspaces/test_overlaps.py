"""Masks against an eigenspace: every column of the tables against matrices written out."""

import math
from itertools import combinations

import numpy as np
import pytest
import torch

from hessketch.eigenspaces.overlaps import MASKS, Weights, mask_sizes, mask_tables, sizes_of
from hessketch.eigenspaces.tables import POINT_TABLES
from hessketch.errors import InputError

LAYERS = {"0.weight": 4, "0.bias": 1, "2.weight": 3}
P = sum(LAYERS.values())


def basis(rows: int, columns: int, seed: int = 0, dead: tuple[int, ...] = ()) -> torch.Tensor:
    """Orthonormal columns with rows of zeros."""
    drawn = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    drawn[list(dead)] = 0
    return torch.linalg.qr(drawn).Q


THETA = torch.tensor([0.1, -0.9, 0.2, 0.3, -2.0, 0.8, -0.7, 0.05], dtype=torch.float64)
DEAD = (2, 6)
LIVE = torch.tensor([i not in DEAD for i in range(P)])
VECTORS = basis(P, 6, dead=DEAD)
WEIGHTS = Weights(THETA, LAYERS, LIVE)


@pytest.fixture(scope="module")
def tables():
    return mask_tables(VECTORS, WEIGHTS, [0.25, 0.5])


def of(table, **given):
    for name, value in given.items():
        table = table[table[name] == value]
    return table


def overlap_by_matrix(mask, k: int) -> float:
    """(1/k) |M^T U_k|_F^2 with the mask as a (p, k) matrix of unit columns."""
    matrix = torch.eye(P, dtype=torch.float64)[:, sorted(mask)]
    return float((matrix.T @ VECTORS[:, :k]).square().sum()) / k


def magnitude_mask(k: int) -> list[int]:
    return sorted(range(P), key=lambda i: -abs(float(THETA[i])))[:k]


def test_the_tables_have_their_columns(tables):
    assert {name: list(table) for name, table in tables.items()} == {
        name: list(POINT_TABLES[name]) for name in ("overlaps", "layers", "metrics")
    }


@pytest.mark.parametrize("k", range(1, 7))
def test_overlaps_of_large_weights_and_of_the_best_mask_are_those_of_matrices(tables, k):
    rows = of(tables["overlaps"], k=k).set_index("mask")["overlap"]
    assert rows["magnitude"] == pytest.approx(overlap_by_matrix(magnitude_mask(k), k), rel=1e-12)
    best = max(overlap_by_matrix(mask, k) for mask in combinations(range(P), k))
    assert rows["best"] == pytest.approx(best, rel=1e-12) and list(rows.index) == list(MASKS)


def test_the_mask_by_layer_takes_each_layers_share_of_its_largest_weights(tables):
    """Of 4 of 8 weights the layers of 4, 1 and 3 get 2, 1 (the half rounded up) and 1."""
    expected = overlap_by_matrix([1, 3, 4, 5], 4)
    assert of(tables["overlaps"], k=4, mask="magnitude_by_layer")["overlap"].item() == pytest.approx(expected)


@pytest.mark.parametrize("k", [1, 3, 5])
def test_chance_levels_are_those_of_all_masks_enumerated(tables, k):
    row = of(tables["overlaps"], k=k, mask="magnitude").iloc[0]
    counts = [sum(i in part for i in magnitude_mask(k)) for part in (range(4), range(4, 5), range(5, 8))]
    masks = {
        "chance": list(combinations(range(P), k)),
        "chance_live": [m for m in combinations(range(P), k) if not set(m) & set(DEAD)],
        "chance_by_layer": [
            m
            for m in combinations(range(P), k)
            if [sum(i in part for i in m) for part in (range(4), range(4, 5), range(5, 8))] == counts
        ],
    }
    for name, every in masks.items():
        overlaps = np.array([overlap_by_matrix(mask, k) for mask in every])
        assert row[name] == pytest.approx(overlaps.mean(), rel=1e-10), name
        assert row[f"{name}_sd"] == pytest.approx(overlaps.std(), rel=1e-8, abs=1e-9), name
    assert row["chance"] == pytest.approx(k / P) and row["live"] == 6


@pytest.mark.parametrize("k", [2, 4])
def test_each_mask_is_compared_with_random_ones_of_its_own_share_in_each_layer(tables, k):
    """The best mask may lie in other layers than the largest weights: its level is that of its own counts."""
    layers, leverages = (range(4), range(4, 5), range(5, 8)), VECTORS[:, :k].square().sum(1)
    by_layer = {2: [1, 5], 4: [1, 3, 4, 5]}[k]
    own = {"magnitude": magnitude_mask(k), "magnitude_by_layer": by_layer, "best": leverages.topk(k).indices.tolist()}
    rows = of(tables["overlaps"], k=k).set_index("mask")["chance_by_layer"]
    for name, mask in own.items():
        level = sum(sum(i in part for i in mask) * float(leverages[list(part)].mean()) for part in layers) / k
        assert rows[name] == pytest.approx(level, rel=1e-10), name
    assert rows.nunique() > 1


def test_chance_among_live_parameters_is_unknown_where_a_mask_has_more():
    found = mask_tables(VECTORS, Weights(THETA, LAYERS, torch.arange(P) < 3), [0.5])["overlaps"]
    assert of(found, k=4)["chance_live"].isna().all() and of(found, k=4)["chance_live_sd"].isna().all()
    assert of(found, k=3)["chance_live"].notna().all() and set(found["live"]) == {3}


def test_layers_say_where_mask_and_eigenspace_lie(tables):
    layers = tables["layers"]
    assert layers["k"].unique().tolist() == [2, 4, 6]
    for k in (2, 4, 6):
        rows = of(layers, k=k)
        leverages = VECTORS[:, :k].square().sum(1)
        assert rows["layer"].tolist() == list(LAYERS) and rows["parameters"].tolist() == [4, 1, 3]
        assert rows["energy"].tolist() == pytest.approx([float(part.sum()) for part in leverages.split([4, 1, 3])])
        mask = magnitude_mask(k)
        assert rows["in_mask"].tolist() == [sum(i in part for i in mask) for part in (range(4), [4], range(5, 8))]


def test_metrics_are_those_of_the_principal_angles_at_the_sizes_of_the_ratios(tables):
    metrics = tables["metrics"]
    assert metrics["k"].unique().tolist() == [2, 4]
    for mask, indices in {"magnitude": magnitude_mask(4), "magnitude_by_layer": [1, 3, 4, 5]}.items():
        cosines = torch.linalg.svdvals(VECTORS[sorted(indices), :4]).clamp(max=1)
        found = of(metrics, k=4, mask=mask).set_index("metric")["similarity"]
        assert found["overlap"] == pytest.approx(float(cosines.square().mean()))
        angles = torch.arccos(cosines)
        assert found["geodesic"] == pytest.approx(1 - float(angles.norm()) / (math.pi / 2 * 2), abs=1e-9)
        assert found["projection"] == pytest.approx(1 - float(angles.sin().norm()) / 2, abs=1e-9)


def test_a_space_of_large_weights_themselves_overlaps_wholly():
    vectors = torch.eye(P, dtype=torch.float32)[:, magnitude_mask(3)]
    found = mask_tables(vectors, WEIGHTS, [0.25])["overlaps"]
    assert of(found, mask="magnitude")["overlap"].tolist() == [1.0] * 3
    assert of(found, mask="best")["overlap"].tolist() == [1.0] * 3


def test_a_float32_basis_whose_rows_exceed_one_by_rounding_is_taken():
    vectors = torch.eye(P, dtype=torch.float32)[:, :3] * (1 + 2e-7)
    assert mask_tables(vectors, WEIGHTS, [0.25])["overlaps"]["chance"].notna().all()


def test_sizes_are_spaced_by_their_logarithm_with_those_of_the_ratios_among_them():
    sizes = mask_sizes(1000, 100_000, [0.003, 0.00777, 0.5])
    assert sizes[0] == 1 and sizes[-1] == 1000 and {300, 777} <= set(sizes) and 50 <= len(sizes) <= 62
    assert sizes == sorted(set(sizes))
    gaps = np.diff(np.log([size for size in sizes if size > 20 and size not in (300, 777)]))
    assert gaps.max() < 0.15
    assert mask_sizes(5, 5, [0.5]) == [1, 2, 3, 4], "a mask of all says nothing"
    assert mask_sizes(1, 10, [0.5]) == [1]


def test_the_size_of_a_ratio_is_the_nearest_whole_number_and_at_least_one():
    assert sizes_of([0.05, 0.005, 0.5], 7030, 400) == [35, 352]
    assert sizes_of([0.001], 10, 5) == [1]


def test_columns_that_are_no_basis_are_refused():
    with pytest.raises(InputError, match="not orthonormal"):
        mask_tables(2 * VECTORS, WEIGHTS, [0.25])


def test_weights_that_are_not_finite_are_refused():
    theta = THETA.clone()
    theta[3] = math.nan
    with pytest.raises(InputError, match=r"values\[3\] is nan"):
        mask_tables(VECTORS, Weights(theta, LAYERS, LIVE), [0.25])
