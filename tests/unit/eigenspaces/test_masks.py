import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hessketch.curvature.dense import dense_hessian
from hessketch.curvature.losses import as_loss
from hessketch.curvature.operators import CurvatureOperator
from hessketch.eigenspaces.masks import (
    by_layer_masks,
    counts_in_layers,
    energies_in_layers,
    layer_counts,
    layer_numbers,
    layer_sizes,
    live_parameters,
)
from hessketch.errors import InputError
from hessketch.linalg.coordinate_subspaces import largest_entries_mask

SIZES = st.lists(st.integers(1, 30), min_size=1, max_size=6).filter(lambda sizes: sum(sizes) > 1)


def random_values(p: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(p, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_layers_are_the_parameter_tensors_in_their_order():
    shapes = {"0.weight": (3, 4), "0.bias": (3,), "scale": ()}
    assert list(layer_sizes(shapes).items()) == [("0.weight", 12), ("0.bias", 3), ("scale", 1)]
    assert layer_numbers([2, 1, 3]).tolist() == [0, 0, 1, 2, 2, 2]


def test_entries_left_by_rounding_go_to_the_largest_remainders():
    assert layer_counts([50, 30, 20], 10) == [5, 3, 2]
    assert layer_counts([6, 3, 1], 4) == [3, 1, 0]  # quotas 2.4, 1.2, 0.4: equal remainders go in order
    assert layer_counts([1, 1, 1, 97], 3) == [0, 0, 0, 3]  # quotas .03 thrice and 2.91
    assert layer_counts([5, 5, 5], 14) == [5, 5, 4]


@given(sizes=SIZES, data=st.data())
def test_counts_of_layers_sum_to_the_mask_and_are_off_by_less_than_one(sizes, data):
    p = sum(sizes)
    k = data.draw(st.integers(1, p - 1))
    counts = layer_counts(sizes, k)
    assert sum(counts) == k
    assert all(0 <= count <= size for count, size in zip(counts, sizes, strict=True))
    assert all(abs(count - k * size / p) < 1 for count, size in zip(counts, sizes, strict=True))


def test_counts_of_huge_layers_are_exact():
    sizes = [10**15 + 1, 10**15 - 1]  # floating point would tie these
    assert layer_counts(sizes, 10**15 + 1) == [5 * 10**14 + 1, 5 * 10**14]


def test_a_mask_by_layer_holds_the_largest_weights_of_each_layer():
    flat = torch.tensor([0.1, -0.3, 0.2, 0.0, 9.0, -8.0, 7.0, 10.0])
    assert by_layer_masks(flat, [4, 4], [4])[0].tolist() == [1, 2, 4, 7]
    assert largest_entries_mask(flat, 4).tolist() == [4, 5, 6, 7]


@given(sizes=SIZES, data=st.data())
def test_masks_by_layer_are_the_largest_entries_of_every_layer_alone(sizes, data):
    p = sum(sizes)
    ks = data.draw(st.lists(st.integers(1, p - 1), min_size=1, max_size=3))
    flat = random_values(p).mul(2).round()  # with ties
    for k, mask in zip(ks, by_layer_masks(flat, sizes, ks), strict=True):
        counts, expected, start = layer_counts(sizes, k), [], 0
        for layer, count in zip(flat.split(sizes), counts, strict=True):
            order = sorted(range(len(layer)), key=lambda i, layer=layer: (-abs(float(layer[i])), i))
            expected += [start + i for i in sorted(order[:count])]
            start += len(layer)
        assert mask.tolist() == expected
        assert counts_in_layers(mask, sizes).tolist() == counts


def test_one_layer_makes_a_mask_by_layer_the_global_one():
    flat = random_values(50)
    assert torch.equal(by_layer_masks(flat, [50], [7])[0], largest_entries_mask(flat, 7))


def test_coordinates_of_a_mask_are_counted_in_their_layers():
    assert counts_in_layers(torch.tensor([0, 2, 3, 9]), [3, 1, 4, 2]).tolist() == [2, 1, 0, 1]
    assert counts_in_layers(torch.tensor([2]), [3, 1, 4, 2]).tolist() == [1, 0, 0, 0]


def test_energies_of_layers_sum_to_the_columns_of_the_basis():
    basis = torch.linalg.qr(random_values(40).reshape(10, 4)).Q
    leverages = basis.square().sum(1)
    found = energies_in_layers(leverages, [3, 6, 1])
    expected = [float(basis[a:b].square().sum()) for a, b in ((0, 3), (3, 9), (9, 10))]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))
    assert float(found.sum()) == pytest.approx(4, rel=1e-14)


def trained_like(dead: list[int]) -> tuple[torch.nn.Module, list]:
    """A small network on inputs whose entries `dead` are always 0."""
    torch.manual_seed(3)
    model = torch.nn.Sequential(torch.nn.Linear(6, 4), torch.nn.Tanh(), torch.nn.Linear(4, 3)).double().eval()
    inputs = random_values(60).reshape(10, 6)
    inputs[:, dead] = 0
    return model, [(inputs, torch.arange(10) % 3)]


def test_input_weights_of_dead_pixels_have_no_curvature_and_all_others_have():
    model, batches = trained_like([1, 4])
    hessian = dense_hessian(model, as_loss("cross_entropy"), batches)
    dead = torch.zeros(4, 6, dtype=torch.bool)
    dead[:, [1, 4]] = True
    expected = torch.cat([~dead.flatten(), torch.ones(4 + 12 + 3, dtype=torch.bool)])
    assert torch.equal(live_parameters(hessian), expected)

    operator = CurvatureOperator("hessian", model, as_loss("cross_entropy"), batches)
    measured = operator @ random_values(43 * 2, 1).reshape(43, 2)
    assert torch.equal(live_parameters(measured), expected)
    assert torch.equal(live_parameters(column[:, None] for column in measured.T), expected)
    # Q of measurements spans combinations of the columns: its rows are zero where theirs are.
    assert torch.equal(live_parameters(measured @ random_values(4, 2).reshape(2, 2)), expected)


def test_rows_that_are_tiny_but_not_zero_are_alive(monkeypatch):
    monkeypatch.setattr("hessketch.eigenspaces.masks._ENTRIES", 4)
    columns = torch.zeros(9, 2, dtype=torch.float64)
    columns[3, 1], columns[8, 0] = 1e-300, -1.0
    assert live_parameters(columns).nonzero()[:, 0].tolist() == [3, 8]


def test_a_parameter_is_alive_if_any_block_says_so():
    first, second = torch.eye(5)[:, :2], torch.eye(5)[:, 3:4]
    assert live_parameters([first, second]).tolist() == [True, True, False, True, False]


def test_bad_sizes_and_layers_are_refused():
    flat = random_values(10)
    for k in (10, 11):
        with pytest.raises(InputError, match=f"mask of {k} of 10 parameters says nothing; allowed sizes: 1 to 9"):
            by_layer_masks(flat, [4, 6], [k])
    with pytest.raises(InputError, match="k is 0"):
        by_layer_masks(flat, [4, 6], [0])
    with pytest.raises(InputError, match="layers have 9 entries"):
        by_layer_masks(flat, [4, 5], [3])
    with pytest.raises(InputError, match="no layers"):
        layer_sizes({})
    with pytest.raises(InputError, match="size of layer 1 is 0"):
        layer_counts([3, 0], 2)
    with pytest.raises(InputError, match="layers have 9 entries"):
        energies_in_layers(flat.abs(), [4, 5])
    with pytest.raises(InputError, match="outside the 10 coordinates"):
        counts_in_layers(torch.tensor([3, 10]), [4, 6])


def test_values_and_columns_with_nan_are_refused_by_their_place(monkeypatch):
    monkeypatch.setattr("hessketch.eigenspaces.masks._ENTRIES", 4)
    flat = random_values(10)
    flat[7] = math.nan
    with pytest.raises(InputError, match=r"values\[7\] is nan"):
        by_layer_masks(flat, [4, 6], [3])
    columns = torch.zeros(5, 2)
    columns[2, 1] = math.nan
    with pytest.raises(InputError, match="row 2 of the columns holds NaN"):
        live_parameters(columns)


def test_columns_of_different_matrices_are_refused():
    with pytest.raises(InputError, match="blocks of 5 and 4 parameters"):
        live_parameters([torch.ones(5, 2), torch.ones(4, 2)])
    with pytest.raises(InputError, match="no columns"):
        live_parameters([])
    with pytest.raises(InputError, match="m >= 1"):
        live_parameters(torch.ones(5))
