"""Figures of sketched training draw the numbers of their tables, and say what is missing; warnings are errors."""

import json
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import same_color, to_rgb
from synthetic_federation import (
    COMPARED,
    NAMED,
    ROUNDS,
    curvature_table,
    equal_loss_spectra,
    rounds_table,
    runs_table,
    trainer_columns,
)

from hessketch.errors import InputError
from hessketch.figures import sharper_sketching_accuracy, sharper_sketching_rounds, sharper_sketching_spectra
from hessketch.figures.sharper_sketching_marks import COLOURS, NAMES, evenly, factor, named, ticks_at
from hessketch.figures.style import new_figure, styled
from hessketch.records import write_table
from hessketch.studies.sharper_sketching import accuracy_table, equal_loss, learning_rates, mark_selected, of_cell
from hessketch.studies.sharper_sketching_constants import table1

pytestmark = pytest.mark.filterwarnings("error")
TIMES = "\N{MULTIPLICATION SIGN}"
CELL = ("digits", "mlp-none-w1", "cross_entropy")
NOTEBOOK = Path(__file__).parents[3] / "notebooks/sharper_sketching.ipynb"


def study(seeds, reductions, named=NAMED, compared=COMPARED, splits=("train", "test"), **identity):
    """All tables of a study of one cell, as a figure takes them."""
    runs = mark_selected(runs_table(seeds, reductions, named, **identity))
    curvature = curvature_table(seeds, compared)
    curvature = curvature[curvature["split"].isin(splits)]
    density, eigenvalues = equal_loss_spectra(equal_loss(curvature))
    tables = {"runs": runs, "accuracy": accuracy_table(runs), "rounds": rounds_table(runs)}
    tables |= {"curvature": curvature, "density": density, "eigenvalues": eigenvalues}
    return {name: of_cell(table.assign(**identity), *CELL) for name, table in tables.items()}


@pytest.fixture(scope="module")
def full():
    return study((0, 1, 2), (2.5, 10.0, 100.0, 1000.0))


@pytest.fixture(scope="module")
def small():
    """One seed, one reduction, two methods, the train split."""
    return study((0,), (10.0,), NAMED[:3], COMPARED[:2], ("train",))


FIGURES = {
    "accuracy_against_reduction": lambda t: sharper_sketching_accuracy.accuracy_against_reduction(t["accuracy"]),
    "accuracy_against_bytes": lambda t: sharper_sketching_accuracy.accuracy_against_bytes(t["accuracy"]),
    "learning_rates": lambda t: sharper_sketching_accuracy.learning_rates(t["runs"]),
    "accuracy_against_rounds": lambda t: sharper_sketching_rounds.accuracy_against_rounds(t["rounds"]),
    "loss_against_rounds": lambda t: sharper_sketching_rounds.loss_against_rounds(t["rounds"]),
    "lift_error": lambda t: sharper_sketching_rounds.lift_error(t["rounds"]),
    "error_memory": lambda t: sharper_sketching_rounds.error_memory(t["rounds"]),
    "spectra": lambda t: sharper_sketching_spectra.spectra(t["density"], t["eigenvalues"]),
    "curvature_over_rounds": lambda t: sharper_sketching_spectra.curvature_over_rounds(t["curvature"]),
}
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
BANDS = {"accuracy_against_rounds", "loss_against_rounds", "curvature_over_rounds", "spectra"}


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


def row_of(table, method, error_feedback):
    return table[(table["method"] == method) & (table["error_feedback"] == error_feedback)]


def bars(ax, method, error_feedback):
    """The container that errorbar drew for a method."""
    [container] = [c for c in ax.containers if c.get_label() == named(method, error_feedback)]
    return container


def crosses(ax):
    """Places of the crosses by colour."""
    lines = [line for line in ax.lines if line.get_marker() == "x"]
    return {to_rgb(line.get_color()): list(line.get_xdata()) for line in lines if len(line.get_xdata())}


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


def test_spectra_draw_a_line_a_trainer_of_the_first_seed_and_a_row_of_its_eigenvalues(full):
    figure = FIGURES["spectra"](full)
    tops, strips = figure.axes[:2], figure.axes[2:]
    assert "equal training loss 1, $p$ = 6,400" in figure.get_suptitle()
    assert [ax.get_title() for ax in tops] == ["train, $n$ = 800", "test, $n$ = 200"]
    for top, strip, split in zip(tops, strips, ("train", "test"), strict=True):
        assert top.get_yscale() == "log" and strip.get_xlabel() == "eigenvalue"
        for i, trainer in enumerate(COMPARED):
            of = {"trainer": trainer["trainer"], "split": split, "seed": 0}
            curves = full["density"][~full["density"]["deflated"]]
            curve = curves[np.logical_and.reduce([curves[k] == v for k, v in of.items()])]
            assert top.lines[i].get_xdata().tolist() == curve["eigenvalue"].tolist()
            assert top.lines[i].get_ydata().max() == curve["density"].max()
            assert top.lines[i].get_linestyle() == ("--" if trainer["error_feedback"] else "-")
            marks = full["eigenvalues"]
            marks = marks[np.logical_and.reduce([marks[k] == v for k, v in of.items()])]
            assert strip.lines[i].get_xdata().tolist() == marks["eigenvalue"].tolist()
            assert set(strip.lines[i].get_ydata()) == {-i}
            assert same_color(strip.lines[i].get_color(), top.lines[i].get_color())
    legend = [text.get_text() for text in figure.legends[0].texts]
    names = [named(t["method"], t["error_feedback"], t["reduction"]) for t in COMPARED]
    assert [text.split(" (")[0] for text in legend] == names
    assert all(re.fullmatch(r".* \(rate 0\.[0-9]+, loss 0\.98\)", text) for text in legend)
    first, second = tops[0].lines[1].get_color(), tops[0].lines[2].get_color()
    assert same_color(first, COLOURS["count_sketch"]) and sum(to_rgb(second)) > sum(to_rgb(first))


def test_the_legend_of_spectra_has_the_loss_of_each_network_of_the_seed_drawn(full):
    losses = {trainer["trainer"]: 0.9 + 0.0123 * i for i, trainer in enumerate(COMPARED)}
    density = full["density"].assign(train_loss=full["density"]["trainer"].map(losses) - 0.1 * full["density"]["seed"])
    texts = [text.get_text() for text in FIGURES["spectra"]({**full, "density": density}).legends[0].texts]
    assert [text.split(", loss ")[1] for text in texts] == ["0.9)", "0.912)", "0.925)", "0.937)"]
    rates = full["density"].groupby("trainer")["learning_rate"].first()
    assert [text.split("(rate ")[1].split(",")[0] for text in texts] == [f"{rates[name]:.3g}" for name in losses]


def test_spectra_without_eigenvalues_have_no_strips(full):
    figure = FIGURES["spectra"]({**full, "eigenvalues": full["eigenvalues"].iloc[:0]})
    assert len(figure.axes) == 2 and figure.axes[0].get_xlabel() == "eigenvalue"


def test_spectra_need_one_common_loss(full):
    with pytest.raises(InputError, match="reached no common one"):
        sharper_sketching_spectra.spectra(full["density"].iloc[:0], full["eigenvalues"].iloc[:0])
    with pytest.raises(InputError, match="reached no common one"):
        sharper_sketching_spectra.spectra(pd.DataFrame(), pd.DataFrame())
    other = full["density"].assign(target_loss=np.where(full["density"]["method"] == "top_r", 0.5, 1.0))
    with pytest.raises(InputError, match=r"training losses 0\.5, 1\.0; allowed: one"):
        sharper_sketching_spectra.spectra(other, full["eigenvalues"])


def test_curvature_over_rounds_draws_the_means_of_round_checkpoints_alone(full):
    figure = FIGURES["curvature_over_rounds"](full)
    rows = full["curvature"][full["curvature"]["kind"] == "round"]
    for axes, column in zip(np.reshape(figure.axes, (3, 2)), ("largest_eigenvalue", "trace", "kappa"), strict=True):
        for ax, split in zip(axes, ("train", "test"), strict=True):
            for line, trainer in zip(ax.lines, COMPARED, strict=True):
                here = rows[(rows["split"] == split) & (rows["trainer"] == trainer["trainer"])]
                means = here.groupby("round")[column].mean()
                assert line.get_xdata().tolist() == means.index.tolist() == [0, 5, 10, 20, 40]
                assert line.get_ydata() == pytest.approx(means.to_numpy())
            assert len(ax.collections) == len(COMPARED)


def test_with_one_seed_the_band_is_the_standard_error_of_the_estimate(small):
    largest, trace, _ = FIGURES["curvature_over_rounds"](small).axes
    assert not largest.collections
    rows = small["curvature"].query("kind == 'round' and round == 0 and method == 'uncompressed'")
    vertices = trace.collections[0].get_paths()[0].vertices
    ends = vertices[vertices[:, 0] == 0][:, 1]
    value, error = rows["trace"].item(), rows["trace_standard_error"].item()
    assert (ends.min(), ends.max()) == pytest.approx((value - error, value + error))


def test_curvature_with_a_negative_trace_has_a_linear_axis(full):
    rows = full["curvature"].assign(trace=-1.0)
    largest, _, trace, *_ = FIGURES["curvature_over_rounds"]({"curvature": rows}).axes
    assert (largest.get_yscale(), trace.get_yscale()) == ("log", "linear")


def test_curvature_without_round_checkpoints_is_refused(full):
    loss_only = full["curvature"][full["curvature"]["kind"] == "loss"]
    for table in (loss_only, loss_only.iloc[:0], pd.DataFrame()):
        with pytest.raises(InputError, match="no checkpoint of a round"):
            FIGURES["curvature_over_rounds"]({"curvature": table})


@pytest.mark.parametrize("name", ["accuracy_against_reduction", "learning_rates", "loss_against_rounds"])
def test_an_empty_table_is_refused(full, name):
    with pytest.raises(InputError, match="the table has no rows"):
        FIGURES[name]({key: table.iloc[:0] for key, table in full.items()})


def test_evenly_chosen_values_hold_both_ends():
    assert evenly([3, 1, 2, 2], 6) == [1, 2, 3]
    assert evenly(range(9), 3) == [0, 4, 8]
    assert evenly([5.0], 6) == [5.0]


@styled
def test_ticks_whose_labels_would_touch_are_left_out():
    ax = new_figure(3, 2).subplots()
    ax.set(xscale="log", xlim=(1, 1000))
    ticks_at(ax.xaxis, [2.5, 1, 1000, 2, 100, 900])
    assert ax.get_xticks().tolist() == [1, 2.5, 100, 900]


def test_reductions_are_written_as_factors():
    assert [factor(value) for value in (2.5, 10.0, 1000.0)] == [f"2.5{TIMES}", f"10{TIMES}", f"1000{TIMES}"]


def notebook_cells():
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells)
    return ["".join(cell["source"]).replace("%matplotlib inline", "") for cell in cells if cell["cell_type"] == "code"]


@pytest.mark.parametrize("curvature", [True, False])
def test_the_notebook_runs_on_one_network_and_on_several_with_and_without_curvature(tmp_path, monkeypatch, curvature):
    runs = runs_table((0, 1), (10.0, 100.0))
    if curvature:
        runs = pd.concat([runs, runs_table((0, 1), (10.0,), network="vgg11", norm="group")], ignore_index=True)
    runs = mark_selected(runs)
    checkpoints = curvature_table((0, 1))
    density, eigenvalues = equal_loss_spectra(equal_loss(checkpoints))
    tables = {"curvature": checkpoints, "density": density, "eigenvalues": eigenvalues}
    tables = {name: table if curvature else table.iloc[:0] for name, table in tables.items()}
    tables |= {"runs": runs, "rounds": rounds_table(runs), "learning_rates": learning_rates(runs)}
    tables["accuracy"] = accuracy_table(runs)
    tables["table1"] = table1(runs, tables["curvature"])
    for name, table in tables.items():
        write_table(table, tmp_path / f"sharper_sketching/{name}.parquet")
    monkeypatch.setenv("HESSKETCH_RESULTS", str(tmp_path))
    shown = []
    monkeypatch.setattr("IPython.display.display", shown.append)
    names = SimpleNamespace(values={})
    for source in notebook_cells():
        exec(compile(source, NOTEBOOK.name, "exec"), names.values)
    assert len(shown) == (6 if curvature else 4)
    for figure in [*shown, names.values["figure"]]:
        figure.draw_without_rendering()
    assert names.values["first"]["train_loss"].le(names.values["target"]).all()


def test_a_trainer_is_named_with_its_reduction():
    assert named("count_sketch", True, 2.5) == f"Count-Sketch, error feedback, 2.5{TIMES}"
    assert named("uncompressed", False) == "uncompressed"
    assert trainer_columns("count_sketch", True, 2.5)["trainer"] == "count_sketch_ef-x2.5"
