"""Count-Sketch against its dense matrix, against values written down once, and what it refuses."""

import math

import numpy as np
import pytest
import torch
from hashed_vectors import BLOCK, random_vector, sketches
from hypothesis import given, settings
from hypothesis import strategies as st
from known_spectra import generator

from hessketch.errors import InputError
from hessketch.linalg.count_sketch import PLACEMENTS, CountSketch

# (dimension, rows, columns): one coordinate; one column; more columns than coordinates; a few; whole and partial blocks
# of shifts, short and long ones.
SIZES = [
    (1, 1, 1),
    (1, 3, 5),
    (7, 2, 1),
    (5, 3, 9),
    (50, 5, 7),
    (60, 1, 20),
    (61, 3, 20),
    (300, 1, 300),
    (4100, 2, 2000),
]
# sign * (bucket + 1) of the first and of the last six coordinates, of each of two rows
GOLDEN = {
    "hash": [
        ([725, 137, -860, -558, 231, 650], [-400, -812, 535, 233, -906, -325]),
        ([897, -178, -564, 144, 43, 262], [630, -911, -297, 877, 776, 995]),
    ],
    "shift": [
        ([526, 527, -528, -529, 530, 531], [-191, 192, -193, 194, -195, -196]),
        ([976, -977, -978, 979, 980, 981], [982, 983, 984, 985, -986, 987]),
    ],
}
sizes = pytest.mark.parametrize("size", SIZES, ids=str)


def dense(sketch):
    """S (rows * columns, p) float64, written from the bucket and the sign of every coordinate."""
    matrix = torch.zeros(sketch.rows, sketch.columns, sketch.dimension, dtype=torch.float64)
    for row in range(sketch.rows):
        buckets, signs = sketch.buckets_and_signs(row)
        matrix[row, buckets, torch.arange(sketch.dimension)] = signs.double()
    return matrix.view(-1, sketch.dimension)


@sketches
@sizes
def test_each_row_sends_a_coordinate_to_one_column_with_a_sign(placement, size):
    sketch = CountSketch(*size, 4, placement=placement)
    dimension, rows, columns = size
    for row in range(rows):
        buckets, signs = sketch.buckets_and_signs(row)
        assert buckets.shape == signs.shape == (dimension,)
        assert (buckets.dtype, signs.dtype) == (torch.int64, torch.float32)
        assert set(buckets.tolist()) <= set(range(columns))
        assert (signs.abs() == 1).all()


@sketches
@sizes
def test_the_table_is_the_dense_matrix_times_the_vector(placement, size):
    sketch, x = CountSketch(*size, 4, placement=placement), random_vector(size[0])
    table = sketch.apply(x)
    assert table.shape == (sketch.rows, sketch.columns)
    assert torch.allclose(table.view(-1), dense(sketch) @ x, rtol=0, atol=1e-12)


@sketches
@sizes
def test_the_mean_lift_is_the_transposed_matrix_over_the_rows(placement, size):
    sketch = CountSketch(*size, 4, placement=placement)
    table = random_vector(sketch.rows * sketch.columns, 1).view(sketch.rows, sketch.columns)
    before = table.clone()
    expected = dense(sketch).T @ table.view(-1) / sketch.rows
    assert torch.allclose(sketch.lift(table), expected, rtol=0, atol=1e-12)
    assert torch.equal(table, before)


@sketches
@pytest.mark.parametrize("rows", [1, 3, 5, 7])
@pytest.mark.parametrize("dimension, columns", [(1, 1), (5, 9), (61, 20), (2500, 1100)])
def test_the_median_lift_is_the_median_of_the_rows_estimates(placement, rows, dimension, columns):
    sketch = CountSketch(dimension, rows, columns, 4, placement=placement)
    table = random_vector(rows * columns, 1).view(rows, columns)
    by_row = torch.stack(
        [sign * table[j, bucket] for j in range(rows) for bucket, sign in [sketch.buckets_and_signs(j)]]
    )
    assert torch.equal(sketch.lift(table, "median"), by_row.median(0).values)


@sketches
def test_several_blocks_of_random_tables_and_the_mean_and_median_over_them(placement):
    """Above 2^20 coordinates the lift goes through the vector in parts."""
    dimension, rows, columns = 2**20 + 3 * BLOCK + 777, 3, 70_001
    sketch, x = CountSketch(dimension, rows, columns, 4, placement=placement), random_vector(2**20 + 3 * BLOCK + 777)
    table = sketch.apply(x)
    estimates = []
    for row in range(rows):
        buckets, signs = (part.numpy() for part in sketch.buckets_and_signs(row))
        assert np.allclose(table[row].numpy(), np.bincount(buckets, signs * x.numpy(), columns), rtol=0, atol=1e-11)
        estimates.append(torch.from_numpy(signs * table[row].numpy()[buckets]))
    assert torch.allclose(sketch.lift(table), torch.stack(estimates).mean(0), rtol=0, atol=1e-12)
    assert torch.equal(sketch.lift(table, "median"), torch.stack(estimates).median(0).values)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(PLACEMENTS),
    st.sampled_from([size for size in SIZES if size[0] < 400]),
    st.integers(0, 2**64 - 1),
    st.floats(-1e3, 1e3),
    st.floats(-1e3, 1e3),
)
def test_sketch_and_mean_lift_are_linear(placement, size, seed, a, b):
    sketch = CountSketch(*size, seed, placement=placement)
    x, y = random_vector(size[0], 1), random_vector(size[0], 2)
    unit = (abs(a) + abs(b) + 1) * (x.norm() + y.norm())
    together = sketch.apply(a * x + b * y)
    assert ((together - (a * sketch.apply(x) + b * sketch.apply(y))).abs() / unit).max() < 1e-12
    apart = a * sketch.lift(sketch.apply(x)) + b * sketch.lift(sketch.apply(y))
    assert ((sketch.lift(together) - apart).abs() / unit).max() < 1e-12


@pytest.mark.parametrize("dimension", [1, 2, 1023, 1024, 70_000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_shifts_of_one_row_as_long_as_the_vector_lose_nothing(dimension, dtype):
    sketch, x = CountSketch(dimension, 1, dimension, 3, placement="shift"), random_vector(dimension, 5, dtype)
    for by in ("mean", "median"):
        assert torch.equal(sketch.lift(sketch.apply(x), by), x)
    assert sketch.expected_error(x) == 0


def test_coordinates_of_a_shifted_block_never_collide():
    buckets, _ = CountSketch(250, 1, 100, 3, placement="shift").buckets_and_signs(0)
    assert [len(part.unique()) for part in buckets.split(100)] == [100, 100, 50]


def test_buckets_and_signs_are_those_written_down_here():
    """Parties with different versions of NumPy, of torch or of this code must not stop sharing S unnoticed."""
    for placement, golden in GOLDEN.items():
        sketch = CountSketch(BLOCK + 6, 2, 1000, 7, 3, placement=placement)
        for row, (first, last) in enumerate(golden):
            buckets, signs = sketch.buckets_and_signs(row)
            signed = (signs * (buckets + 1)).long().tolist()
            assert (signed[:6], signed[-6:]) == (first, last), f"{placement}, row {row}"


@sketches
@pytest.mark.parametrize("change", [{"seed": 8}, {"draw": 4}], ids=str)
def test_other_seeds_and_draws_have_other_hashes(placement, change):
    key = {"seed": 7, "draw": 3}
    sketch, same, other = (CountSketch(5000, 2, 40, **k, placement=placement) for k in (key, key, key | change))
    for row in range(2):
        buckets, signs = sketch.buckets_and_signs(row)
        assert all(torch.equal(a, b) for a, b in zip((buckets, signs), same.buckets_and_signs(row), strict=True))
        assert 0.45 < (other.buckets_and_signs(row)[1] == signs).double().mean() < 0.55
        assert (other.buckets_and_signs(row)[0] == buckets).double().mean() < 0.1


def test_a_row_does_not_depend_on_how_many_there_are():
    one, three = CountSketch(300, 1, 40, 7, 3), CountSketch(300, 3, 40, 7, 3)
    assert all(torch.equal(a, b) for a, b in zip(one.buckets_and_signs(0), three.buckets_and_signs(0), strict=True))


@sketches
@pytest.mark.parametrize("columns", [50, 2000])
def test_all_dtypes_see_the_same_hashes(placement, columns):
    """Small integers add up exactly in both."""
    sketch = CountSketch(5000, 3, columns, 7, placement=placement)
    x = torch.randint(-9, 10, (5000,), generator=generator())
    tables = {
        dtype: sketch.apply(x.to(dtype)) for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64)
    }
    assert {dtype: table.dtype for dtype, table in tables.items()} == {
        torch.float16: torch.float32,
        torch.bfloat16: torch.float32,
        torch.float32: torch.float32,
        torch.float64: torch.float64,
    }
    assert all(torch.equal(table.double(), tables[torch.float64]) for table in tables.values())
    assert sketch.lift(tables[torch.float64]).dtype == torch.float64
    single, double = sketch.lift(tables[torch.float32], "median"), sketch.lift(tables[torch.float64], "median")
    assert single.dtype == torch.float32 and torch.equal(single.double(), double)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@sketches
@pytest.mark.parametrize("dimension, columns", [(5000, 50), (5000, 2000), (2 * BLOCK + 5, 30_000)])
def test_a_gpu_sees_the_same_hashes(placement, dimension, columns):
    here = CountSketch(dimension, 3, columns, 7, 2, placement=placement)
    there = CountSketch(dimension, 3, columns, 7, 2, placement=placement, device="cuda")
    for row in range(3):
        pairs = zip(here.buckets_and_signs(row), there.buckets_and_signs(row), strict=True)
        assert all(torch.equal(a, b.cpu()) for a, b in pairs)
    x = torch.randint(-9, 10, (dimension,), generator=generator()).float()
    assert torch.equal(there.apply(x.cuda()).cpu(), here.apply(x))
    for by in ("mean", "median"):
        assert torch.allclose(there.lift(there.apply(x.cuda()), by).cpu(), here.lift(here.apply(x), by), atol=1e-5)


def test_no_global_generator_is_touched():
    before, numpy_before = torch.get_rng_state(), np.random.get_state()
    for placement in PLACEMENTS:
        sketch = CountSketch(300, 3, 40, 7, placement=placement)
        sketch.lift(sketch.apply(torch.ones(300)), "median")
    assert torch.equal(before, torch.get_rng_state())
    assert all(np.array_equal(a, b) for a, b in zip(numpy_before, np.random.get_state(), strict=True))


@sketches
@pytest.mark.parametrize("by", ["mean", "median"])
def test_nan_in_a_table_is_not_hidden(placement, by):
    sketch, x = CountSketch(40, 3, 10, 1, placement=placement), torch.ones(40)
    x[5] = math.nan
    assert sketch.lift(sketch.apply(x), by)[5].isnan()


@sketches
@pytest.mark.parametrize("dimension, columns", [(11_173_962, 500_000), (11_173_962, 1000)])
def test_the_tables_kept_are_at_most_a_tenth_of_an_index_a_coordinate(placement, dimension, columns):
    """12 bytes a row and coordinate (an int64 bucket and a float32 sign) is what the usual implementation keeps."""
    rows = 5
    sketch = CountSketch(dimension, rows, columns, 0, placement=placement)
    stored = sum(table.nbytes for row in sketch._rows for table in row)
    length = BLOCK if placement == "hash" else columns
    assert sketch.stored_bytes == stored == 8 * rows * (length + -(-dimension // length))
    assert stored <= 12 * rows * dimension / 10


@pytest.mark.parametrize("placement, dimension, columns", [("hash", 5, 9), ("shift", 5, 9), ("shift", 9, 5)])
def test_small_tables_are_counted_as_they_are(placement, dimension, columns):
    sketch = CountSketch(dimension, 2, columns, 0, placement=placement)
    assert sketch.stored_bytes == sum(table.nbytes for row in sketch._rows for table in row)
    assert sketch.stored_bytes == 2 * 8 * (5 + (1 if dimension == 5 else 2))


@pytest.mark.parametrize("wrong", ["dimension", "rows", "columns"])
@pytest.mark.parametrize("value", [0, -1, 2.0])
def test_sizes_below_1_are_refused(wrong, value):
    with pytest.raises(InputError, match=rf"{wrong} is .*integers from 1"):
        CountSketch(**{"dimension": 5, "rows": 1, "columns": 2, "seed": 0} | {wrong: value})


def test_what_else_is_refused_and_what_is_said():
    def said(function, *arguments, **options):
        with pytest.raises(InputError) as caught:
            function(*arguments, **options)
        return str(caught.value)

    assert said(CountSketch, 5, 1, 2, 0, placement="shfit") == (
        "placement 'shfit' is unknown; allowed: hash, shift; nearest valid name: shift"
    )
    assert said(CountSketch, 5, 1, 2**30 + 1, 0) == ("1073741825 columns given; allowed: at most 2^30; take more rows")
    assert said(CountSketch, 5, 1, 2, -3).startswith("key (-3, 0, 0, 0); allowed: a seed from 0 below 2^64")
    assert said(CountSketch, 5, 1, 2, 0, 2**32).startswith("key (0, 4294967296, 0, 0); allowed")
    sketch = CountSketch(5, 2, 3, 0)
    assert said(sketch.apply, torch.ones(6)) == ("torch.float32 of shape (6,) given; allowed: a float vector (5,)")
    assert said(sketch.apply, torch.ones(5, 1)).startswith("torch.float32 of shape (5, 1) given")
    assert said(sketch.apply, torch.ones(5, dtype=torch.int64)).startswith("torch.int64 of shape (5,) given")
    assert said(sketch.lift, torch.ones(3, 2)) == ("torch.float32 of shape (3, 2) given; allowed: a float table (2, 3)")
    assert said(sketch.lift, torch.ones(2, 3, dtype=torch.int32)).startswith("torch.int32 of shape (2, 3) given")
    assert said(sketch.lift, torch.ones(2, 3), "means") == (
        "lift 'means' is unknown; allowed: mean, median; nearest valid name: mean"
    )


@pytest.mark.parametrize("rows", [2, 4, 6])
def test_the_median_of_an_even_number_of_rows_is_refused(rows):
    with pytest.raises(InputError) as caught:
        CountSketch(5, rows, 3, 0).lift(torch.ones(rows, 3), "median")
    assert str(caught.value) == f"the median of {rows} rows is biased; allowed: an odd number of rows, or the mean"
