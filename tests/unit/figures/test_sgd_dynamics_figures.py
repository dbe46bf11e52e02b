"""Figures of SGD's dynamics draw the numbers of their tables, and say what is missing; warnings are errors."""

import importlib.util
import json
from functools import cache
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import same_color
from synthetic_sgd_dynamics import CELL, STEPS, bounds_table, record, settings, study

from hessketch.errors import InputError
from hessketch.figures import sgd_dynamics_bound, sgd_dynamics_eigenspaces, sgd_dynamics_loss_change, style
from hessketch.figures.sgd_dynamics_bound import ERRORS, TERMS
from hessketch.figures.sgd_dynamics_eigenspaces import PAIRS
from hessketch.figures.sgd_dynamics_loss_change import REGIME_COLOURS
from hessketch.figures.sgd_dynamics_marks import count_text, signed_log_axis, step_axis
from hessketch.records import write_table
from hessketch.studies.raw_tables import runs_table
from hessketch.studies.sgd_dynamics import bound_correlations, chosen_bounds, of_network, rank_correlation
from hessketch.studies.sgd_dynamics_coverage import coverage

pytestmark = pytest.mark.filterwarnings("error")
ROOT = Path(__file__).parents[3]
NOTEBOOK = ROOT / "notebooks/sgd_dynamics.ipynb"
FOLLOWED = ("eigenvalues", "curvature", "overlaps", "angles", "loss_changes")


def tables_of(chosen=None, seeds=(0, 1), label=CELL[1], **identity):
    """Tables as the figures take them: those of one network and, of loss changes, one noise."""
    raw = {name: table.assign(**identity) for name, table in study(chosen, seeds).items()}
    cell = (identity.get("dataset", CELL[0]), label)
    tables = {name: of_network(raw[name], *cell) for name in FOLLOWED}
    tables["loss_changes"] = tables["loss_changes"][tables["loss_changes"]["label_noise"] == 0.0]
    return {**tables, "bounds": raw["bounds"]}


@pytest.fixture(scope="module")
def full():
    return tables_of()


@pytest.fixture(scope="module")
def small():
    """One seed, one setting but for another label noise, so that there is one sweep."""
    return tables_of([{"noise": 0.0}, {"noise": 0.5}], (0,))


FIGURES = {
    "eigenvalues": lambda t: sgd_dynamics_eigenspaces.eigenvalues(t["eigenvalues"], t["curvature"]),
    "overlap": lambda t: sgd_dynamics_eigenspaces.overlap(t["overlaps"]),
    "overlap_against_k": lambda t: sgd_dynamics_eigenspaces.overlap_against_k(t["overlaps"]),
    "angles": lambda t: sgd_dynamics_eigenspaces.angles(t["angles"]),
    "loss_change": lambda t: sgd_dynamics_loss_change.loss_change(t["loss_changes"]),
    "decrease": lambda t: sgd_dynamics_loss_change.decrease(t["loss_changes"]),
    "bound": lambda t: sgd_dynamics_bound.bound(t["bounds"]),
    "bound_against_error": lambda t: sgd_dynamics_bound.bound_against_error(t["bounds"]),
}


@pytest.fixture(scope="module")
def drawn(full):
    """Each figure of the full study, drawn once for the tests that only read it; by name."""
    return cache(lambda name: FIGURES[name](full))


PANELS = {  # of the full study, of the small one
    "eigenvalues": (9, 2),
    "overlap": (9, 2),
    "overlap_against_k": (9, 6),
    "angles": (9, 2),
    "loss_change": (9, 3),
    "decrease": (6, 6),
    "bound": (8, 2),
    "bound_against_error": (2, 2),
}


def touching(axis):
    """Neighbouring labels of an axis whose boxes overlap."""
    shown = [(label.get_window_extent(), label.get_text()) for label in axis.get_ticklabels() if label.get_visible()]
    low, high = ("x0", "x1") if axis.axis_name == "x" else ("y0", "y1")
    places = sorted((getattr(box, low), getattr(box, high), text) for box, text in shown if text and box.width > 0)
    return [(one[2], other[2]) for one, other in pairwise(places) if one[1] > other[0] + 1]


def texts_of(figure):
    texts = [figure._suptitle] + [ax.title for ax in figure.axes]
    for legend in [*figure.legends, *(ax.get_legend() for ax in figure.axes if ax.get_legend())]:
        texts += legend.get_texts()
    return texts + [ax.xaxis.label for ax in figure.axes] + [ax.yaxis.label for ax in figure.axes]


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_has_labelled_panels_whose_texts_fit_and_leaves_its_tables_alone(name, full, small, drawn):
    for tables, panels in zip((full, small), PANELS[name], strict=True):
        before = {key: table.copy() for key, table in tables.items()}
        figure = drawn(name) if tables is full else FIGURES[name](tables)
        figure.draw_without_rendering()
        assert len(figure.axes) == panels
        labels = {ax.get_xlabel() for ax in figure.axes} | {ax.get_ylabel() for ax in figure.axes}
        assert len(labels - {""}) >= 2
        for text in texts_of(figure):
            extent = text.get_window_extent()
            assert figure.bbox.x0 - 1 <= extent.x0 and extent.x1 <= figure.bbox.x1 + 1, text.get_text()
            assert figure.bbox.y0 - 1 <= extent.y0 and extent.y1 <= figure.bbox.y1 + 1, text.get_text()
        assert not [pair for ax in figure.axes for axis in (ax.xaxis, ax.yaxis) for pair in touching(axis)]
        for key, table in tables.items():
            pd.testing.assert_frame_equal(table, before[key])


@pytest.mark.parametrize("name", ["eigenvalues", "loss_change", "bound", "bound_against_error"])
def test_the_heading_names_data_set_and_network_even_if_their_names_are_long(name):
    long = {"dataset": "cifar10-classes3+5-grey16x16", "network": "resnet18_smooth", "norm": "group"}
    tables = tables_of([{"noise": 0.0}, {"noise": 0.5}], (0,), "resnet18_smooth-group-w0.5", **long)
    figure = FIGURES[name](tables)
    figure.draw_without_rendering()
    model = "" if "bound" in name else ", ResNet18 (GELU), group norm, width 1/2"
    wanted = f"CIFAR10, classes 3 and 5, grey 16x16{model}"
    assert " ".join(figure.get_suptitle().split()).startswith(wanted)
    extent = figure._suptitle.get_window_extent()
    assert figure.bbox.x0 <= extent.x0 and extent.x1 <= figure.bbox.x1


@pytest.mark.parametrize("name", FIGURES)
def test_an_empty_table_is_refused(name, full):
    with pytest.raises(InputError, match=r"no rows of it|no bounds"):
        FIGURES[name]({key: table.iloc[:0] for key, table in full.items()})


@pytest.mark.parametrize("name", [name for name in FIGURES if "bound" not in name])
def test_rows_of_two_networks_are_refused(name, full):
    mixed = {key: pd.concat([table, table.assign(network="vgg11-group-w1")]) for key, table in full.items()}
    with pytest.raises(InputError, match=r"several values of network \(mlp-none-w0\.5, vgg11-group-w1\)"):
        FIGURES[name](mixed)


def test_eigenvalues_are_means_over_seeds_by_rank_and_the_negative_one_is_dotted(drawn):
    figure = drawn("eigenvalues")
    ax = figure.axes[0]
    assert ax.get_title() == "batch size 5" and ax.get_ylabel().startswith("label noise 0 %")
    assert [other.get_title() for other in figure.axes[:3]] == ["batch size 5", "batch size 50", "full batch (100)"]
    largest = [line for line in ax.lines if same_color(line.get_color(), style.COLOURS["hessian"])]
    assert largest[0].get_xdata().tolist() == list(STEPS)
    assert largest[0].get_ydata() == pytest.approx(1.5 * np.array([8, 10, 16, 6, 0.1]))
    assert largest[1].get_linestyle() == ":" and set(largest[1].get_ydata()) == {0.5}
    assert len(ax.lines) == 3 * 3 + 1 and len(ax.collections) == 2  # bands of the largest, not of the covariance
    assert "Hessian: most negative, magnitude" in [text.get_text() for text in figure.legends[0].texts]


def test_without_negative_eigenvalues_none_are_in_the_legend(small):
    for curvature in (small["curvature"].assign(smallest_eigenvalue=np.nan), small["curvature"].iloc[:0]):
        figure = FIGURES["eigenvalues"]({**small, "curvature": curvature})
        assert len(figure.legends[0].texts) == 3 and len(figure.axes[0].lines) == 9


def test_eigenvalues_of_zero_or_unknown_have_no_place_and_rounding_does_not_stretch_the_axis(small):
    table = small["eigenvalues"]
    rounded = table["eigenvalue"].where(table["rank"] < 3, 1e-19).where(table["rank"] != 2, 0.0)
    figure = FIGURES["eigenvalues"]({**small, "eigenvalues": table.assign(eigenvalue=rounded)})
    figure.draw_without_rendering()
    low, high = figure.axes[0].get_ylim()
    assert low == pytest.approx(1e-7 * table["eigenvalue"].max()) and high > table["eigenvalue"].max()


def test_overlap_is_that_of_the_largest_k_beside_chance(drawn):
    figure = drawn("overlap")
    assert "$k$ = 3" in figure.get_suptitle()
    *lines, chance = figure.axes[4].lines
    assert len(lines) == len(PAIRS)
    for line in lines:
        assert line.get_ydata() == pytest.approx(0.7 - 0.05)
    assert chance.get_ydata()[0] == pytest.approx(3 / 1000)
    assert "step" in figure.axes[-1].get_xlabel()


def test_spaces_that_are_not_there_have_no_point_and_none_at_all_are_refused(full):
    table = full["overlaps"]
    late = table.assign(overlap=table["overlap"].mask((table["step"] == 1000) & (table["k"] == 3)))
    assert FIGURES["overlap"]({"overlaps": late}).axes[0].lines[0].get_xdata().tolist() == list(STEPS[:-1])
    with pytest.raises(InputError, match="no operator pair has 3 eigenvalues"):
        FIGURES["overlap"]({"overlaps": table.assign(overlap=np.nan)})
    with pytest.raises(InputError, match="none between hessian and second_moment"):
        FIGURES["angles"]({"angles": full["angles"].assign(angle=np.nan)})


def test_overlap_against_k_has_three_checkpoints_of_the_first_batch_size(full, drawn):
    figure = drawn("overlap_against_k")
    assert [ax.get_title() for ax in figure.axes[:3]] == ["step 0", "step 10", "step 1,000"]
    assert "batch size 5" in figure.get_suptitle()
    line = figure.axes[0].lines[0]
    assert line.get_xdata().tolist() == [1, 2, 3] and line.get_ydata() == pytest.approx([0.85, 0.75, 0.65])
    other = sgd_dynamics_eigenspaces.overlap_against_k(full["overlaps"], batch=100)
    assert "full batch (100)" in other.get_suptitle()
    with pytest.raises(InputError, match="no eigenspaces at batch size 7"):
        sgd_dynamics_eigenspaces.overlap_against_k(full["overlaps"], batch=7)


def test_angles_are_in_degrees(drawn):
    lines = drawn("angles").axes[0].lines
    assert [line.get_ydata()[0] for line in lines] == pytest.approx([20.0, 40.0, 60.0])


def test_a_place_without_runs_has_no_panel_and_the_one_above_it_has_the_labels():
    holes = [one for one in settings() if one not in ({"noise": 0.5, "batch": None}, {"noise": 0.0, "batch": 5})]
    figure = FIGURES["overlap"](tables_of(holes))
    figure.draw_without_rendering()
    assert len(figure.axes) == 7
    titled = {ax.get_title(): ax for ax in figure.axes if ax.get_title()}
    assert set(titled) == {"batch size 5", "batch size 50", "full batch (100)"}
    lowest = [ax for ax in figure.axes if ax.get_xlabel()]
    assert len(lowest) == 3 and all(label.get_visible() for ax in lowest for label in ax.get_xticklabels())
    assert sum(bool(ax.get_ylabel()) for ax in figure.axes) == 3


def test_the_loss_change_of_the_first_seed_is_drawn_between_its_bounds(full):
    rows = full["loss_changes"]
    shifted = rows.assign(q50=rows["q50"] + 5.0 * rows["seed"])
    figure = FIGURES["loss_change"]({"loss_changes": shifted})
    ax = figure.axes[0]
    assert [other.get_title() for other in figure.axes[:3]] == list(sgd_dynamics_loss_change.SCHEMES.values())
    _, median, mean, lower, upper = ax.lines
    assert median.get_ydata() == pytest.approx([-0.1] * 3 + [0.01] * 2)
    assert mean.get_ydata() == pytest.approx([-0.1] * 3 + [0.01] * 2)
    assert lower.get_ydata() == pytest.approx([-0.3] * 3 + [-0.1] * 2)
    assert upper.get_ydata() == pytest.approx([-0.01] * 3 + [0.2] * 2)
    outer, inner = (band.get_paths()[0].vertices for band in ax.collections[:2])
    for vertices, (low, high) in ((outer, (-0.12, -0.08)), (inner, (-0.11, -0.09))):
        at_zero = vertices[vertices[:, 0] == 0][:, 1]
        assert (at_zero.min(), at_zero.max()) == pytest.approx((low, high))
    assert ax.get_yscale() == "symlog"


def test_the_strip_has_the_predicted_regimes_and_changes_between_checkpoints(drawn):
    figure = drawn("loss_change")
    spans = figure.axes[0].patches
    wanted = [REGIME_COLOURS["decreases"]] * 3 + [REGIME_COLOURS["oscillates"]] * 2
    assert all(same_color(span.get_facecolor(), colour) for span, colour in zip(spans, wanted, strict=True))
    edges = [span.get_x() for span in spans]
    assert edges[0] == 0 and 10 < edges[3] < 100
    legend = [text.get_text() for text in figure.legends[0].texts]
    assert "predicted: decreases" in legend and "predicted: oscillates" in legend
    assert "predicted: decreases on average" not in legend


def test_shares_are_means_over_seeds_and_points_have_the_colour_of_their_regime(full):
    rows = full["loss_changes"]
    table = rows.assign(share_decreasing=rows["share_decreasing"] - 0.2 * rows["seed"])
    figure = FIGURES["decrease"]({"loss_changes": table})
    over_steps, scatter = figure.axes[0], figure.axes[3]
    line = over_steps.lines[1]
    assert line.get_ydata() == pytest.approx([90.0] * 3 + [30.0] * 2)
    marked = [one for one in over_steps.lines if same_color(one.get_markerfacecolor(), REGIME_COLOURS["oscillates"])]
    assert len(marked) == 3 and set(marked[0].get_xdata()) == {100, 1000}
    diagonal = scatter.lines[2]
    assert diagonal.get_xdata() == pytest.approx(diagonal.get_ydata())
    assert (diagonal.get_xdata().min(), diagonal.get_xdata().max()) == pytest.approx((-0.1, 0.01))
    points = [one for one in scatter.lines if one.get_marker() == "o"]
    assert sorted(set(np.concatenate([one.get_xdata() for one in points]))) == pytest.approx([-0.1, 0.01])


@pytest.mark.parametrize("name", ["loss_change", "decrease"])
def test_loss_changes_of_two_label_noises_are_refused(name, full):
    rows = full["loss_changes"]
    with pytest.raises(InputError, match=r"label noises 0\.0, 0\.5; allowed: one"):
        FIGURES[name]({"loss_changes": pd.concat([rows, rows.assign(label_noise=0.5)])})


def test_bounds_are_means_over_seeds_along_each_sweep(drawn):
    figure = drawn("bound")
    errors, terms = figure.axes[:4], figure.axes[4:]
    assert [ax.get_xlabel() for ax in terms] == list(sgd_dynamics_bound.X_LABELS.values())
    lines = dict(zip(ERRORS, errors[0].lines, strict=True))
    assert lines["bound"].get_xdata() == pytest.approx([0.0, 15.0, 50.0])
    assert lines["bound"].get_ydata() == pytest.approx([50.0, 65.0, 100.0])
    assert lines["test_error"].get_ydata() == pytest.approx([10.5, 18.0, 35.5])
    assert lines["posterior_train_error"].get_ydata() == pytest.approx(25.0)
    assert [line.get_xdata().tolist() for line in (ax.lines[0] for ax in errors[1:])] == [
        [500, 1000, 2000], [5, 50, 100], [100, 200, 400],
    ]  # fmt: skip
    over_n = dict(zip(TERMS, terms[3].lines, strict=True))
    assert over_n["distance_term"].get_ydata() == pytest.approx([0.15, 0.075, 0.0375])
    assert over_n["curvature_term"].get_ydata() == pytest.approx([0.05, 0.025, 0.0125])


def test_without_any_sweep_there_is_no_figure_of_the_bound(full):
    with pytest.raises(InputError, match="a single value of each of label_noise, width, batch_size, training_size"):
        FIGURES["bound"]({"bounds": bounds_table([{}])})


def test_every_run_is_a_point_and_the_title_has_the_rank_correlation(full, drawn):
    figure = drawn("bound_against_error")
    chosen = chosen_bounds(full["bounds"])
    telling = chosen[~chosen["vacuous"]]
    spearman, runs = rank_correlation(telling["test_error"], telling["bound"])
    assert 3 < runs < len(chosen)
    assert figure.axes[0].get_title() == f"(a) rank correlation ${spearman:.2f}$, {runs} runs"
    assert f"{len(chosen) - runs} of {len(chosen)} bounds are no better than guessing" in figure.get_suptitle()
    for ax, extra in zip(figure.axes, (1, 0), strict=True):
        assert sum(len(line.get_xdata()) for line in ax.lines[: len(ax.lines) - extra]) == len(chosen)
    words = [text.get_text() for text in figure.legends[0].texts]
    assert {"base point", "other batch size", "other network", "other training-set size"} <= set(words)


def test_one_run_has_no_rank_correlation():
    figure = FIGURES["bound_against_error"]({"bounds": bounds_table([{}], (0,))})
    assert figure.axes[0].get_title() == "(a) no rank correlation, 1 run"


@pytest.mark.parametrize("steps", [(0, 1, 10, 1000), (0, 20, 50), (0, 7), (0,), (0, 300, 100_000), (5, 6)])
@style.styled
def test_the_axis_of_steps_shows_its_first_step_and_whole_numbers(steps):
    ax = style.new_figure(2.5, 2).subplots()
    step_axis(ax.xaxis, steps)
    ax.plot(steps, steps)
    ax.figure.draw_without_rendering()
    ticks = ax.get_xticks().tolist()
    assert (ticks[0] == 0) == (steps[0] == 0) and 1 <= len(ticks) <= 6
    assert all(tick == int(tick) and steps[0] <= tick <= max(steps[-1], 1) for tick in ticks)


@style.styled
def test_a_signed_logarithmic_axis_bears_zeros_and_nothing_else():
    ax = style.new_figure(2.5, 2).subplots()
    signed_log_axis(ax.yaxis, [0.0, np.nan])
    assert ax.get_yscale() == "linear"
    signed_log_axis(ax.yaxis, [-1e-3, 0.0, 1e2, np.nan])
    assert ax.get_yscale() == "symlog" and {0.0} <= set(ax.get_yticks())


def test_counts_are_short():
    assert [count_text(value) for value in (0, 353, 9030, 11_200, 28_157_706)] == [
        "0",
        "353",
        "9,030",
        "11.2k",
        "28.2M",
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """All tables of a small study, as the script writes them; a run that diverged has no bound."""
    chosen = [{"noise": 0.0}, {"noise": 0.5}, {"noise": 0.0, "batch": None}]
    tables = study(chosen)
    tables |= {"bound_correlations": bound_correlations(tables["bounds"]), "coverage": coverage(tables["loss_changes"])}
    diverged = [{"batch": 50}, {"noise": 0.9}, *({"width": 9, "seed": seed} for seed in (0, 1))]
    tables["runs"] = runs_table([*(record(**one) for one in chosen), *(record("diverged", **one) for one in diverged)])
    path = tmp_path_factory.mktemp("results") / "sgd_dynamics"
    for name, table in tables.items():
        write_table(table, path / f"{name}.parquet")
    return path


@pytest.fixture(scope="module")
def script():
    """The plotting script as a module, so that each figure does not import everything anew."""
    path = ROOT / "workflow/scripts/plot_sgd_dynamics.py"
    spec = importlib.util.spec_from_file_location("plot_sgd_dynamics", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("figure", "more", "says"),
    [
        ("decrease", ["--network", CELL[1], "--label-noise", "0.5"], "drew decrease"),
        ("bound", [], "drew bound"),
        ("overlap", ["--network", "mlp-none-w9"], "nothing to draw: all 2 runs diverged"),
        ("decrease", ["--network", CELL[1], "--label-noise", "0.9"], "nothing to draw: the run diverged"),
    ],
)
def test_the_script_draws_a_figure_or_says_why_not(script, folder, tmp_path, figure, more, says):
    said = []
    files = ["--pdf", tmp_path / "f.pdf", "--png", tmp_path / "f.png"]
    arguments = [figure, "--tables", folder, *files, "--dataset", CELL[0], *more]
    script.plot(script.parse([str(one) for one in arguments]), SimpleNamespace(say=said.append))
    assert said == [says]
    assert (tmp_path / "f.pdf").stat().st_size > 0 and (tmp_path / "f.png").stat().st_size > 0


@pytest.mark.parametrize(
    ("figure", "words", "error"),
    [
        ("overlap", ["--network", "mlp"], "no rows with network = 'mlp'; the table has .*'mlp-none-w0.5'"),
        ("decrease", ["--network", CELL[1], "--label-noise", "0.7"], r"no rows with label_noise = 0.7; .*0.0, 0.5"),
        ("bound", ["--dataset", "digits"], r"no rows with dataset = 'digits'; the table has \['digits-8x8'\]"),
    ],
)
def test_the_script_refuses_names_of_no_run_and_draws_nothing(script, folder, tmp_path, figure, words, error):
    said = []
    files = ["--pdf", tmp_path / "f.pdf", "--png", tmp_path / "f.png"]
    arguments = [figure, "--tables", folder, *files, "--dataset", CELL[0], *words]
    with pytest.raises(InputError, match=error):
        script.plot(script.parse([str(one) for one in arguments]), SimpleNamespace(say=said.append))
    assert not said and not list(tmp_path.iterdir())


def test_the_script_asks_for_the_network_and_the_noise_where_a_figure_needs_them(script, folder, capsys):
    arguments = ["loss_change", "--tables", str(folder), "--dataset", CELL[0], "--pdf", "f.pdf", "--png", "f.png"]
    with pytest.raises(SystemExit):
        script.parse([*arguments, "--network", CELL[1]])
    assert "loss_change needs --label-noise" in capsys.readouterr().err
    assert script.parse(["bound", *arguments[1:]]).network is None


def notebook_cells():
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells)
    return ["".join(cell["source"]).replace("%matplotlib inline", "") for cell in cells if cell["cell_type"] == "code"]


@pytest.mark.parametrize("trained", [True, False])
def test_the_notebook_runs_with_bounds_and_without(folder, tmp_path, monkeypatch, trained):
    for path in folder.iterdir():
        table = pd.read_parquet(path)
        empty = not trained and "bound" in path.stem
        write_table(table.iloc[:0] if empty else table, tmp_path / "sgd_dynamics" / path.name)
    monkeypatch.setenv("HESSKETCH_RESULTS", str(tmp_path))
    shown = []
    monkeypatch.setattr("IPython.display.display", shown.append)
    values = {}
    for source in notebook_cells():
        exec(compile(source, NOTEBOOK.name, "exec"), values)
    figures = [one for one in shown if hasattr(one, "draw_without_rendering")]
    assert len(figures) == (6 if trained else 4)
    for figure in figures:
        figure.draw_without_rendering()
    assert values["summary"]["overlap"].le(1).all() and len(values["course"]) == 3 * 2 * 3
