"""Figures of sharper sketching of spectra, and the words that its figures share."""

import json
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import same_color, to_rgb
from sketched_studies import FIGURES, TIMES
from synthetic_federation import (
    COMPARED,
    curvature_table,
    equal_loss_spectra,
    rounds_table,
    runs_table,
    trainer_columns,
)

from hessketch.errors import InputError
from hessketch.figures import sharper_sketching_spectra
from hessketch.figures.sharper_sketching_marks import COLOURS, evenly, factor, named, ticks_at
from hessketch.figures.style import new_figure, styled
from hessketch.records import write_table
from hessketch.studies.sharper_sketching import accuracy_table, equal_loss, learning_rates, mark_selected
from hessketch.studies.sharper_sketching_constants import table1

NOTEBOOK = Path(__file__).parents[3] / "notebooks/sharper_sketching.ipynb"


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
