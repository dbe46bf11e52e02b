import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic_tables import spectrum_columns

from hessketch.errors import InputError
from hessketch.runs import Run
from hessketch.studies.spectra import (
    all_seeds,
    first_seed,
    largest_size,
    nearest_size,
    of_variant,
    select,
    variants,
    with_network_labels,
)


def rows(*changes):
    return pd.DataFrame([spectrum_columns(**change) for change in changes])


def test_select_keeps_the_rows_that_meet_every_condition():
    frame = rows({"split": "train"}, {"split": "test"}, {"split": "test", "seed": 1})
    assert select(frame, split="test", seed=1).index.tolist() == [2]


def test_select_lists_the_values_that_exist_when_none_matches():
    frame = rows({"dataset": "mnist"}, {"dataset": "cifar10"})
    with pytest.raises(InputError, match=r"dataset = 'digits'.*\['cifar10', 'mnist'\]"):
        select(frame, dataset="digits")


def test_labels_tell_norm_and_width_and_leave_the_input_alone():
    frame = rows({}, {"norm": "group", "width": 0.0625}, {"network": "mlp", "norm": "none", "width": 0.3})
    before = frame.copy()
    labelled = with_network_labels(frame)
    assert labelled["network"].tolist() == ["vgg11-batch-w1", "vgg11-group-w0.0625", "mlp-none-w0.3"]
    pd.testing.assert_frame_equal(frame, before)
    pd.testing.assert_frame_equal(labelled.drop(columns="network"), frame.drop(columns="network"))


@given(st.floats(1e-3, 16), st.sampled_from(["batch", "group", "none"]))
def test_labels_are_those_of_the_run(width, norm):
    frame = rows({"width": width, "norm": norm})
    run = Run("mnist", 0.0, 100, "vgg11", norm, width, "cross_entropy", "sgd", None, 0)
    assert with_network_labels(frame)["network"].item() == run.network_label


def test_a_variant_is_one_loss_and_label_noise():
    frame = rows({}, {"label_noise": 0.1}, {"loss": "mean_squared_error"}, {"width": 0.5})
    assert of_variant(frame, "cross_entropy").index.tolist() == [0, 3]
    assert of_variant(frame, "cross_entropy-noise0.1").index.tolist() == [1]
    assert of_variant(frame, "mean_squared_error").index.tolist() == [2]


def test_variants_are_listed_once_each():
    frame = rows({"label_noise": 0.1}, {}, {"width": 0.5}, {"loss": "binary_cross_entropy"})
    assert variants(frame) == ["binary_cross_entropy", "cross_entropy", "cross_entropy-noise0.1"]


def test_an_unknown_variant_lists_those_that_exist():
    frame = rows({}, {"label_noise": 0.1})
    with pytest.raises(InputError, match=r"'hinge'.*cross_entropy, cross_entropy-noise0\.1"):
        of_variant(frame, "hinge")


def test_an_empty_table_has_every_variant_and_can_be_labelled():
    empty = rows({}).iloc[:0]
    assert of_variant(empty, "cross_entropy").empty
    assert with_network_labels(empty).columns.tolist() == empty.columns.tolist()


@pytest.mark.parametrize(
    "change", [{"width": 0.5}, {"norm": "none"}, {"loss": "mean_squared_error"}, {"label_noise": 0.2}]
)
def test_rows_of_different_settings_are_never_mixed_silently(change):
    column = next(iter(change))
    with pytest.raises(InputError, match=f"vgg11 on mnist has rows of several values of {column}"):
        all_seeds(rows({}, change))


def test_different_widths_may_stand_side_by_side_once_they_are_labelled():
    frame = with_network_labels(rows({}, {"width": 0.5}, {"norm": "none"}))
    assert len(first_seed(frame)) == 3


def test_all_seeds_keeps_seeds_and_rates_of_the_first_trainer():
    frame = rows({"trainer": "sgd"}, {"seed": 1, "learning_rate": 0.01}, {"trainer": "adam"})
    assert all_seeds(frame).index.tolist() == [2]
    assert all_seeds(frame.iloc[:2]).index.tolist() == [0, 1]


def test_the_first_seed_is_chosen_for_each_sample_size_alone():
    frame = rows({"seed": 1}, {"seed": 0}, {"seed": 2, "examples_per_class": 10}, {"seed": 1, "dataset": "digits"})
    assert first_seed(frame).index.tolist() == [1, 2, 3]


def test_the_largest_size_is_chosen_for_each_data_set_and_network():
    frame = rows({"examples_per_class": 10}, {"examples_per_class": 37}, {"examples_per_class": 5, "dataset": "digits"})
    assert largest_size(frame).index.tolist() == [1, 2]


def test_nearest_size_is_measured_in_logarithms():
    assert nearest_size([10, 100], 40) == 100  # 32 is the middle
    assert nearest_size([10, 100], 30) == 10
    assert nearest_size([10, 40], 20) == 40


@given(st.lists(st.integers(1, 10**6), min_size=1), st.integers(1, 10**6))
def test_nearest_size_is_one_of_the_sizes_and_a_present_size_is_its_own_nearest(sizes, wanted):
    assert nearest_size(sizes, wanted) in sizes
    assert nearest_size([*sizes, wanted], wanted) == wanted


@pytest.mark.parametrize(("sizes", "wanted"), [([], 10), ([10], 0), ([0, 10], 5)])
def test_nearest_size_refuses_what_has_no_logarithm(sizes, wanted):
    with pytest.raises(InputError, match="at least one size"):
        nearest_size(sizes, wanted)
