"""Figures of sharper sketching over rounds: losses, lift errors, memories."""

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from sketched_studies import FIGURES, TIMES, bars, crosses, row_of, study
from synthetic_federation import (
    NAMED,
    ROUNDS,
)

from hessketch.errors import InputError
from hessketch.figures.sharper_sketching_marks import COLOURS, NAMES, named


def line_of(ax, label):
    [line] = [line for line in ax.lines if line.get_label() == label]
    return line


@pytest.mark.parametrize(
    ("figure", "column", "unit", "scale"),
    [("accuracy_against_rounds", "test_accuracy", 100, "linear"), ("loss_against_rounds", "train_loss", 1, "log")],
)
def test_lines_over_rounds_are_means_over_seeds_in_a_panel_a_reduction(full, figure, column, unit, scale):
    axes = FIGURES[figure](full).axes
    assert [ax.get_title() for ax in axes] == [
        f"(a) 2.5{TIMES}",
        f"(b) 10{TIMES}",
        f"(c) 100{TIMES}",
        f"(d) 1000{TIMES}",
    ]
    for ax, reduction in zip(axes, (2.5, 10.0, 100.0, 1000.0), strict=True):
        assert ax.get_yscale() == scale
        here = full["rounds"][full["rounds"]["reduction"].isna() | (full["rounds"]["reduction"] == reduction)]
        present = [key for key in NAMED if len(row_of(here, *key))]
        assert [line.get_label() for line in ax.lines] == [named(*key) for key in present]
        for key in present:
            means = unit * row_of(here, *key).dropna(subset=[column]).groupby("round")[column].mean()
            line = line_of(ax, named(*key))
            assert line.get_xdata().tolist() == means.index.tolist()
            assert line.get_ydata() == pytest.approx(means.to_numpy())
    assert named("count_sketch", True) not in [line.get_label() for line in axes[3].lines]  # it diverged everywhere


def test_bands_over_rounds_are_one_standard_error_and_absent_for_one_seed(full, small):
    ax = FIGURES["loss_against_rounds"](full).axes[0]
    losses = row_of(full["rounds"], "uncompressed", False).groupby("round")["train_loss"]
    low, high = losses.mean() - losses.sem(), losses.mean() + losses.sem()
    vertices = ax.collections[0].get_paths()[0].vertices
    at_last = vertices[vertices[:, 0] == ROUNDS][:, 1]
    assert (at_last.min(), at_last.max()) == pytest.approx((low.iloc[-1], high.iloc[-1]))
    for name in ("loss_against_rounds", "accuracy_against_rounds", "error_memory"):
        assert not FIGURES[name](small).axes[0].collections


def test_of_many_reductions_six_are_drawn():
    reductions = (2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0)
    tables = study((0,), reductions, NAMED[:2])
    titles = [ax.get_title() for ax in FIGURES["accuracy_against_rounds"](tables).axes]
    assert len(titles) == 6 and titles[0] == f"(a) 2{TIMES}" and titles[-1] == f"(f) 256{TIMES}"


def test_uncompressed_alone_over_rounds_is_one_panel(full):
    [ax] = FIGURES["accuracy_against_rounds"]({"rounds": row_of(full["rounds"], "uncompressed", False)}).axes
    assert [line.get_label() for line in ax.lines] == ["uncompressed"]


def test_a_run_that_ended_early_is_a_cross_and_no_part_of_the_mean(full):
    rounds = full["rounds"]
    lost = (rounds["trainer"] == "top_r-x10") & (rounds["seed"] == 2) & (rounds["round"] > 17)
    figure = FIGURES["loss_against_rounds"]({"rounds": rounds[~lost]})
    ax = figure.axes[1]
    assert crosses(ax) == {to_rgb(COLOURS["top_r"]): [17]}
    others = rounds[(rounds["trainer"] == "top_r-x10") & (rounds["seed"] < 2)].groupby("round")["train_loss"].mean()
    assert line_of(ax, NAMES["top_r"]).get_ydata() == pytest.approx(others.to_numpy())
    assert not any(crosses(other) for other in figure.axes if other is not ax)
    assert "diverged" in [text.get_text() for text in figure.legends[0].texts]


def test_lift_errors_are_means_over_rounds_and_seeds_beside_theory(full):
    measured, ratio = FIGURES["lift_error"](full).axes
    rounds = full["rounds"]
    for method, error_feedback in NAMED[1:]:
        rows = row_of(rounds, method, error_feedback).groupby("reduction")["lift_error"]
        container = bars(measured, method, error_feedback)
        assert container.lines[0].get_ydata() == pytest.approx(rows.mean().to_numpy())
        ends = np.array(container.lines[2][0].get_segments())[:, :, 1]
        assert ends[:, 0] == pytest.approx(rows.quantile(0.1).to_numpy())
        assert ends[:, 1] == pytest.approx(rows.quantile(0.9).to_numpy())
    sketch = row_of(rounds, "count_sketch", False)
    dotted = [line for line in measured.lines if line.get_linestyle() == ":"]
    assert len(dotted) == 4  # Count-Sketch and top-r, with and without; FetchSGD has no theory
    theory = sketch.groupby("reduction")["lift_error_theory"].first()
    assert dotted[0].get_ydata() == pytest.approx(theory.to_numpy())
    expected = (sketch["lift_error"] / sketch["lift_error_theory"]).groupby(sketch["reduction"]).mean()
    assert bars(ratio, "count_sketch", False).lines[0].get_ydata() == pytest.approx(expected.to_numpy())
    assert [line.get_ydata()[0] for line in ratio.lines if line.get_linestyle() == ":"] == [1.0]


def test_lift_errors_without_theory_are_one_panel_and_without_compression_none(full):
    fetch = row_of(full["rounds"], "fetch_sgd", True)
    [ax] = FIGURES["lift_error"]({"rounds": fetch}).axes
    assert not [line for line in ax.lines if line.get_linestyle() == ":"]
    with pytest.raises(InputError, match="no compressed run"):
        FIGURES["lift_error"]({"rounds": row_of(full["rounds"], "uncompressed", False)})


def test_methods_without_any_lift_error_are_neither_drawn_nor_in_the_legend(full):
    rounds = full["rounds"]
    remembers = (rounds["method"] == "fetch_sgd") & rounds["error_feedback"]
    lost = rounds.assign(lift_error=rounds["lift_error"].mask(remembers | (rounds["trainer"] == "top_r-x10")))
    figure = FIGURES["lift_error"]({"rounds": lost})
    figure.draw_without_rendering()
    drawn = [named(*key) for key in NAMED[1:-1]]
    assert [container.get_label() for container in figure.axes[0].containers] == drawn
    assert [text.get_text() for text in figure.legends[0].texts] == [*drawn, "theory"]
    assert bars(figure.axes[0], "top_r", False).lines[0].get_xdata().tolist() == [2.5, 100.0, 1000.0]
    with pytest.raises(InputError, match="add count_sketch or top_r with a reduction"):
        FIGURES["lift_error"]({"rounds": rounds.assign(lift_error=np.nan, lift_error_theory=np.nan)})


def test_the_error_memory_is_drawn_over_the_update_where_there_is_one(full):
    axes = FIGURES["error_memory"](full).axes
    rows = row_of(full["rounds"], "fetch_sgd", True)
    rows = rows[(rows["reduction"] == 100.0) & (rows["error_norm"] > 0)]
    ratios = (rows["error_norm"] / rows["update_norm"]).groupby(rows["round"]).mean()
    line = line_of(axes[2], named("fetch_sgd", True))
    assert line.get_xdata().tolist() == ratios.index.tolist() == list(range(2, ROUNDS + 1))
    assert line.get_ydata() == pytest.approx(ratios.to_numpy())
    assert all("error feedback" in line.get_label() for ax in axes for line in ax.lines)
    with pytest.raises(InputError, match="no run has error feedback"):
        FIGURES["error_memory"]({"rounds": full["rounds"][~full["rounds"]["error_feedback"]]})
    with pytest.raises(InputError, match="empty in all rounds"):
        FIGURES["error_memory"]({"rounds": full["rounds"].assign(error_norm=0.0)})
