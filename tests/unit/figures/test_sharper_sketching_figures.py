"""Figures of sharper sketching: what all share, and accuracies at what was sent."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import same_color, to_rgb
from sketched_studies import CELL, FIGURES, bars, crosses, row_of, study
from synthetic_federation import (
    NAMED,
    runs_table,
)

from hessketch.errors import InputError
from hessketch.figures.sharper_sketching_marks import COLOURS, factor, named
from hessketch.studies.sharper_sketching import accuracy_table, mark_selected, of_cell

PANELS = {  # of the full study, of the small one
    "accuracy_against_reduction": (2, 2),
    "accuracy_against_bytes": (2, 2),
    "learning_rates": (7, 3),
    "accuracy_against_rounds": (4, 1),
    "loss_against_rounds": (4, 1),
    "lift_error": (2, 2),
    "error_memory": (4, 1),
    "spectra": (4, 2),  # half of them are the strips of eigenvalues
    "curvature_over_rounds": (6, 3),
}


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_has_labelled_panels_whose_texts_fit_and_leaves_its_tables_alone(name, full, small):
    for tables, panels in zip((full, small), PANELS[name], strict=True):
        before = {key: table.copy() for key, table in tables.items()}
        figure = FIGURES[name](tables)
        figure.draw_without_rendering()
        assert len(figure.axes) == panels
        labels = {ax.get_xlabel() for ax in figure.axes} | {ax.get_ylabel() for ax in figure.axes}
        assert len(labels - {""}) >= 2
        texts = [ax.title for ax in figure.axes] + [figure._suptitle] + figure.legends[0].get_texts()
        for text in texts + [ax.xaxis.label for ax in figure.axes] + [ax.yaxis.label for ax in figure.axes]:
            extent = text.get_window_extent()
            assert figure.bbox.x0 - 1 <= extent.x0 and extent.x1 <= figure.bbox.x1 + 1, text.get_text()
            assert figure.bbox.y0 - 1 <= extent.y0 and extent.y1 <= figure.bbox.y1 + 1, text.get_text()
        for key, table in tables.items():
            pd.testing.assert_frame_equal(table, before[key])


@pytest.mark.parametrize("name", FIGURES)
def test_the_heading_names_data_set_and_network_even_if_their_names_are_long(name):
    long = {"dataset": "fashion_mnist", "network": "resnet18_smooth", "norm": "group", "width": 0.0625}
    labelled = {"dataset": "fashion_mnist", "network": "resnet18_smooth-group-w0.0625"}
    tables = {key: table.assign(**{**long, **labelled}) for key, table in study((0,), (10.0,)).items()}
    figure = FIGURES[name](tables)
    figure.draw_without_rendering()
    assert figure.get_suptitle().startswith("Fashion-MNIST, ResNet18 (GELU), group norm, width 1/16")
    extent = figure._suptitle.get_window_extent()
    assert figure.bbox.x0 <= extent.x0 and extent.x1 <= figure.bbox.x1


@pytest.mark.parametrize(
    "name", ["accuracy_against_reduction", "learning_rates", "lift_error", "curvature_over_rounds"]
)
def test_rows_of_two_networks_are_refused(name, full):
    mixed = {key: pd.concat([table, table.assign(network="vgg11-group-w1")]) for key, table in full.items()}
    with pytest.raises(InputError, match=r"several values of network \(mlp-none-w1, vgg11-group-w1\)"):
        FIGURES[name](mixed)


@pytest.mark.parametrize(
    ("figure", "columns"),
    [
        ("accuracy_against_reduction", ("reduction", "reduction_numbers")),
        ("accuracy_against_bytes", ("upload_mib", "total_mib")),
    ],
)
def test_accuracies_stand_at_what_was_sent_with_their_standard_errors(full, figure, columns):
    table = full["accuracy"].assign(total_mib=lambda t: t["upload_mib"] + t["download_mib"])
    axes = FIGURES[figure](full).axes
    for ax, column in zip(axes, columns, strict=True):
        assert ax.get_xscale() == "log"
        assert same_color(ax.lines[-1].get_color(), COLOURS["count_sketch"])  # the crosses of the diverged
        for method, error_feedback in NAMED[1:]:
            rows = row_of(table, method, error_feedback).dropna(subset=["test_accuracy"]).sort_values(column)
            container = bars(ax, method, error_feedback)
            line = container.lines[0]
            assert line.get_xdata().tolist() == rows[column].tolist()
            assert line.get_ydata().tolist() == (100 * rows["test_accuracy"]).tolist()
            ends = np.array(container.lines[2][0].get_segments())[:, :, 1]
            half = 100 * rows["test_accuracy_standard_error"]
            assert (ends[:, 1] - ends[:, 0]).tolist() == pytest.approx((2 * half).tolist())
            assert line.get_linestyle() == ("--" if error_feedback else "-")
            assert same_color(line.get_markerfacecolor(), "white" if error_feedback else COLOURS[method])
    assert axes[0].get_ylabel() == "test accuracy (%)"


def test_uncompressed_is_a_line_with_a_band_and_in_bytes_a_point(full, small):
    row = row_of(full["accuracy"], "uncompressed", False).iloc[0]
    for name in ("accuracy_against_reduction", "accuracy_against_bytes"):
        for ax in FIGURES[name](full).axes:
            [level] = [line.get_ydata()[0] for line in ax.lines if list(line.get_xdata()) == [0, 1]]
            assert level == 100 * row["test_accuracy"]
            [band] = ax.patches
            half = 100 * row["test_accuracy_standard_error"]
            assert (band.get_y(), band.get_height()) == pytest.approx((level - half, 2 * half))
        assert not FIGURES[name](small).axes[0].patches
    points = [line for line in FIGURES["accuracy_against_bytes"](full).axes[0].lines if line.get_marker() == "D"]
    assert [list(point.get_xdata()) for point in points] == [[row["upload_mib"]]]


def test_a_method_that_diverged_everywhere_is_a_cross_below_all_points(full, small):
    figure = FIGURES["accuracy_against_reduction"](full)
    for ax, place in zip(figure.axes, (1000.0, 6400 / 6), strict=True):
        assert crosses(ax) == {to_rgb(COLOURS["count_sketch"]): [place]}
        bottom, top = ax.get_ylim()
        height = bottom + 0.08 * (top - bottom)
        least = full["accuracy"][["test_accuracy", "test_accuracy_standard_error"]].dropna()
        assert 100 * (least["test_accuracy"] - least["test_accuracy_standard_error"]).min() > height
    assert "diverged" in [text.get_text() for text in figure.legends[0].texts]
    figure = FIGURES["accuracy_against_reduction"](small)
    assert not any(crosses(ax) for ax in figure.axes)
    assert "diverged" not in [text.get_text() for text in figure.legends[0].texts]


def accuracies(runs):
    """The accuracy table of these runs, as a figure takes it."""
    return {"accuracy": of_cell(accuracy_table(mark_selected(runs)), *CELL)}


def test_the_axis_of_nominal_reductions_says_so(full):
    labels = [ax.get_xlabel() for ax in FIGURES["accuracy_against_reduction"](full).axes]
    assert labels == ["dimension reduction (nominal, by bytes)", "dimension reduction, by numbers"]
    assert {ax.get_xlabel() for ax in FIGURES["lift_error"](full).axes} == {"dimension reduction (nominal, by bytes)"}


def test_a_seed_that_diverged_at_the_selected_rate_is_a_cross_under_its_point():
    runs = runs_table((0, 1), (10.0,), NAMED[:2], rates=(0.1,))
    lost = (runs["method"] == "count_sketch") & (runs["seed"] == 1)
    runs.loc[lost, "status"], runs.loc[lost, "test_accuracy"] = "diverged", np.nan
    ax = FIGURES["accuracy_against_reduction"](accuracies(runs)).axes[0]
    assert crosses(ax) == {to_rgb(COLOURS["count_sketch"]): [10.0]}
    assert len(bars(ax, "count_sketch", False).lines[0].get_xdata()) == 1


def test_if_uncompressed_diverged_the_legend_says_so():
    runs = runs_table((0,), (10.0,), NAMED[:2])
    lost = runs["method"] == "uncompressed"
    runs.loc[lost, "status"], runs.loc[lost, "test_accuracy"] = "diverged", np.nan
    tables = accuracies(runs)
    for name in ("accuracy_against_reduction", "accuracy_against_bytes"):
        figure = FIGURES[name](tables)
        assert "uncompressed: all diverged" in [text.get_text() for text in figure.legends[0].texts]
        figure.draw_without_rendering()


@pytest.mark.parametrize("name", ["accuracy_against_reduction", "accuracy_against_bytes"])
def test_uncompressed_alone_is_no_figure_of_reductions(full, name):
    with pytest.raises(InputError, match=r"uncompressed runs alone; add methods"):
        FIGURES[name]({"accuracy": row_of(full["accuracy"], "uncompressed", False)})


def test_learning_rates_have_a_line_a_reduction_with_rings_and_crosses(full):
    figure = FIGURES["learning_rates"](full)
    axes = {ax.get_title(): ax for ax in figure.axes}
    assert list(axes) == [named(*method) for method in NAMED]
    ax = axes["Count-Sketch"]
    rows = row_of(full["runs"], "count_sketch", False)
    rows = rows[rows["status"] == "finished"]
    means = 100 * rows.groupby(["reduction", "learning_rate"])["test_accuracy"].mean()
    for container, reduction in zip(ax.containers, (2.5, 10.0, 100.0, 1000.0), strict=True):
        assert container.lines[0].get_ydata() == pytest.approx(means[reduction].to_numpy())
    rings = [line for line in ax.lines if line.get_marker() == "o"]
    assert [ring.get_xdata().tolist() for ring in rings] == [[0.1]] * 4
    assert [ring.get_ydata()[0] for ring in rings] == pytest.approx([means[r, 0.1] for r in (2.5, 10, 100, 1000)])
    assert list(crosses(ax).values()) == [[0.3]]
    assert list(crosses(axes["Count-Sketch, error feedback"]).values()) == [[0.03, 0.1, 0.3]]
    assert len({ax.get_ylim() for ax in figure.axes}) == 1
    assert [t.get_text() for t in figure.legends[0].texts][:4] == [
        factor(reduction) for reduction in (2.5, 10.0, 100.0, 1000.0)
    ]
