"""Sums and pairs of the fast method on spectra that are known, with multiple eigenvalues and without memory."""

import dataclasses

import numpy as np
import pytest
import torch
from fast_spectra import MEMORIES, PRECISIONS, SEEDS, SHORT, VALUES, exact_sums, spectrum, sums_of
from known_spectra import Counted, generator, integral, rotated

from hessketch.linalg.fast_spectrum import FastSettings, fast_spectrum
from hessketch.linalg.lanczos import Ritz


@MEMORIES
@pytest.mark.parametrize("start_vectors", [1, 2])
def test_sums_deviate_as_their_standard_errors_say(start_vectors, memory):
    exact = exact_sums(VALUES)
    results = [sums_of(spectrum(VALUES, seed, memory, start_vectors=start_vectors)) for seed in range(SEEDS)]
    errors = np.array([values - exact for values, _ in results])
    stated = np.array([error for _, error in results])
    assert (np.abs(errors) <= 4 * stated).mean(axis=0).min() >= 1 - 1 / SEEDS
    ratio = errors.std(axis=0, ddof=1) / np.sqrt((stated**2).mean(axis=0))
    assert ((ratio > 1 / 1.5) & (ratio < 1.5)).all(), ratio
    assert (np.abs(errors.mean(axis=0)) < 4 * errors.std(axis=0) / np.sqrt(SEEDS)).all(), errors.mean(axis=0)


@MEMORIES
def test_sums_are_right_where_the_bulk_is_narrow_beside_the_leading_values(memory):
    # All of the bulk is nearer together than copies of the largest eigenvalue may be.
    values = np.r_[np.linspace(0, 0.02, 290), np.geomspace(10, 100, 10)]
    for seed in range(8):
        found = spectrum(values, seed, memory, lanczos_steps=48)
        got, error = sums_of(found)
        assert (np.abs(got - exact_sums(values)) <= 4 * error).all()
        assert (error[[0, 2]] > 0.01).all()
        bulk = found.parts[1].ritz[0].values
        assert len(bulk[bulk > 0]) > 8 and bulk[-1] < 0.021


@MEMORIES
def test_where_the_leading_values_are_the_bulks_own_edges_sums_are_right_as_well(memory):
    values = np.linspace(-1, 1.5, 200)
    for seed in range(6):
        got, error = sums_of(spectrum(values, seed, memory, top=5))
        assert (np.abs(got - exact_sums(values)) <= 4 * error).all()


def test_a_further_value_beside_the_least_of_the_leading_ones_is_not_counted_twice():
    values = np.r_[np.linspace(0, 1e-3, 190), np.geomspace(2, 100, 10), 1.9995]
    errors = []
    for seed in range(SEEDS):
        found = spectrum(values, seed)
        assert found.pairs.values[-2:] == pytest.approx([2, 1.9995], abs=1e-6)
        assert found.parts[1].bounds.upper < 0.1
        errors.append(found.sums.trace.value - values.sum())
    assert abs(np.mean(errors)) < 4 * np.std(errors) / np.sqrt(SEEDS)


@pytest.mark.parametrize("multiplicity", [2, 20])
@pytest.mark.parametrize("start_vectors", [2, 3])
def test_sums_and_raw_density_are_right_where_not_all_copies_of_an_eigenvalue_were_found(multiplicity, start_vectors):
    values = np.r_[np.linspace(-1, 1, 140), 30.0, *[10.0] * multiplicity]
    errors, shares = [], []
    for seed in range(SEEDS):
        found = spectrum(values, seed, lanczos_steps=8, top=2, start_vectors=start_vectors)
        assert (np.abs(found.pairs.values[1:] - 10) < 0.1).all()
        errors.append((sums_of(found)[0] - exact_sums(values))[:2])  # 8 steps do not resolve the third's corner
        raw = found.parts[0].ritz
        shares.append(np.mean([pairs.weights[np.abs(pairs.values - 10) < 1].sum() for pairs in raw]))
        assert found.parts[1].bounds.upper < 9
    assert (np.abs(np.mean(errors, axis=0)) < 4 * np.std(errors, axis=0) / np.sqrt(SEEDS)).all(), np.mean(
        errors, axis=0
    )
    exact = multiplicity / len(values)
    assert abs(np.mean(shares) - exact) < 4 * np.std(shares) / np.sqrt(SEEDS) + 1e-9


@MEMORIES
@pytest.mark.parametrize("start_vectors", [1, 2])
def test_where_eigenvalues_are_multiple_throughout_nothing_is_known_exactly_and_the_errors_say_so(
    start_vectors, memory
):
    values = np.repeat(np.arange(-5.0, 7), 10)
    for seed in range(8):
        found = spectrum(values, seed, memory, start_vectors=start_vectors, lanczos_steps=12)
        got, error = sums_of(found)
        assert (error > 1).all()
        assert (np.abs(got - exact_sums(values)) <= 5 * error).all()


@MEMORIES
@pytest.mark.parametrize("values", [np.arange(20.0), np.repeat([1.0, 5, -2], 7)])
def test_with_as_many_steps_as_dimensions_all_is_exact_unless_there_is_no_memory(values, memory):
    told = []
    operator = Counted(rotated(values))
    found = fast_spectrum(operator, FastSettings(), generator(), lambda *numbers: told.append(numbers), memory=memory)
    got, error = sums_of(found)
    assert told[-1] == (found.products, found.products) == (operator.products, operator.products)
    if memory is None:
        assert got == pytest.approx(exact_sums(values), rel=1e-12)
        assert error.tolist() == [0, 0, 0]
        assert found.products == len(values)
        (raw,), (deflated,) = (part.ritz for part in found.parts)
        assert raw.values == pytest.approx(np.sort(values), abs=1e-12)
        assert raw.weights == pytest.approx(np.full(len(values), 1 / len(values)))
        rest = np.sort(np.abs(values))[:-10]
        assert np.sort(np.abs(deflated.values)) == pytest.approx(np.sort(np.r_[rest, np.zeros(10)]), abs=1e-12)
        assert deflated.weights.sum() == pytest.approx(1)
    else:
        assert (np.abs(got - exact_sums(values)) <= 4 * error + 1e-4).all()
    assert all(integral(part.density) == pytest.approx(1, abs=1e-6) for part in found.parts)


@PRECISIONS
@pytest.mark.parametrize("seed", range(4))
def test_a_leading_eigenvalue_is_found_as_often_as_it_occurs(seed, dtype):
    values = np.r_[np.linspace(-1, 1, 197), 10.0, 10, 10]
    found = fast_spectrum(rotated(values, dtype=dtype), FastSettings(top=3), generator(seed))
    assert np.count_nonzero(np.abs(found.pairs.values) > 5) == 3
    assert found.pairs.values[:3] == pytest.approx([10, 10, 10], rel=1e-5)
    v = found.pairs.vectors.double()
    assert (v.T @ v - torch.eye(v.shape[1])).abs().max().item() < 20 * torch.finfo(dtype).eps
    assert found.parts[1].bounds.upper < 2
    got, error = sums_of(found)
    assert (np.abs(got - exact_sums(values)) <= 4 * error + 1e-3).all()


@pytest.mark.parametrize("start_vectors", [2, 3])
def test_each_start_vector_adds_a_copy_that_those_before_could_not_see(start_vectors):
    values = np.r_[np.linspace(-1, 1, 140), 20.0, *[10.0] * start_vectors]
    for seed in range(3):
        # Too few steps for rounding to bring the copies into the first vector's run.
        found = spectrum(values, seed, lanczos_steps=8, top=2, start_vectors=start_vectors)
        assert found.pairs.values == pytest.approx([20, *[10] * start_vectors], rel=1e-4)
        got, error = sums_of(found)
        assert (np.abs(got - exact_sums(values)) <= 4 * error).all()
        assert found.products <= 8 * start_vectors + 6


@PRECISIONS
@MEMORIES
@pytest.mark.parametrize("value", [0.0, 3.0])
@pytest.mark.parametrize("size", [1, 7, 30, 60, 200])
def test_a_multiple_of_the_identity_has_that_value_alone(size, value, memory, dtype):
    told = []
    matrix = value * torch.eye(size, dtype=dtype)
    found = fast_spectrum(matrix, SHORT, generator(), lambda *numbers: told.append(numbers), memory=memory)
    got, _ = sums_of(found)
    assert got == pytest.approx([size * value, size * value**2, size * value], rel=1e-6)
    assert found.pairs.values == pytest.approx(np.full(len(found.pairs.values), value), rel=1e-6)
    assert told[-1] == (found.products, found.products)
    assert found.unconverged == (0 if memory is None else min(10, size) - 1)
    for part in found.parts:
        assert integral(part.density) == pytest.approx(1, abs=1e-6)
        for pairs in part.ritz:
            assert pairs.weights.sum() == pytest.approx(1)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_when_copies_fill_the_whole_space_all_is_known_and_further_start_vectors_are_not_run(value):
    told = []
    matrix = Counted(value * torch.eye(40, dtype=torch.float64))
    settings = FastSettings(lanczos_steps=10, start_vectors=6)
    found = fast_spectrum(matrix, settings, generator(), lambda *numbers: told.append(numbers))
    assert found.products == matrix.products == 40
    assert len(found.pairs.values) == 40
    got, error = sums_of(found)
    assert got == pytest.approx([40 * value] * 3)
    assert error.tolist() == [0, 0, 0]
    assert told[-1] == (40, 40)


@PRECISIONS
@MEMORIES
@pytest.mark.parametrize("steps", [15, 48])
def test_a_rank_of_five_in_twenty_five_dimensions(steps, memory, dtype):
    values = np.r_[np.zeros(20), np.arange(1.0, 6)]
    for seed in range(4):
        found = fast_spectrum(
            rotated(values, dtype=dtype), FastSettings(lanczos_steps=steps), generator(seed), memory=memory
        )
        assert found.pairs.values[:5] == pytest.approx([5, 4, 3, 2, 1], rel=1e-5)
        got, error = sums_of(found)
        assert (np.abs(got - exact_sums(values)) <= 4 * error + 1e-4).all()
        if memory is None:
            assert len(found.pairs.values) == 10
            assert (found.unconverged, got[0]) == (0, pytest.approx(15, rel=1e-5))
        assert all(integral(part.density) == pytest.approx(1, abs=1e-6) for part in found.parts)


def test_weights_beyond_what_one_eigenvalue_can_have_stay_in_the_density():
    values = np.r_[np.full(150, 4.0), np.linspace(-1, 1, 50)]
    found = spectrum(values, top=1, start_vectors=1)
    raw = found.parts[0].ritz[0]
    assert isinstance(raw, Ritz)
    assert raw.weights[raw.values > 3].sum() == pytest.approx(0.75, abs=0.12)
    got, error = sums_of(found)
    assert (np.abs(got - exact_sums(values)) <= 4 * error).all()


def test_pairs_of_several_start_vectors_are_orthogonal():
    values = np.repeat(np.arange(-4.0, 6), 8)
    for seed in range(4):
        v = fast_spectrum(rotated(values), dataclasses.replace(SHORT, start_vectors=3), generator(seed)).pairs.vectors
        assert v.shape[1] > 15
        assert (v.T @ v - torch.eye(v.shape[1])).abs().max().item() < 1e-12
