"""Derived tables of sketched training against values worked out by hand from synthetic runs and checkpoints."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic_federation import (
    ROUNDS,
    P,
    checkpoint,
    curvature_table,
    run_row,
    runs_table,
    trainer_columns,
)

from hessketch.errors import InputError
from hessketch.studies.sharper_sketching import (
    MIB,
    accuracy_table,
    cells,
    equal_loss,
    in_order,
    learning_rates,
    mark_selected,
    of_cell,
    one_cell,
)
from hessketch.studies.sharper_sketching_constants import (
    PAPER,
    SONG,
    measured_constants,
    sketch_noise,
    table1,
    wide_table1,
)

SKETCH = trainer_columns("count_sketch", False, 100.0)
TOP_R = trainer_columns("top_r", True, 100.0)


def runs_of(trainer, accuracies, diverged=(), **identity):
    """Runs of one group: {rate: accuracies of the seeds}; `diverged` holds (rate, seed)."""
    return [
        run_row(trainer, rate, seed, "diverged" if (rate, seed) in diverged else "finished", value, **identity)
        for rate, values in accuracies.items()
        for seed, value in enumerate(values)
    ]


def marked(rows):
    return mark_selected(pd.DataFrame(rows))


def test_the_rate_with_the_best_mean_is_selected_for_all_seeds_of_a_group():
    rows = runs_of(SKETCH, {0.3: [0.9, 0.1], 0.1: [0.7, 0.6]}) + runs_of(TOP_R, {0.3: [0.9, 0.8], 0.1: [0.7, 0.6]})
    selected = marked(rows)
    assert selected[selected["selected"]].groupby("trainer")["learning_rate"].unique().explode().to_dict() == {
        SKETCH["trainer"]: 0.1,
        TOP_R["trainer"]: 0.3,
    }
    assert selected["selected"].sum() == 4


def test_selection_leaves_its_input_alone_and_goes_by_rows_whatever_their_index():
    runs = pd.DataFrame(runs_of(SKETCH, {0.3: [0.9], 0.1: [0.95]}), index=[7, 3])
    before = runs.copy()
    assert mark_selected(runs)["selected"].to_dict() == {7: False, 3: True}
    pd.testing.assert_frame_equal(runs, before)


def test_groups_differ_in_every_part_of_the_identity_but_rate_and_seed():
    changes = [{}, {"dataset": "mnist"}, {"examples_per_class": None}, {"width": 0.5}, {"loss": "mean_squared_error"}]
    rows = [row for change in changes for row in runs_of(SKETCH, {0.3: [0.2], 0.1: [0.9]}, **change)]
    selected = marked(rows)
    assert selected["selected"].tolist() == [False, True] * len(changes)
    assert len(learning_rates(selected)) == len(accuracy_table(selected)) == len(changes)


@pytest.mark.parametrize(
    ("accuracies", "position"),
    [
        ({0.3: [0.1], 0.1: [0.9], 0.03: [0.2]}, "inside"),
        ({0.3: [0.9], 0.1: [0.1], 0.03: [0.2]}, "largest"),
        ({0.3: [0.1], 0.1: [0.2], 0.03: [0.9]}, "smallest"),
        ({0.3: [0.1]}, "only"),
    ],
)
def test_the_position_of_the_winner_in_its_grid(accuracies, position):
    [row] = learning_rates(marked(runs_of(SKETCH, accuracies))).to_dict("records")
    assert row["position"] == position
    assert row["learning_rates"] == ", ".join(f"{rate:g}" for rate in accuracies)


def test_rates_and_accuracies_of_a_group_with_a_diverged_seed():
    rows = runs_of(SKETCH, {0.3: [0.99, 0.98, 0.97], 0.1: [0.5, 0.6, 0.8]}, diverged={(0.3, 1)})
    [row] = learning_rates(marked(rows)).to_dict("records")
    assert (row["learning_rate"], row["seeds"], row["runs"], row["diverged"]) == (0.1, 3, 6, 1)
    mean = (0.5 + 0.6 + 0.8) / 3
    error = np.sqrt(sum((x - mean) ** 2 for x in (0.5, 0.6, 0.8)) / 2 / 3)
    assert row["test_accuracy"] == pytest.approx(mean)
    assert row["test_accuracy_standard_error"] == pytest.approx(error)
    [row] = accuracy_table(marked(rows)).to_dict("records")
    assert row["test_accuracy_standard_error"] == pytest.approx(error)
    assert row["train_accuracy"] == pytest.approx(mean + 0.05)
    assert (row["seeds"], row["diverged"]) == (3, 0)


def test_a_group_without_a_rate_free_of_divergence_is_averaged_over_the_seeds_that_are_left():
    rows = runs_of(SKETCH, {0.3: [0.5, 0.7, 0.9], 0.1: [0.4, 0.4, 0.4]}, diverged={(0.3, 2), (0.1, 0)})
    [row] = accuracy_table(marked(rows)).to_dict("records")
    assert (row["learning_rate"], row["seeds"], row["diverged"], row["rounds"]) == (0.3, 2, 1, ROUNDS)
    assert row["test_accuracy"] == pytest.approx(0.6)


def test_a_group_that_diverged_at_every_rate_keeps_its_bytes_and_has_no_accuracy():
    lost = runs_of(SKETCH, {0.3: [0.5, 0.5], 0.1: [0.5, 0.5]}, diverged={(0.3, 0), (0.3, 1), (0.1, 0), (0.1, 1)})
    runs = marked(lost + runs_of(trainer_columns("uncompressed"), {0.1: [0.9, 0.9]}))
    row = accuracy_table(runs).set_index("method").loc["count_sketch"]
    assert (row["seeds"], row["diverged"]) == (0, 4)
    assert np.isnan(row["test_accuracy"]) and np.isnan(row["learning_rate"])
    assert row["upload_mib"] == row["upload_bytes"] * ROUNDS / MIB  # of the rounds planned, not of the few done
    rates = learning_rates(runs).set_index("method").loc["count_sketch"]
    assert rates["position"] == "none" and np.isnan(rates["test_accuracy"])


def test_one_seed_has_no_standard_error():
    [row] = accuracy_table(marked(runs_of(SKETCH, {0.1: [0.5]}))).to_dict("records")
    assert row["test_accuracy"] == 0.5 and np.isnan(row["test_accuracy_standard_error"])


def test_bytes_of_a_training_are_those_of_a_round_times_rounds():
    table = accuracy_table(marked(runs_of(TOP_R, {0.1: [0.5, 0.6]}))).iloc[0]
    assert table["upload_bytes"] == 4 * P / 100
    assert table["upload_mib"] == ROUNDS * 4 * P / 100 / 2**20
    assert table["download_mib"] == ROUNDS * table["download_bytes"] / 2**20
    assert (table["reduction_bytes"], table["reduction_numbers"]) == (100.0, 200.0)


def test_rows_stand_by_method_without_error_feedback_first_then_by_reduction():
    labels = in_order(runs_table(seeds=(0,), rates=(0.1,), reductions=(10.0, 2.5)).sample(frac=1, random_state=0))
    expected = ["uncompressed"]
    for method in ("count_sketch", "top_r", "fetch_sgd"):
        expected += [f"{method}{ef}-x{reduction}" for ef in ("", "_ef") for reduction in ("2.5", "10")]
    assert labels["trainer"].tolist() == expected
    assert set(labels) == set(runs_table(seeds=(0,), rates=(0.1,)))


def test_cells_are_data_set_network_and_variant_and_choose_their_rows():
    runs = pd.concat([runs_table(seeds=(0,)), runs_table(seeds=(0,), network="vgg11", norm="group", width=0.25)])
    assert cells(runs) == [
        ("digits", "mlp-none-w1", "cross_entropy"),
        ("digits", "vgg11-group-w0.25", "cross_entropy"),
    ]
    rows = of_cell(runs, *cells(runs)[1])
    assert len(rows) == len(runs) / 2 and set(rows["network"]) == {"vgg11-group-w0.25"}
    with pytest.raises(InputError, match=r"vgg11-group-w0\.25"):
        of_cell(runs, "digits", "resnet18-group-w1", "cross_entropy")
    assert of_cell(pd.DataFrame(), "digits", "mlp-none-w1", "cross_entropy").empty


def test_rows_of_two_sample_sizes_are_refused_by_name():
    runs = pd.concat([runs_table(seeds=(0,)), runs_table(seeds=(0,), examples_per_class=50)])
    with pytest.raises(InputError, match=r"accuracy.*examples_per_class \(100, 50\).*by select"):
        one_cell(runs, "accuracy")
    with pytest.raises(InputError, match="accuracy: the table has no rows"):
        one_cell(runs.iloc[:0], "accuracy")


def losses(trainer, seed, *targets):
    return [checkpoint(trainer, "train", seed, "loss", target_loss=target) for target in targets]


def test_equal_loss_is_the_lowest_target_that_all_trainers_reached_by_seed():
    table = pd.DataFrame(
        losses(SKETCH, 0, 1.0, 0.5, 0.1) + losses(TOP_R, 0, 1.0, 0.5)
        + losses(SKETCH, 1, 1.0) + losses(TOP_R, 1, 1.0, 0.5, 0.1)
        + [checkpoint(SKETCH, round=3), checkpoint(TOP_R, "test", 0, "loss", target_loss=0.5)]
    )  # fmt: skip
    found = equal_loss(table)
    assert found.index.tolist() == sorted(found.index)
    assert found.groupby("seed")["target_loss"].unique().explode().to_dict() == {0: 0.5, 1: 1.0}
    assert set(found["kind"]) == {"loss"} and len(found) == 5


def test_a_seed_in_which_a_trainer_reached_nothing_has_no_equal_loss():
    table = pd.DataFrame(losses(SKETCH, 0, 1.0) + losses(TOP_R, 0, 1.0) + losses(SKETCH, 1, 1.0))
    assert set(equal_loss(table)["seed"]) == {0}
    only_round = pd.DataFrame([*losses(SKETCH, 0, 1.0), checkpoint(TOP_R)])
    assert equal_loss(only_round).empty and list(equal_loss(only_round)) == list(only_round)
    assert equal_loss(table.iloc[:0]).empty


def test_the_compared_trainers_may_be_named():
    table = pd.DataFrame(losses(SKETCH, 0, 1.0, 0.5) + losses(TOP_R, 0, 1.0))
    assert set(equal_loss(table, [SKETCH["trainer"]])["target_loss"]) == {0.5}
    assert set(equal_loss(table, [SKETCH["trainer"], TOP_R["trainer"]])["target_loss"]) == {1.0}
    assert equal_loss(table, [SKETCH["trainer"], "fetch_sgd-x10"]).empty


def test_networks_are_compared_among_themselves():
    small = pd.DataFrame(losses(SKETCH, 0, 1.0, 0.5) + losses(TOP_R, 0, 1.0, 0.5)).assign(examples_per_class=None)
    large = pd.DataFrame(losses(SKETCH, 0, 1.0, 0.5) + losses(TOP_R, 0, 1.0)).assign(width=2.0)
    found = equal_loss(pd.concat([small, large], ignore_index=True))
    assert found.groupby("width")["target_loss"].min().to_dict() == {1.0: 0.5, 2.0: 1.0}


def test_constants_are_those_of_the_sharpest_checkpoint_and_mu_the_least_of_all():
    flat = {"largest_magnitude": 10.0, "absolute_sum": 400.0, "kappa": 40.0, "trace": 300.0}
    sharp = {"largest_magnitude": 50.0, "absolute_sum": 250.0, "kappa": 5.0, "trace": 200.0, "round": 30, "seed": 2}
    table = pd.DataFrame(
        [
            checkpoint(SKETCH, **flat, train_loss=2.0, gradient_norm_squared=0.4),
            checkpoint(TOP_R, **sharp, train_loss=0.5, gradient_norm_squared=0.05),
            checkpoint(SKETCH, "test", largest_magnitude=900.0),
            checkpoint(SKETCH, operator="ggn", largest_magnitude=900.0),
            checkpoint(SKETCH, **flat, train_loss=0.0, gradient_norm_squared=0.0),
        ]
    )
    [row] = measured_constants(table).to_dict("records")
    assert (row["beta"], row["trace"], row["absolute_sum"], row["kappa"]) == (50.0, 200.0, 250.0, 5.0)
    assert (row["trainer"], row["seed"], row["round"]) == (TOP_R["trainer"], 2, 30)
    assert (row["least_kappa"], row["largest_kappa"], row["checkpoints"]) == (5.0, 40.0, 3)
    assert row["kappa_standard_error"] == 0.25 and row["kappa_over_p"] == 5.0 / P
    assert row["mu"] == pytest.approx(0.05 / (2 * 0.5))  # the other is 0.4 / 4 = 0.1
    assert row["condition_number"] == pytest.approx(50.0 / 0.05)


@given(st.floats(0.01, 10), st.floats(0.01, 10), st.floats(0, 5))
def test_mu_does_not_exceed_what_the_true_least_loss_would_give(gradient, excess, least):
    [row] = measured_constants(
        pd.DataFrame([checkpoint(SKETCH, train_loss=least + excess, gradient_norm_squared=gradient)])
    ).to_dict("records")
    assert row["mu"] <= gradient / (2 * excess) * (1 + 1e-12)


def test_noise_bounds_of_each_sketch_size_and_their_ratio():
    runs = runs_table(seeds=(0,), reductions=(10.0, 100.0))
    table = pd.DataFrame([checkpoint(SKETCH)])  # beta 20, sum 200, kappa 10
    noise = sketch_noise(runs, table)
    assert noise["b"].tolist() == [P / 10, P / 100]
    assert noise["p_over_b"].tolist() == [10.0, 100.0]
    assert noise["bound_by_dimension"].tolist() == pytest.approx([(P - 1) * 20 / 640, (P - 1) * 20 / 64])
    assert noise["bound_by_spectrum"].tolist() == pytest.approx([260 / 640, 260 / 64])  # 200 + 3 times 20
    assert noise["ratio"].tolist() == pytest.approx([(P - 1) / 13] * 2)
    assert np.allclose(noise["bound_by_dimension"] / noise["bound_by_spectrum"], noise["ratio"])
    whole = runs.assign(examples_per_class=None), table.assign(examples_per_class=np.nan)
    assert sketch_noise(*whole)["ratio"].tolist() == noise["ratio"].tolist()


def noise_beyond(hessian, g, b):
    """E[(R^T R g)^T H (R^T R g)] - g^T H g by the closed form of the module's docstring."""
    return (np.trace(hessian) * (g @ g) + g @ hessian @ g - 2 * np.diag(hessian) @ g**2) / b


def bounds_of(hessian, b):
    """The two bounds over |g|^2 as sketch_noise gives them for a network with this train Hessian."""
    magnitudes = np.abs(np.linalg.eigvalsh(hessian))
    beta, total = magnitudes.max(), magnitudes.sum()
    sizes = {"p": len(hessian), "upload_numbers": b}
    runs = runs_table(seeds=(0,), reductions=(10.0,), named=(("count_sketch", False),)).assign(**sizes)
    measured = {"largest_magnitude": beta, "absolute_sum": total, "kappa": total / beta, "p": len(hessian)}
    [row] = sketch_noise(runs, pd.DataFrame([checkpoint(SKETCH, **measured)])).to_dict("records")
    return row["bound_by_dimension"], row["bound_by_spectrum"]


def hessian_of(kind, p, random):
    """A symmetric matrix: of either sign, of one eigenvalue, or without a diagonal."""
    factor = random.normal(size=(p, p))
    matrices = {
        "indefinite": factor + factor.T,
        "semidefinite": factor @ factor.T,
        "rank one": np.outer(factor[0], factor[0]),
        "negative": -factor @ factor.T,
        "hollow": factor + factor.T - 2 * np.diag(np.diag(factor)),
        "identity": 3 * np.eye(p),
    }
    return matrices[kind]


@pytest.mark.parametrize("kind", ["indefinite", "semidefinite", "rank one", "negative", "hollow", "identity"])
@given(seed=st.integers(0, 2**32 - 1), p=st.integers(2, 30), b=st.integers(1, 40), power=st.sampled_from([1, 5]))
@settings(max_examples=12)
def test_the_noise_of_an_unbiased_step_is_within_both_bounds(kind, seed, p, b, power):
    random = np.random.default_rng(seed)
    hessian, g = hessian_of(kind, p, random), random.normal(size=p) ** power  # a fifth power has few large entries
    noise = abs(noise_beyond(hessian, g, b))
    for bound in bounds_of(hessian, b):
        assert noise <= bound * (g @ g) * (1 + 1e-9)


def test_smoothness_alone_is_met_by_equal_eigenvalues_and_the_trace_alone_bounds_nothing():
    flat, g = 3 * np.eye(20), np.arange(1.0, 21.0)
    assert noise_beyond(flat, g, 4) == pytest.approx(bounds_of(flat, 4)[0] * (g @ g))  # smoothness alone: equal
    ones = np.ones((20, 20))  # one eigenvalue of 20, along g: twice what kappa beta / b alone would allow
    noise = noise_beyond(ones, np.ones(20), 4)
    assert 20 / 4 * 20 < noise == pytest.approx((20 + 20 - 2) / 4 * 20) and noise <= bounds_of(ones, 4)[1] * 20
    hollow = ones - np.eye(20)
    noise = noise_beyond(hollow, np.ones(20), 4)  # g^T H g is 19 |g|^2
    assert noise == pytest.approx(19 * 20 / 4) and noise <= bounds_of(hollow, 4)[1] * 20


def test_the_noise_of_a_count_sketch_step_is_what_the_formula_says():
    """E[(R^T R g)^T H (R^T R g)] over random hashes and signs, against the formula of the module's docstring."""
    random = np.random.default_rng(0)
    p, b, draws = 12, 4, 40_000
    factor = random.normal(size=(p, p))
    hessian, g = factor @ factor.T, random.normal(size=p)
    buckets, signs = random.integers(b, size=(draws, p)), random.choice([-1.0, 1.0], size=(draws, p))
    sums = np.stack([np.where(buckets == k, signs * g, 0.0).sum(axis=1) for k in range(b)], axis=1)
    lifted = signs * np.take_along_axis(sums, buckets, axis=1)
    sampled = np.einsum("di,ij,dj->d", lifted, hessian, lifted)
    formula = g @ hessian @ g + noise_beyond(hessian, g, b)
    assert abs(sampled.mean() - formula) < 4 * sampled.std() / np.sqrt(draws)
    lengths = (lifted**2).sum(axis=1)
    assert abs(lengths.mean() - (1 + (p - 1) / b) * (g @ g)) < 4 * lengths.std() / np.sqrt(draws)


def cell_text(wide, row, column):
    [text] = wide.loc[wide["quantity"].str.startswith(row), column]
    return text


def test_table1_states_both_analyses_and_the_measured_constants():
    runs = pd.concat([runs_table(seeds=(0,), reductions=(10.0, 100.0)), runs_table(seeds=(0,), width=0.5)])
    long = table1(runs, pd.DataFrame([checkpoint(SKETCH), checkpoint(TOP_R, kappa=16.0, largest_magnitude=10.0)]))
    assert list(long) == ["row", "column", "text"] and not long["text"].isna().any()
    wide = wide_table1(long)
    measured, bare = "measured: digits, mlp-none-w1", "measured: digits, mlp-none-w0.5"
    assert list(wide) == ["quantity", SONG, PAPER, bare, measured]
    assert cell_text(wide, "convexity", SONG) == "strong convexity"
    assert cell_text(wide, "convexity", PAPER) == "PL condition"
    assert cell_text(wide, "ambient dimension", SONG) == "yes" and cell_text(wide, "ambient dimension", PAPER) == "no"
    assert cell_text(wide, "parameters p", measured) == "6,400"
    assert cell_text(wide, "numbers b", measured) == "640; 64"
    assert cell_text(wide, "beta", measured) == "20"
    assert cell_text(wide, "where beta", measured) == "count_sketch-x100, seed 0, round 10"
    assert cell_text(wide, "trace", measured) == "150 ± 3"
    assert cell_text(wide, "kappa =", measured) == "10 ± 0.25"
    assert cell_text(wide, "kappa /", measured) == "0.00156"
    assert cell_text(wide, "least and largest", measured) == "10 to 16"
    assert cell_text(wide, "mu", measured) == "0.3"
    assert cell_text(wide, "condition", measured) == "66.7"
    assert cell_text(wide, "second-order", measured) == "200; 2,000"  # 199.97 and 1999.7
    assert cell_text(wide, "the same", measured) == "0.406; 4.06"
    assert cell_text(wide, "ratio", measured) == "492; least of the checkpoints: 337"
    for analysis in (SONG, PAPER):
        assert cell_text(wide, "iteration complexity", analysis).startswith("not reproduced here")
    assert cell_text(wide, "beta", bare) == cell_text(wide, "second-order", bare) == "not measured"
    assert cell_text(wide, "reduction p / b", bare) == "2.5; 10; 100; 1,067"


def test_table1_without_curvature_or_without_sketches_says_so():
    runs = runs_table(seeds=(0,), named=(("uncompressed", False), ("top_r", True)))
    for curvature in (pd.DataFrame(), curvature_table().iloc[:0]):
        wide = wide_table1(table1(runs, curvature))
        measured = "measured: digits, mlp-none-w1"
        assert cell_text(wide, "beta", measured) == "not measured"
        assert cell_text(wide, "numbers b", measured) == "no Count-Sketch run"
    both = pd.concat([runs, runs.assign(examples_per_class=None), runs.assign(loss="mean_squared_error")])
    assert set(table1(both, pd.DataFrame())["column"]) - {SONG, PAPER} == {
        "measured: digits, mlp-none-w1, 100 per class, cross_entropy",
        "measured: digits, mlp-none-w1, all examples, cross_entropy",
        "measured: digits, mlp-none-w1, 100 per class, mean_squared_error",
    }
