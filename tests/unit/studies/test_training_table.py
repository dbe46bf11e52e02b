import numpy as np
import pandas as pd
import pytest
from synthetic_tables import training_runs

from hessketch.studies.training_table import training_table, wide_training_table


@pytest.fixture
def runs():
    """Two sizes and two seeds; the run of the largest rate diverged for seed 1."""
    cells = [{"examples_per_class": size, "seed": seed} for size in (10, 100) for seed in (0, 1)]
    return training_runs(cells)


def test_a_row_holds_the_grid_the_chosen_rate_and_the_diverged_runs_of_a_cell(runs):
    table = training_table(runs)
    assert len(table) == 4
    assert set(table["learning_rates"]) == {"0.1, 0.05, 0.01"}
    assert (table["learning_rate"] == 0.05).all()
    assert table["diverged"].tolist() == [0, 1, 0, 1]
    assert (table["runs"] == 3).all()
    chosen = runs[runs["selected"]].sort_values(["examples_per_class", "seed"])
    assert table["test_accuracy"].tolist() == chosen["test_accuracy"].tolist()


def test_a_cell_without_a_selected_run_has_no_rate(runs):
    runs["selected"] &= (runs["examples_per_class"] != 10) | (runs["seed"] != 0)
    table = training_table(runs)
    assert np.isnan(table["learning_rate"][0]) and np.isnan(table["test_accuracy"][0])
    assert table["learning_rate"][1:].notna().all()


def test_the_wide_table_states_rate_mean_and_sample_standard_deviation(runs):
    runs.loc[runs["selected"], "test_accuracy"] = [0.5, 0.7, 0.9, 0.9]
    wide = wide_training_table(training_table(runs))
    assert wide["10 per class"].item() == "0.05: 60.0 ± 14.1 %, 1 diverged"
    assert wide["100 per class"].item() == "0.05: 90.0 ± 0.0 %, 1 diverged"
    assert wide.columns.tolist() == [
        "dataset",
        "network",
        "learning rates",
        "epochs",
        "10 per class",
        "100 per class",
    ]


def test_rates_that_differ_between_seeds_are_all_named(runs):
    runs["selected"] = (runs["learning_rate"] == 0.05) & (runs["seed"] == 0)
    runs["selected"] |= (runs["learning_rate"] == 0.01) & (runs["seed"] == 1)
    wide = wide_training_table(training_table(runs))
    assert wide["10 per class"].item().startswith("0.05/0.01: ")


def test_a_size_that_one_data_set_lacks_is_empty_and_none_stands_for_no_selected_run():
    runs = training_runs([{"examples_per_class": 10}, {"dataset": "digits", "examples_per_class": 30}])
    runs["selected"] &= runs["dataset"] == "mnist"
    wide = wide_training_table(training_table(runs)).set_index("dataset")
    assert wide.loc["digits", "10 per class"] == ""
    assert wide.loc["digits", "30 per class"] == "none, 1 diverged"
    assert wide.loc["mnist", "10 per class"].startswith("0.05: ")


def test_settings_that_vary_have_a_column_of_their_own():
    runs = training_runs([{"width": 1.0}, {"width": 0.5}])
    wide = wide_training_table(training_table(runs))
    assert wide["width"].tolist() == [0.5, 1.0]
    assert "norm" not in wide


def test_the_runs_are_not_modified(runs):
    before = runs.copy()
    wide_training_table(training_table(runs))
    pd.testing.assert_frame_equal(runs, before)
