"""Counts of whole spectra and their sweeps against values worked out by hand from planted eigenvalues."""

import importlib.util
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic_over_parametrized import DATASET, LABELS, point, points, record, spectra_table, spectrum, study

from hessketch.errors import InputError
from hessketch.records import read_table, write_record, write_table
from hessketch.studies.over_parametrized import (
    COLUMNS,
    QUANTITIES,
    counts,
    ends,
    of_data,
    outlier_match,
    spectral_counts,
)
from hessketch.studies.over_parametrized_sweeps import axes_of, data_sweep, slopes, through, width_sweep

SCRIPT = Path(__file__).parents[3] / "workflow/scripts/tabulate_over_parametrized.py"


@pytest.fixture(scope="module")
def raw():
    return study()


@pytest.fixture(scope="module")
def counted(raw):
    return counts(raw["spectra"])


def test_a_spectrum_is_counted_by_its_parts():
    found = spectral_counts(np.array([-0.02, 10.0, 0.1, 8.0, 1e-3, -1e-4, 1e-15, 0.0, 0.05]), classes=2)
    assert {name: found[name] for name in ("near_zero", "negative", "negative_beyond", "zero", "outliers")} == {
        "near_zero": 4, "negative": 2, "negative_beyond": 1, "zero": 2, "outliers": 2,
    }  # fmt: skip
    assert found["near_zero_share"] == pytest.approx(4 / 9)
    assert found["negative_ratio"] == pytest.approx(0.002) and found["gap"] == pytest.approx(80.0)
    assert (found["top_eigenvalue"], found["bulk_edge"]) == (10.0, 0.1)
    assert found["bulk_median"] == pytest.approx(1e-3) and found["trace"] == pytest.approx(18.1309)


def test_outliers_are_looked_for_among_three_times_the_classes_and_one_more():
    values = np.array([9.0, 8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 1e-3])
    assert spectral_counts(values, classes=2)["outliers"] == 6  # 4 to 3, the last candidates
    assert spectral_counts(values, classes=3)["outliers"] == 7  # 3 to 0.001 is now among them


def test_what_has_too_little_rank_ends_its_outliers_at_its_zeros():
    found = spectral_counts(np.r_[5.0, 4.0, 1e-17, -1e-17, np.zeros(20)], classes=3)
    assert (found["outliers"], found["zero"], found["negative"]) == (2, 22, 0)
    assert found["gap"] == pytest.approx(4.0 / 5e-3)


def test_what_is_negative_beyond_rounding_follows_from_the_size_of_the_matrix():
    """p eps max: 8.9e-14 of 100 eigenvalues up to 4, 8.9e-13 of 1,000."""
    values = np.r_[4.0, -1.5e-13, np.zeros(98)]
    assert [spectral_counts(values, 2)[name] for name in ("negative", "zero")] == [1, 98]
    longer = spectral_counts(np.r_[values, np.zeros(900)], 2)
    assert [longer[name] for name in ("negative", "zero")] == [0, 999]


def test_a_matrix_of_zeros_and_one_that_is_negative_have_no_outliers():
    zeros = spectral_counts(np.zeros(5), classes=2)
    assert (zeros["outliers"], zeros["near_zero"], zeros["zero"]) == (0, 5, 5) and np.isnan(zeros["negative_ratio"])
    negative = spectral_counts(np.array([-1.0, -2.0]), classes=2)
    assert (negative["outliers"], negative["negative"], negative["bulk_edge"]) == (0, 2, -1.0)
    assert spectral_counts(np.array([3.0]), classes=2)["bulk_edge"] == 3.0


@pytest.mark.parametrize("values", [[], [1.0, np.nan]])
def test_no_eigenvalues_and_such_that_are_no_numbers_are_refused(values):
    with pytest.raises(InputError, match=f"{len(values)} eigenvalues, some not finite, or none"):
        spectral_counts(np.array(values), classes=2)


@given(st.lists(st.floats(-50, 50), min_size=2, max_size=40), st.integers(2, 5), st.floats(0.1, 100), st.randoms())
@settings(max_examples=25)
def test_counts_know_neither_scale_nor_order(values, classes, scale, random):
    shuffled = random.sample(values, len(values))
    found, other = (spectral_counts(np.array(v), classes) for v in (values, [scale * v for v in shuffled]))
    # On a threshold rounding decides: counts differ there by less than the eigenvalues that lie on it.
    sizes = np.abs(values) / max(np.abs(values).max(), 1e-300)
    if not np.isclose(sizes, 1e-3).any():
        assert [found[n] for n in ("near_zero", "negative_beyond")] == [
            other[n] for n in ("near_zero", "negative_beyond")
        ]
    assert other["top_eigenvalue"] == pytest.approx(scale * found["top_eigenvalue"])
    assert other["trace"] == pytest.approx(scale * found["trace"], abs=1e-9 * scale)
    assert 0 <= found["outliers"] <= min(3 * classes, len(values) - 1)


def test_counts_have_a_row_a_checkpoint_and_operator_with_its_stage(counted):
    assert len(counted) == len(points()) * 3
    own = counted[(counted["width"] == 0.5) & (counted["dataset"] == DATASET) & (counted["seed"] == 0)]
    hessian = own[own["operator"] == "hessian"].set_index("time")
    assert hessian["stage"].tolist() == ["initial", "between", "trained"]
    assert hessian["outliers"].tolist() == [4, 4, 4] and hessian["top_eigenvalue"].tolist() == [4.0, 20.0, 20.0]
    assert hessian["negative"].tolist() == [98, 20, 20]
    bulk = 0.2 / np.arange(1.0, 197)
    bulk[98:] *= 1e-3
    assert hessian.loc[100, "bulk_90"] == pytest.approx(np.quantile(bulk, 0.9))
    assert hessian.loc[100, "near_zero"] == (bulk < 0.02).sum()


def test_zeros_that_must_be_follow_from_examples_classes_and_loss():
    rows = [point(width=1.0), point(width=1.0, loss="mean_squared_error"), point(width=0.25)]
    table = counts(spectra_table(rows))
    assert table["least_zeros"].isna().tolist() == [True, False, False] * 3
    known = table.dropna(subset=["least_zeros"])["least_zeros"].tolist()
    assert known == [400 - 40 * 3, 400 - 40 * 4, 400 - 40 * 4, 400 - 40 * 4, 0, 0]


def test_a_spectrum_that_is_not_whole_is_refused(raw):
    with pytest.raises(InputError, match=r"hessian of clusters-k4-d10-s3 at step 0: 99 eigenvalues of 100"):
        counts(raw["spectra"].iloc[1:])
    twice = raw["spectra"].assign(rank=raw["spectra"]["rank"].replace(2, 1))
    with pytest.raises(InputError, match="each of them once"):
        counts(twice)


def test_a_table_without_rows_has_counts_without_rows(raw):
    empty = counts(raw["spectra"].iloc[:0])
    assert empty.empty and {"operator", "outliers", "least_zeros", "stage", "p"} <= set(empty)
    assert all(derive(empty).empty for derive in (width_sweep, data_sweep, slopes))
    assert {"dataset", "network", "norm", "width", "mean"} <= set(width_sweep(empty)) & set(data_sweep(empty))


def test_ends_are_the_first_and_the_last_checkpoint_and_one_alone_is_trained(raw):
    assert sorted(ends(raw["spectra"])["time"].unique()) == [0, 100]
    assert set(ends(spectra_table([point(0)]))["stage"]) == {"trained"}


def test_outliers_of_the_hessian_stand_beside_the_others_by_rank(raw):
    table = outlier_match(raw["spectra"], raw["alignments"])
    assert len(table) == sum(2 * row["classes"] for row in points())
    row = table[(table["time"] == 100) & (table["width"] == 0.25) & (table["seed"] == 0) & (table["rank"] == 2)].iloc[0]
    values = {name: spectrum(point(width=0.25), name)[1] for name in ("hessian", "ggn", "output_gradients")}
    assert row[list(values)].to_dict() == pytest.approx(values)
    assert row["relative_difference"] == pytest.approx(1 / 0.98 - 1)
    assert row[["overlap_ggn", "overlap_output_gradients", "chance"]].tolist() == pytest.approx([0.98, 0.88, 0.02])
    assert table.loc[table["rank"] > table["classes"] + 1, "overlap_ggn"].isna().all()


def test_without_an_operator_its_columns_are_not_known(raw):
    table = outlier_match(spectra_table([point()], ("hessian",)), raw["alignments"].iloc[:0])
    assert table["hessian"].notna().all() and table[["ggn", "overlap_ggn", "chance"]].isna().all().all()


def test_the_sweep_over_width_has_means_and_standard_errors_over_seeds(counted):
    sweep = width_sweep(counted)
    assert set(sweep["dataset"]) == {DATASET} and set(sweep["quantity"]) == set(QUANTITIES)
    largest = sweep.query("operator == 'hessian' and stage == 'trained' and quantity == 'top_eigenvalue'")
    assert largest["p"].tolist() == [100, 200, 400] and set(largest["seeds"]) == {2}
    assert largest["mean"].tolist() == pytest.approx([21.0] * 3)
    assert largest["standard_error"].tolist() == pytest.approx([1.0] * 3)  # of 20 and 22


def test_the_sweeps_over_data_are_along_classes_and_along_separation(counted):
    sweep = data_sweep(counted).query("operator == 'ggn' and stage == 'trained' and quantity == 'outliers'")
    along = {axis: rows.sort_values("value") for axis, rows in sweep.groupby("axis")}
    assert along["classes"]["value"].tolist() == along["classes"]["mean"].tolist() == [2, 4, 8]
    assert set(along["classes"]["fixed"]) == {"clusters-d10-s3"}
    assert along["separation"]["value"].tolist() == [1.5, 3.0, 6.0]
    assert set(along["separation"]["mean"]) == {4.0} and set(along["separation"]["fixed"]) == {"clusters-k4-d10"}


@pytest.mark.parametrize(
    ("dataset", "axes"),
    [
        ("clusters-k10-d50-s1.5", {"classes": ("clusters-d50-s1.5", 10), "separation": ("clusters-k10-d50", 1.5)}),
        ("mnist-classes3+5-14x14", {"classes": ("mnist-14x14", 2)}),
        ("cifar10-grey16x16", {"classes": ("cifar10-grey16x16", 10)}),
        ("digits", {"classes": ("digits", 10)}),
        ("mine", {}),
    ],
)
def test_a_data_set_has_its_place_on_axes_of_data(dataset, axes):
    assert axes_of(dataset) == axes


def test_one_network_and_one_data_set_are_no_sweep():
    table = counts(spectra_table(points(chosen=[{}])))
    assert width_sweep(table).empty and data_sweep(table).empty and slopes(table).empty


def test_slopes_are_exponents_of_power_laws_with_their_standard_errors(counted):
    table = slopes(counted).query("operator == 'hessian' and stage == 'trained'").set_index(["axis", "quantity"])
    assert table.loc[("parameters", "negative"), "exponent"] == pytest.approx(1.0)  # a tenth of p
    assert table.loc[("classes", "outliers"), ["exponent", "standard_error"]].tolist() == pytest.approx([1.0, 0.0])
    assert table.loc[("parameters", "outliers"), ["exponent", "standard_error"]].tolist() == [0.0, 0.0]
    assert table.loc[("classes", "outliers"), "spearman"] == pytest.approx(1.0)
    top = table.loc[("parameters", "top_eigenvalue")]
    logs = np.log([20.0, 22.0])
    spread = 2 * 3 * np.sum((logs - logs.mean()) ** 2) / 2 / 4  # residual variance of 6 runs and 2 coefficients
    places = np.log([100, 200, 400])
    assert top["standard_error"] == pytest.approx(np.sqrt(spread / (2 * np.sum((places - places.mean()) ** 2))))
    assert top["exponent"] == pytest.approx(0.0, abs=1e-12) and top["runs"] == 6


def test_a_power_law_leaves_out_zeros_and_needs_two_places():
    table = counts(spectra_table(points((0,), (100,), [{"width": 0.25}, {"width": 1.0}])))
    ggn = slopes(table).query("operator == 'ggn'").set_index("quantity")
    assert ggn.loc["negative", "runs"] == 0 and np.isnan(ggn.loc["negative", "exponent"])
    near = ggn.loc["near_zero"]
    numbers = table.loc[table["operator"] == "ggn", "near_zero"].to_numpy()
    assert near["exponent"] == pytest.approx(np.log(numbers[1] / numbers[0]) / np.log(4))
    assert near["runs"] == 2 and np.isnan(near["standard_error"])


def test_rows_of_a_data_set_are_at_its_base_setting(counted):
    other = counted.assign(trainer="sgd-full")[counted["width"] == 0.25]
    rows = of_data(pd.concat([counted, other]), DATASET)
    assert set(rows["trainer"]) == {"sgd-b5"} and sorted(set(rows["network"])) == sorted(LABELS)
    assert set(of_data(counted, DATASET, LABELS[0])["p"]) == {100}
    with pytest.raises(InputError, match=r"mlp-none-w0\.25"):
        of_data(counted, DATASET, "mlp-none-w9")


def test_sweeps_through_a_data_set_are_those_on_its_axes(counted):
    sweep = data_sweep(counted)
    assert set(through(sweep, DATASET, LABELS[1])["axis"]) == {"classes", "separation"}
    assert set(through(sweep, "clusters-k8-d10-s3", LABELS[1])["axis"]) == {"classes"}
    assert set(through(counted, "clusters-k8-d10-s3", LABELS[1])["classes"]) == {8}
    with pytest.raises(InputError, match="clusters-k5-d9-s1 has no neighbour along an axis of data"):
        through(sweep, "clusters-k5-d9-s1", LABELS[1])


def test_the_script_writes_every_table_from_those_of_the_jobs(tmp_path):
    chosen = [{"width": 0.25}, {"width": 0.5}, {"width": 0.5, "classes": 2}]
    jobs = {"0": chosen[:1], "1": chosen[1:]}
    for job, own in jobs.items():
        for name, table in study(own, steps=(0, 10, 100)).items():
            write_table(table, tmp_path / f"{job}/{name}.parquet")
        write_record(record(**own[0]), tmp_path / f"{job}/record.json")
    arguments = SimpleNamespace(
        **{name: [tmp_path / f"{job}/{name}.parquet" for job in jobs] for name in COLUMNS},
        records=[tmp_path / f"{job}/record.json" for job in jobs],
        output=tmp_path / "tables",
    )
    spec = importlib.util.spec_from_file_location("tabulate_over_parametrized", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    script.tabulate(arguments, SimpleNamespace(say=lambda line: None))
    written = {path.stem: read_table(path) for path in (tmp_path / "tables").glob("*.parquet")}
    derived = {"runs", "counts", "outlier_match", "width_sweep", "data_sweep", "slopes"}
    assert set(written) == {*COLUMNS, *derived} and all(len(table) for table in written.values())
    whole = study(chosen)
    pd.testing.assert_frame_equal(written["counts"], counts(whole["spectra"]), check_dtype=False)
    assert set(written["spectra"]["time"]) == {0, 100} and len(written["runs"]) == 2
