"""Figures of predictor Hessians draw the numbers of their tables, and say what is missing; warnings are errors."""

import json
import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import same_color
from synthetic_predictors import LOSSES, TRAINERS, P, density_of, epochs, rounds, row

from hessketch.errors import InputError
from hessketch.figures.predictor_hessian_density import density_over_epochs, density_over_rounds
from hessketch.figures.predictor_hessian_kappa import kappa_over_epochs, kappa_over_rounds
from hessketch.figures.predictor_hessian_marks import ESTIMATORS, counted
from hessketch.figures.sharper_sketching_marks import COLOURS
from hessketch.records import write_table
from hessketch.runs import IDENTITY
from hessketch.studies.predictor_hessian import joined, kappa_over_time, of_cell
from hessketch.studies.sharper_sketching import TRAINER

pytestmark = pytest.mark.filterwarnings("error")
CELL = ("digits", "mlp-none-w1")
ROOT = Path(__file__).parents[3]
NOTEBOOK = ROOT / "notebooks/predictor_hessian.ipynb"


def study(kappa, cell=CELL):
    """The tables of one cell, as figures take them."""
    tables = {"kappa": kappa, "density": density_of(kappa), "over_time": kappa_over_time(kappa)}
    return {name: of_cell(table, *cell) for name, table in tables.items()}


@pytest.fixture(scope="module")
def full():
    return study(pd.concat([epochs(times=(0, 50, 100, 200, 400, 800, 1000)), rounds()], ignore_index=True))


@pytest.fixture(scope="module")
def small():
    """One loss, one example, one seed, one time, one trainer, the estimator fast alone."""
    alone = {"seeds": (0,), "examples": (0,), "times": (100,)}
    of_epochs = epochs(**alone, losses=LOSSES[:1], estimators=("fast",))
    return study(pd.concat([of_epochs, rounds(**alone, trainers=TRAINERS[:1])], ignore_index=True))


FIGURES = {
    "density_over_epochs": lambda t: density_over_epochs(t["density"], t["kappa"]),
    "kappa_over_epochs": lambda t: kappa_over_epochs(t["over_time"]),
    "density_over_rounds": lambda t: density_over_rounds(t["density"], t["kappa"]),
    "kappa_over_rounds": lambda t: kappa_over_rounds(t["over_time"]),
}
PANELS = dict(zip(FIGURES, ((12, 1), (2, 1), (3, 1), (2, 2)), strict=True))  # of the full study, of the small one


def require_texts_apart(figure):
    """Texts lie inside the figure, and titles beside one another do not touch."""
    figure.draw_without_rendering()
    titles = [ax.title.get_window_extent() for ax in figure.axes]
    texts = [label for ax in figure.axes for label in (ax.xaxis.label, ax.yaxis.label)]
    texts += [figure._suptitle, *figure.legends[0].get_texts()]
    for extent in [*titles, *(text.get_window_extent() for text in texts)]:
        assert figure.bbox.x0 - 1 <= extent.x0 and extent.x1 <= figure.bbox.x1 + 1, extent
        assert figure.bbox.y0 - 1 <= extent.y0 and extent.y1 <= figure.bbox.y1 + 1, extent
    for i, one in enumerate(titles):
        assert not any(one.overlaps(other) for other in titles[i + 1 :])


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_has_labelled_panels_whose_texts_fit_and_leaves_its_tables_alone(name, full, small):
    for tables, panels in zip((full, small), PANELS[name], strict=True):
        before = {key: table.copy() for key, table in tables.items()}
        figure = FIGURES[name](tables)
        assert len(figure.axes) == panels
        assert all(ax.get_xlabel() for ax in figure.axes) and figure.axes[0].get_ylabel()
        require_texts_apart(figure)
        for key, table in tables.items():
            pd.testing.assert_frame_equal(table, before[key])


@pytest.mark.parametrize("name", FIGURES)
def test_long_names_and_small_slopes_fit_too(name):
    long = {"dataset": "fashion_mnist", "network": "resnet18_smooth", "norm": "group", "width": 0.0625}
    tiny = epochs(times=(0, 200, 400, 600, 800, 1000), slope=-1.234e-12, **long)
    kappa = pd.concat([tiny, rounds(times=(0, 10, 20, 40, 80, 160), **long)]).assign(p=11_169_344)
    figure = FIGURES[name](study(kappa, ("fashion_mnist", "resnet18_smooth-group-w0.0625")))
    require_texts_apart(figure)
    assert figure.get_suptitle().startswith("Fashion-MNIST, ResNet18 (GELU), group norm, width 1/16\n")
    texts = [figure.get_suptitle(), figure.axes[0].get_title(), *(text.get_text() for text in figure.axes[0].texts)]
    [text] = [text for text in texts if "$p$" in text]
    assert "$p$ = 11,169,344" in text


@pytest.mark.parametrize("name", FIGURES)
def test_rows_of_two_networks_are_refused(name, small):
    mixed = {key: pd.concat([table, table.assign(network="vgg11-group-w1")]) for key, table in small.items()}
    with pytest.raises(InputError, match=r"several values of network \(mlp-none-w1, vgg11-group-w1\)"):
        FIGURES[name](mixed)


@pytest.mark.parametrize("name", FIGURES)
def test_a_kind_that_was_not_measured_is_refused(name, full):
    other = "round" if name.endswith("epochs") else "epoch"
    raw = {"density": joined([], "density"), "kappa": joined([], "kappa")}
    none = {**raw, "over_time": kappa_over_time(raw["kappa"])}
    for tables in ({key: table[table["kind"] == other] for key, table in full.items()}, none):
        with pytest.raises(InputError, match=r"no checkpoint of an? (epoch|round) was measured"):
            FIGURES[name](tables)


def curve_of(tables, **values):
    return tables["density"].set_index(list(values)).sort_index().loc[[tuple(values.values())]]


def test_densities_over_epochs_are_those_of_the_first_example_and_seed_by_both_estimators(full):
    figure = FIGURES["density_over_epochs"](full)
    times = (0, 50, 100, 400, 800, 1000)  # six of seven, evenly chosen
    assert "training example 0, label 0, $p$ = 5,000" in figure.get_suptitle()
    for line, loss in zip(np.reshape(figure.axes, (2, 6)), LOSSES, strict=True):
        for ax, time in zip(line, times, strict=True):
            assert ax.get_title() == f"epoch {time}\n$\\ell$ = $0.25$, $\\ell'$ = $0.5$"
            assert ax.get_yscale() == "log" and ax.get_xlabel() == "eigenvalue"
            for drawn, estimator in zip(ax.lines, ("paper", "fast"), strict=True):
                curve = curve_of(full, kind="epoch", loss=loss, time=time, estimator=estimator, example=0, seed=0)
                assert drawn.get_xdata().tolist() == curve["eigenvalue"].tolist()
                assert drawn.get_ydata().max() == curve["density"].max()
                assert same_color(drawn.get_color(), ESTIMATORS[estimator]["color"])
    assert [ax.get_ylabel() for ax in figure.axes[::6]] == [
        "binary cross-entropy\nSGD, full batch, rate 0.1\nspectral density",
        "mean squared error\nSGD, full batch, rate 0.1\nspectral density",
    ]


def test_losses_with_other_epochs_and_examples_have_rows_of_their_own():
    kappa = pd.concat([epochs((0,), (0,), (0, 10, 20), LOSSES[:1]), epochs((0,), (1,), (5, 15), LOSSES[1:])])
    figure = FIGURES["density_over_epochs"](study(kappa))
    assert [ax.get_title().split("\n")[0] for ax in figure.axes] == [f"epoch {t}" for t in (0, 10, 20, 5, 15)]
    assert "of one training example" in figure.get_suptitle()
    named = [ax.get_ylabel().split("\n")[2] for ax in (figure.axes[0], figure.axes[3])]
    assert named == ["example 0, label 0", "example 1, label 1"]


def test_a_slope_of_several_outputs_is_not_said_and_small_numbers_have_powers_of_ten():
    figure = FIGURES["density_over_epochs"](study(epochs((0,), (0,), (0,), LOSSES[:1], slope=np.nan)))
    assert figure.axes[0].get_title() == "epoch 0\n$\\ell$ = $0.25$"
    figure = FIGURES["density_over_epochs"](study(epochs((0,), (0,), (0,), LOSSES[:1], slope=-2.5e-7)))
    assert figure.axes[0].get_title().endswith("$\\ell'$ = $-2.5{\\cdot}10^{-7}$")


def test_a_hessian_of_zero_has_a_panel_without_a_curve_and_no_kappa():
    rows = [row(time=time, slope=slope, estimator=name) for time, slope in ((0, 1.0), (9, 0.0)) for name in ESTIMATORS]
    tables = study(pd.DataFrame(rows))
    drawn, empty = FIGURES["density_over_epochs"](tables).axes
    assert (len(drawn.lines), len(empty.lines)) == (2, 0)
    assert [text.get_text() for text in empty.texts] == ["no density"]
    [ax] = FIGURES["kappa_over_epochs"](tables).axes
    assert all(list(line.get_xdata()) == [0] for line in ax.lines if line.get_marker() in ("o", "."))


def test_densities_over_rounds_are_divided_by_the_largest_magnitude(full):
    figure = FIGURES["density_over_rounds"](full)
    assert [ax.get_title() for ax in figure.axes] == ["round 0", "round 10", "round 40"]
    assert len({(ax.get_xlim(), ax.get_ylim()) for ax in figure.axes}) == 1
    for ax, time in zip(figure.axes, (0, 10, 40), strict=True):
        for drawn, trainer in zip(ax.lines, TRAINERS, strict=True):
            curve = curve_of(full, kind="round", trainer=trainer, time=time, example=0, seed=0)
            assert drawn.get_xdata() == pytest.approx(curve["eigenvalue"].to_numpy() / 2)
            assert drawn.get_ydata().max() == pytest.approx(2 * curve["density"].max())
            assert drawn.get_linestyle() == ("--" if "_ef" in trainer else "-")
    assert same_color(figure.axes[0].lines[1].get_color(), COLOURS["count_sketch"])


def lines_of(ax):
    """Lines of a panel of kappas by marker and style."""
    return {(line.get_marker(), line.get_linestyle()): line for line in ax.lines}


def test_kappas_over_epochs_stand_with_the_smoothed_ones_their_floor_and_p(full):
    figure = FIGURES["kappa_over_epochs"](full)
    for ax, loss in zip(figure.axes, LOSSES, strict=True):
        rows = full["over_time"].query("kind == 'epoch'").set_index("loss").loc[loss].set_index("estimator")
        paper, fast, smoothed, floor, p = (
            lines_of(ax)[key] for key in (("o", "-"), (".", "-"), ("x", "--"), ("None", ":"), ("None", "-."))
        )
        assert paper.get_ydata().tolist() == rows.loc["paper", "kappa"].tolist()
        assert paper.get_xdata().tolist() == [0, 50, 100, 200, 400, 800, 1000]
        assert fast.get_ydata().tolist() == rows.loc["fast", "kappa"].tolist()
        assert smoothed.get_ydata().tolist() == rows.loc["paper", "kappa_smoothed"].tolist()
        bars = [line.get_ydata().tolist() for line in ax.lines if line.get_marker() == "_"]
        assert bars == [rows.loc[name, "kappa_lower"].tolist() for name in ("paper", "fast")]
        assert set(floor.get_ydata()) == {15.0} and set(p.get_ydata()) == {P}
        assert [text.get_text() for text in ax.texts] == ["$p$ = 5,000"]
        bottom, top = ax.get_ylim()
        assert ax.get_yscale() == "log" and bottom < rows["kappa"].min() and top > P
    assert figure.get_suptitle().endswith("means over 3 examples, 2 seeds")


def ends_of(ax, place, at):
    """Lower and upper end of a band at one time."""
    vertices = ax.collections[place].get_paths()[0].vertices
    ends = vertices[np.isclose(vertices[:, 0], at)][:, 1]
    return ends.min(), ends.max()


def test_bands_are_standard_errors_over_rows_and_of_the_estimate_where_there_is_one_row(full):
    found = full["over_time"].query("kind == 'epoch' and estimator == 'paper' and time == 100").iloc[0]
    error = found["kappa_standard_error"]
    ends = ends_of(FIGURES["kappa_over_epochs"](full).axes[0], 0, 100)
    assert ends == pytest.approx((found["kappa"] - error, found["kappa"] + error))
    alone = study(epochs((0,), (0,)))
    found = alone["over_time"].query("estimator == 'paper' and time == 100").iloc[0]
    figure = FIGURES["kappa_over_epochs"](alone)
    assert ends_of(figure.axes[0], 0, 100) == pytest.approx((found["kappa"] - 0.3, found["kappa"] + 0.3))
    assert figure.get_suptitle().endswith("over epochs, one example")


def test_an_estimator_that_was_not_run_is_neither_drawn_nor_in_the_legend(small):
    figure = FIGURES["kappa_over_epochs"](small)
    named = [r"$\kappa$, fast", "lower bound of the same vectors", "$p$"]
    assert [text.get_text() for text in figure.legends[0].texts] == named
    assert [text.get_text() for text in FIGURES["density_over_epochs"](small).legends[0].texts] == ["fast"]


def test_kappas_over_rounds_are_a_line_a_trainer_with_its_rate(full):
    kappa = rounds()
    kappa.loc[kappa["method"] == "top_r", "learning_rate"] = 0.03
    tables = study(kappa)
    figure = FIGURES["kappa_over_rounds"](tables)
    for line, trainer in zip(figure.axes[0].lines, TRAINERS, strict=True):
        rows = tables["over_time"].set_index("trainer").loc[trainer]
        assert line.get_xdata().tolist() == [0, 10, 40]
        assert line.get_ydata().tolist() == rows["kappa"].tolist()
    for line, trainer in zip(figure.axes[1].lines, TRAINERS, strict=True):
        rows = tables["over_time"].set_index("trainer").loc[trainer]
        assert line.get_xdata().tolist() == rows["train_loss"].tolist()
        assert line.get_ydata().tolist() == rows["kappa"].tolist()
    assert figure.axes[1].xaxis_inverted() and figure.axes[1].get_xlabel() == "training loss"
    texts = [text.get_text() for text in figure.legends[0].texts]
    assert texts[0] == "uncompressed (rate 0.1)" and texts[-1].endswith("(rate 0.03)")
    assert "$p$ = 5,000" in figure.axes[0].get_title() and "2 examples, 2 seeds" in figure.get_suptitle()


def test_the_rates_of_one_trainer_are_never_mixed_into_a_line():
    tables = study(pd.concat([rounds(), rounds(learning_rate=0.3)], ignore_index=True))
    for name in ("density_over_rounds", "kappa_over_rounds"):
        with pytest.raises(InputError, match=r"rows of several learning rates \(0\.1, 0\.3\)"):
            FIGURES[name](tables)


def test_many_trainers_in_the_legend_leave_the_panels_their_height():
    many = [f"{name}-x{reduction}" for name in ("count_sketch", "top_r", "top_r_ef") for reduction in (10, 100, 1000)]
    for name in ("density_over_rounds", "kappa_over_rounds"):
        few, all_of_them = (FIGURES[name](study(rounds((0,), trainers=chosen))) for chosen in (many[:2], many))
        for figure in (few, all_of_them):
            require_texts_apart(figure)
        heights = [figure.axes[0].get_window_extent().height / figure.dpi for figure in (few, all_of_them)]
        assert heights[1] > 0.85 * heights[0] > 1.0


def test_counts_are_ranges_where_they_differ():
    assert [counted(pd.DataFrame({"seeds": n}), "seeds", "seed") for n in ([1, 3], [1])] == ["1 to 3 seeds", "1 seed"]


def write_study(folder, kappa):
    tables = {"kappa": kappa, "density": density_of(kappa), "kappa_over_time": kappa_over_time(kappa)}
    runs = kappa[[*IDENTITY, *TRAINER]].drop_duplicates().assign(status="finished")
    for name, table in {**tables, "runs": runs}.items():
        write_table(table, folder / f"{name}.parquet")


def test_the_script_draws_a_figure_and_says_where_there_is_nothing_to_draw(tmp_path):
    write_study(tmp_path, epochs((0,), (0,), (0,)))
    script = runpy.run_path(str(ROOT / "workflow/scripts/plot_predictor_hessian.py"))
    for name, drawn in (("kappa_over_epochs", True), ("kappa_over_rounds", False)):
        paths, said = [tmp_path / f"{name}.{suffix}" for suffix in ("pdf", "png")], []
        words = [name, "--tables", tmp_path, "--dataset", CELL[0], "--network", CELL[1]]
        words += ["--pdf", paths[0], "--png", paths[1]]
        script["plot"](script["parser"].parse_args([*map(str, words)]), SimpleNamespace(say=said.append))
        assert all(path.stat().st_size > 1000 for path in paths)
        assert any("nothing to draw" in line for line in said) != drawn
        assert any(f"drew {name}" in line for line in said) == drawn


def notebook_cells():
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells)
    return ["".join(cell["source"]).replace("%matplotlib inline", "") for cell in cells if cell["cell_type"] == "code"]


@pytest.mark.parametrize(
    ("kappa", "figures", "sentences"),
    [
        (pd.concat([epochs(), rounds()], ignore_index=True), 4, []),
        (epochs(estimators=("fast",)), 2, ["no smoothed estimate", "no federated checkpoints"]),
        (rounds(seeds=(0,)), 2, ["no trajectory", "no smoothed estimate"]),
    ],
)
def test_the_notebook_runs_with_either_kind_and_skips_what_is_missing(
    tmp_path, monkeypatch, capsys, kappa, figures, sentences
):
    write_study(tmp_path / "predictor_hessian", kappa)
    monkeypatch.setenv("HESSKETCH_RESULTS", str(tmp_path))
    shown, names = [], {}
    monkeypatch.setattr("IPython.display.display", shown.append)
    for source in notebook_cells():
        exec(compile(source, NOTEBOOK.name, "exec"), names)
    assert sum(hasattr(one, "draw_without_rendering") for one in shown) == figures
    printed = capsys.readouterr().out
    skipped = [s for s in ("no trajectory", "no smoothed estimate", "no federated checkpoints") if s in printed]
    assert skipped == sentences


def test_the_notebook_leaves_out_pairs_of_estimates_without_a_spread_and_says_how_many(tmp_path, monkeypatch, capsys):
    kappa = epochs()
    agree = (kappa["example"] == 0) & (kappa["seed"] == 0)  # two losses, three epochs, both estimators
    kappa.loc[agree, "kappa_standard_error"] = 0.0
    write_study(tmp_path / "predictor_hessian", kappa)
    monkeypatch.setenv("HESSKETCH_RESULTS", str(tmp_path))
    shown, names = [], {}
    monkeypatch.setattr("IPython.display.display", shown.append)
    for source in notebook_cells():
        exec(compile(source, NOTEBOOK.name, "exec"), names)
    assert "6 of 36 left out" in capsys.readouterr().out
    (apart,) = (
        one for one in shown if isinstance(one, pd.DataFrame) and "(fast - paper) / joint standard error" in one
    )
    assert apart.loc["count"].item() == 30 and np.isfinite(apart.to_numpy()).all()
