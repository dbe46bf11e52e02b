"""Derived tables of SGD's dynamics against values worked out by hand from synthetic measurements."""

import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr
from synthetic_sgd_dynamics import (
    CELL,
    STEPS,
    bound_rows,
    bounds_table,
    change,
    eigenvalues_table,
    point,
    points,
    record,
    settings,
    study,
)

from hessketch.errors import InputError
from hessketch.records import joined, read_table, write_record, write_table
from hessketch.studies.raw_tables import read_raw, runs_table
from hessketch.studies.sgd_dynamics import (
    CORRELATED,
    TABLES,
    base_point,
    bound_correlations,
    chosen_bounds,
    courses,
    departure,
    landmarks,
    noisy_error,
    of_network,
    rank_correlation,
    sweeps,
)
from hessketch.studies.sgd_dynamics_coverage import coverage, with_checks
from hessketch.studies.spectra import networks

SCRIPT = Path(__file__).parents[3] / "workflow/scripts/tabulate_sgd_dynamics.py"


def test_a_run_has_its_batch_size_and_no_results_where_it_diverged():
    records = [record(batch=5), record(batch=None), record("diverged", batch=50), record(batch=500)]
    runs = runs_table([*records, {**record(), "identity": {**record()["identity"], "trainer": "sgd"}}])
    assert runs["batch_size"].tolist() == [5, 100, 50, 100, 32]
    assert runs["test_accuracy"].isna().tolist() == [False, False, True, False, False]
    assert runs.loc[0, ["dataset", "n", "p", "train_loss"]].tolist() == ["digits-8x8", 100, 1000, 1.0]


def test_the_base_point_is_where_the_sweeps_cross_in_whatever_order_the_rows_are():
    bounds = bounds_table()
    expected = {"label_noise": 0.0, "trainer": "sgd-b5", "width": 0.5, "examples_per_class": 10, "network": "mlp"}
    for table in (bounds, bounds.iloc[::-1], bounds.sample(frac=1, random_state=3)):
        assert {key: base_point(table)[key] for key in expected} == expected


def test_of_equal_settings_the_first_in_the_table_is_the_base():
    grid = [{"noise": noise, "batch": batch} for noise in (0.15, 0.0) for batch in (50, 5)]
    base = base_point(bounds_table(grid))
    assert (base["label_noise"], base["trainer"]) == (0.15, "sgd-b50")


def test_sweeps_hold_all_but_their_axis_at_the_base_point():
    along = sweeps(chosen_bounds(bounds_table()))
    assert {axis: sorted(rows[column].unique()) for (axis, rows), column in zip(
        along.items(), ("label_noise", "p", "batch_size", "n"), strict=True
    )} == {
        "label_noise": [0.0, 0.15, 0.5], "width": [500, 1000, 2000],
        "batch_size": [5, 50, 100], "training_size": [100, 200, 400],
    }  # fmt: skip
    assert {axis: len(rows) for axis, rows in along.items()} == dict.fromkeys(along, 6)


def test_an_axis_with_one_value_is_no_sweep_and_every_example_is_a_size():
    assert list(sweeps(bounds_table([{"noise": noise} for noise in (0.0, 0.5)]))) == ["label_noise"]
    sizes = sweeps(bounds_table([{"size": size} for size in (None, 10)]))
    assert list(sizes) == ["training_size"] and len(sizes["training_size"]) == 8


def test_a_setting_with_two_learning_rates_is_refused_and_so_are_two_data_sets():
    bounds = bounds_table()
    with pytest.raises(InputError, match=r"learning rates \[0\.1, 0\.2\]; allowed: one a setting"):
        sweeps(pd.concat([bounds, bounds.assign(learning_rate=0.2)]))
    by_batch = bounds.assign(learning_rate=np.where(bounds["batch_size"] == 50, 0.3, 0.1))
    assert len(sweeps(by_batch)) == 4
    with pytest.raises(InputError, match="data sets digits-8x8, mnist; allowed: one"):
        base_point(pd.concat([bounds, bounds.assign(dataset="mnist")]))
    with pytest.raises(InputError, match="none"):
        base_point(bounds.iloc[:0])


def test_what_differs_from_the_base_point_is_named():
    one = [{}, {"batch": 50}, {"width": 1.0}, {"size": 20}, {"noise": 0.5}, {"batch": 50, "size": 20}]
    rows = pd.DataFrame([point(**setting) for setting in [*settings(), *one]])
    words = ["nothing", "batch size", "network", "training-set size", "nothing", "batch size and training-set size"]
    assert departure(rows).iloc[-6:].tolist() == words


def test_rows_of_a_network_are_of_its_base_size_and_named_by_its_label():
    table = study()["eigenvalues"]
    other = eigenvalues_table([point(size=40)])
    mixed = pd.concat([other, table])
    assert networks(table) == [CELL, (CELL[0], "mlp-none-w0.25"), (CELL[0], "mlp-none-w1")]
    rows = of_network(mixed, *CELL)
    assert len(rows) == (table["width"] == 0.5).sum() and set(rows["n"]) == {100}
    with pytest.raises(InputError, match=r"mlp-none-w0\.25"):
        of_network(table, CELL[0], "vgg11-batch-w1")


def test_the_terms_of_the_chosen_bound_make_up_its_right_hand_side():
    rows = chosen_bounds(bounds_table())
    assert set(rows["sigma"]) == {1.0} and len(rows) == 2 * len(settings())
    total = rows["curvature_term"] + rows["distance_term"] + rows["log_term"]
    assert total.to_numpy() == pytest.approx(rows["right_hand_side"].to_numpy())
    assert rows["gap"].to_numpy() == pytest.approx((rows["test_error_noisy"] - 0.1).to_numpy())
    right = rows["label_noise"] == 0
    assert rows.loc[right, "posterior_gap"].to_numpy() == pytest.approx(0.05)
    assert (rows["vacuous"] == (rows["bound"] >= 0.9)).all()  # of ten classes


def test_runs_are_compared_under_the_least_prior_at_which_curvature_counts_in_all():
    rows = pd.DataFrame([point(seed=seed) for seed in (0, 0, 0, 1, 1, 1)]).assign(
        sigma=[0.5, 1.5, 3.0] * 2, chosen=[True, False, False, False, False, True], active=[0, 2, 5, 1, 3, 9],
        right_hand_side=[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], bound=0.5, test_error=0.2, train_error=0.1,
        posterior_test_error=0.3, posterior_train_error=0.2, effective_curvature=0.0, distance=1.0, log_term=0.0,
    )  # fmt: skip
    compared = chosen_bounds(rows)
    assert compared["sigma"].tolist() == [0.5, 3.0] and set(compared["one_prior"]) == {1.5}
    assert compared["right_hand_side_at_one_prior"].tolist() == [2.0, 5.0]
    nowhere = chosen_bounds(rows.assign(active=0))
    assert set(nowhere["one_prior"]) == {3.0} and nowhere["right_hand_side_at_one_prior"].tolist() == [3.0, 6.0]


def test_the_error_on_noisy_labels_follows_from_that_on_right_ones():
    """Of 100,000 simulated labels of four classes, a third of them wrong, and predictions that err in a fifth."""
    generator, n, classes, noise = np.random.default_rng(0), 100_000, 4, 1 / 3
    label = generator.integers(classes, size=n)
    predicted = np.where(generator.random(n) < 0.2, (label + generator.integers(1, classes, n)) % classes, label)
    given = np.where(generator.random(n) < noise, (label + generator.integers(1, classes, n)) % classes, label)
    expected = noisy_error((predicted != label).mean(), noise, classes)
    assert abs((predicted != given).mean() - expected) < 4 * np.sqrt(expected * (1 - expected) / n)
    assert noisy_error(0.2, 0.0, 4) == 0.2 and noisy_error(0.0, noise, 4) == noise


def correlation(table, axis, predicted="bound", measured="test_error"):
    columns = {"axis": axis, "predicted": predicted, "measured": measured}
    return table[np.logical_and.reduce([table[key] == value for key, value in columns.items()])].iloc[0]


def test_the_bound_correlates_with_the_test_error_over_noise_and_over_nothing_else():
    table = bound_correlations(bounds_table())
    over_noise = correlation(table, "label_noise")
    assert over_noise["spearman_of_means"] == pytest.approx(1.0) and over_noise["settings"] == 3
    # Seeds of a setting share their bound, and their errors differ: ranks (1.5, 1.5, ...) against (1, 2, ...).
    assert over_noise["runs"] == 6
    assert over_noise["spearman"] == pytest.approx(spearmanr([0, 0, 1, 1, 2, 2], [0, 1, 2, 3, 4, 5]).statistic)
    assert np.isnan(correlation(table, "batch_size")["spearman"])
    assert correlation(table, "all")["runs"] == 2 * len(settings())
    assert set(table["axis"]) == {"label_noise", "width", "batch_size", "training_size", "all"}
    assert len(table) == 5 * len(CORRELATED)


def test_correlations_of_no_bounds_are_an_empty_table_with_columns():
    nothing = bound_correlations(pd.DataFrame([point()]).iloc[:0])  # as a job writes it where all runs diverged
    assert nothing.empty and "spearman" in nothing


@given(st.lists(st.tuples(st.integers(-5, 5), st.integers(-5, 5)), min_size=3, max_size=20))
def test_rank_correlation_is_scipys_with_ties(pairs):
    a, b = (pd.Series(values, dtype=float) for values in zip(*pairs, strict=True))
    value, count = rank_correlation(a, b)
    assert count == len(pairs)
    if a.nunique() > 1 and b.nunique() > 1:
        assert value == pytest.approx(spearmanr(a, b).statistic, abs=1e-12)
    else:
        assert np.isnan(value)


def test_rank_correlation_leaves_out_what_is_unknown():
    value, count = rank_correlation(pd.Series([1.0, 2.0, np.nan, 3.0]), pd.Series([3.0, 2.0, 9.0, 1.0]))
    assert (value, count) == (pytest.approx(-1.0), 3)
    assert np.isnan(rank_correlation(pd.Series([1.0, 2.0]), pd.Series([1.0, 2.0]))[0])


def test_landmarks_are_first_middle_and_last():
    assert landmarks([1000, 0, 10, 0, 1, 100]) == [0, 10, 1000]
    assert landmarks([5]) == [5] and landmarks([0, 7]) == [0, 7]
    with pytest.raises(InputError, match="no steps"):
        landmarks([])


@pytest.mark.parametrize(
    ("values", "course"),
    [
        ([1, 2, 1], "rises then falls"),
        ([1, 2, 1.95], "rises"),
        ([2, 2.1, 1], "falls"),
        ([1, 1.05, 1.04], "neither"),
        ([-1, 1, -1], "rises then falls"),
        ([np.nan, 1, 2], "rises"),
    ],
)
def test_the_course_of_the_largest_eigenvalue_is_named(values, course):
    rows = [{**point(step), "operator": "hessian", "rank": 1, "eigenvalue": v} for step, v in enumerate(values)]
    second = [{**row, "rank": 2, "eigenvalue": 9.0 * row["step"]} for row in rows]
    table = courses(pd.DataFrame(rows[::-1] + second))
    assert table["course"].tolist() == [course]
    assert table["largest_step"].tolist() == [int(np.nanargmax(values))]


def test_courses_have_a_row_a_run_and_operator():
    table = courses(eigenvalues_table(points()))
    followed = sum("size" not in one for one in settings())
    assert len(table) == followed * 2 * 3
    assert set(table["course"]) == {"rises then falls"} and set(table["largest_step"]) == {10}
    assert table.loc[0, ["first", "largest", "last"]].tolist() == pytest.approx([8.0, 16.0, 0.1])


def checked(**changes):
    return with_checks(pd.DataFrame([change(point(), **changes)])).iloc[0]


def test_bounds_hold_where_the_quantiles_of_their_probability_are_within():
    # Quantiles at centre -0.1: q01 -0.13, q05 -0.12, q95 -0.08, q99 -0.07.
    assert checked(low=-0.121, high=-0.079)["bounds_hold"] == 1.0
    assert checked(low=-0.119, high=-0.079)["bounds_hold"] == 0.0
    assert checked(low=-0.121, high=-0.081)["bounds_hold"] == 0.0
    assert checked(low=-0.116, high=-0.079, bound_probability=0.07)["bounds_hold"] == 1.0  # asks of q10
    assert checked(low=-0.121, high=-0.079, bound_probability=0.01)["bounds_hold"] == 0.0  # asks of q01
    inside = checked(low=-0.111, high=-0.089)
    names = ["median_inside", "half_inside", "nine_tenths_inside", "nearly_all_inside"]
    assert inside[names].tolist() == [1.0, 1.0, 0.0, 0.0]


def test_with_a_full_batch_nothing_is_asked_of_the_bounds():
    row = with_checks(pd.DataFrame([change(point(batch=None), spread=0.0)])).iloc[0]
    assert row[["bounds_hold", "median_inside", "mean_agrees"]].isna().all()
    assert row["direction_agrees"] == 1.0 and row["regime_agrees"] == 1.0


def test_means_agree_within_two_standard_errors_and_directions_where_the_sign_is_certain():
    assert checked(predicted_mean=-0.1019)["mean_agrees"] == 1.0
    far = checked(predicted_mean=-0.11)
    assert far["mean_agrees"] == 0.0 and far["relative_error"] == pytest.approx(0.1)
    assert checked(predicted_mean=0.1)["direction_agrees"] == 0.0
    assert np.isnan(checked(centre=-0.001)["direction_agrees"])
    assert np.isnan(checked(centre=0.0)["relative_error"])


@pytest.mark.parametrize(
    ("share", "mean", "regime"),
    [(0.95, -0.1, "decreases"), (0.94, -0.1, "decreases on average"), (0.94, 0.1, "oscillates")],
)
def test_the_measured_regime_follows_from_share_and_mean(share, mean, regime):
    row = checked(share_decreasing=share, mean=mean)
    assert row["measured_regime"] == regime and row["regime_agrees"] == float(regime == "decreases")


def test_coverage_is_a_share_over_the_points_of_a_setting_and_scheme():
    rows = [change(point(step), low=-0.3 if step else 0.0) for step in STEPS]
    rows += [change(point(step, seed=1), share_decreasing=0.5) for step in STEPS]
    rows += [change(point(batch=50), "adaptive", regime="oscillates")]
    table = coverage(pd.DataFrame(rows))
    assert table[["scheme", "batch_size", "points", "seeds"]].to_numpy().tolist() == [
        ["fixed", 5, 10, 2], ["adaptive", 50, 1, 1],
    ]  # fmt: skip
    first, second = table.to_dict("records")
    assert first["bounds_hold"] == pytest.approx(0.9) and first["regime_agrees"] == pytest.approx(0.5)
    assert (first["predicted_decreases"], first["measured_decreases_on_average"]) == (1.0, 0.5)
    assert first["share_decreasing_where_decreases"] == pytest.approx(0.75)
    assert np.isnan(first["share_decreasing_where_oscillates"]) and second["predicted_oscillates"] == 1.0
    assert coverage(pd.DataFrame(rows).iloc[:0]).empty


def test_joined_tables_leave_out_those_without_rows():
    empty = pd.DataFrame([point()]).iloc[:0]
    table = pd.DataFrame(bound_rows(point()))
    assert joined([empty, table, table]).dtypes.equals(table.dtypes) and len(joined([empty, table, table])) == 4
    assert joined([empty, empty]).empty


def test_the_script_joins_tables_and_writes_what_is_derived_from_them(tmp_path):
    for job, seed in enumerate((0, 1)):
        for name, table in study(settings((0.0, 0.5), (5,), (), ()), (seed,)).items():
            write_table(table, tmp_path / f"{job}/{name}.parquet")
        write_record(record(seed=seed), tmp_path / f"{job}/record.json")
    files = [
        [f"--{name.replace('_', '-')}", *(tmp_path / f"{job}/{name}.parquet" for job in (0, 1))] for name in TABLES
    ]
    files.append(["--records", *(tmp_path / f"{job}/record.json" for job in (0, 1))])
    lines = "\n".join(str(part) for arguments in files for part in arguments)
    (tmp_path / "files.txt").write_text(lines)
    script = runpy.run_path(str(SCRIPT))
    arguments = script["parser"].parse_args([f"@{tmp_path}/files.txt", "--output", f"{tmp_path}/tables"])
    script["tabulate"](arguments, SimpleNamespace(say=lambda line: None))
    written = {path.stem: read_table(path) for path in (tmp_path / "tables").glob("*.parquet")}
    assert set(written) == {*TABLES, "runs", "bound_correlations", "coverage"}
    assert len(written["runs"]) == 2 and written["bounds"]["seed"].tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    assert set(written["coverage"]["seeds"]) == {2}


def test_each_raw_table_is_read_as_itself_and_refused_as_another_or_twice(tmp_path):
    raw = {name: table for name, table in study([{}], seeds=(0,)).items() if name in TABLES}
    assert set(raw) == set(TABLES)
    for name, table in raw.items():
        write_table(table, tmp_path / f"{name}.parquet")
    for name in TABLES:
        (frame,) = read_raw([tmp_path / f"{name}.parquet"], name, TABLES[name])
        assert len(frame) == len(raw[name]) > 0
        for other in set(TABLES) - {name}:
            with pytest.raises(InputError, match=rf"{other}.parquet: column '\w+' is missing, which .* {name} has"):
                read_raw([tmp_path / f"{other}.parquet"], name, TABLES[name])
    with pytest.raises(InputError, match=r"angles.parquet: given twice as the table angles"):
        read_raw([tmp_path / "angles.parquet"] * 2, "angles", TABLES["angles"])


def test_a_raw_table_without_rows_needs_no_columns(tmp_path):
    point_alone = study([{}], seeds=(0,))["bounds"].iloc[:0].drop(columns=["sigma", "bound"])
    write_table(point_alone, tmp_path / "bounds.parquet")
    (frame,) = read_raw([tmp_path / "bounds.parquet"], "bounds", TABLES["bounds"])
    assert frame.empty
