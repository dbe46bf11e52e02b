"""Figures of Hessian eigenspaces draw the numbers of their tables, and say what is missing; warnings are errors."""

import importlib.util
import json
from functools import cache
from inspect import signature
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import same_color
from synthetic_eigenspaces import CELL, STEPS, metric_study_table, record, study

from hessketch.errors import InputError
from hessketch.figures import (
    eigenspaces_metrics,
    eigenspaces_overlaps,
    eigenspaces_parts,
    eigenspaces_scale,
)
from hessketch.figures.eigenspaces_marks import LEVEL_LOOKS, MASK_LOOKS
from hessketch.figures.eigenspaces_parts import METHOD_COLOURS
from hessketch.records import write_table
from hessketch.studies import eigenspaces as study_of
from hessketch.studies.eigenspaces_comparisons import federated_summary, sketch_quality, width_summary
from hessketch.studies.raw_tables import runs_table

pytestmark = pytest.mark.filterwarnings("error")
ROOT = Path(__file__).parents[3]
NOTEBOOK = ROOT / "notebooks/eigenspaces.ipynb"


def tables_of(**chosen):
    """Tables as the figures take them: of one network by SGD, `federated` of its rounds, `all_` of every network."""
    raw = study(**chosen)
    tables = {name: study_of.of_network(table, *CELL) for name, table in raw.items()}
    tables["federated"] = study_of.of_network(raw["overlaps"], *CELL, federated=True)
    of_all = {"all_overlaps": raw["overlaps"], "all_quality": raw["quality"]}
    return {**tables, **of_all, "metric_study": metric_study_table()}


@pytest.fixture(scope="module")
def full():
    return tables_of()


FIGURES = {
    "overlap_over_steps": lambda t: eigenspaces_overlaps.overlap_over_steps(t["overlaps"]),
    "overlap_at_k": lambda t: eigenspaces_overlaps.overlap_at_k(t["overlaps"]),
    "overlap_against_k": lambda t: eigenspaces_overlaps.overlap_against_k(t["overlaps"]),
    "times_chance": lambda t: eigenspaces_overlaps.times_chance(t["overlaps"]),
    "masks": lambda t: eigenspaces_overlaps.masks(t["overlaps"]),
    "stability": lambda t: eigenspaces_metrics.stability(t["stability"]),
    "metrics_over_steps": lambda t: eigenspaces_metrics.metrics_over_steps(t["metrics"], t["metric_study"]),
    "metric_study": lambda t: eigenspaces_metrics.metric_study(t["metric_study"]),
    "layers": lambda t: eigenspaces_parts.layers(t["layers"]),
    "sketch_quality": lambda t: eigenspaces_parts.sketch_quality(t["quality"], t["eigenvalues"]),
    "width": lambda t: eigenspaces_scale.width(t["all_overlaps"]),
    "runtimes": lambda t: eigenspaces_scale.runtimes(t["all_quality"]),
    "federated": lambda t: eigenspaces_scale.federated(t["federated"]),
}
PANELS = {
    "overlap_over_steps": 2,
    "overlap_at_k": 2,
    "overlap_against_k": 6,
    "times_chance": 6,
    "masks": 6,
    "stability": 6 + 1,  # and the colour bar
    "metrics_over_steps": 4,
    "metric_study": 21,
    "layers": 2,
    "sketch_quality": 8,
    "width": 4,
    "runtimes": 2,
    "federated": 4,
}


@pytest.fixture(scope="module")
def drawn(full):
    """Each figure of the full study, drawn once for the tests that only read it; by name."""
    return cache(lambda name: FIGURES[name](full))


def texts_of(figure):
    texts = [figure._suptitle] + [ax.title for ax in figure.axes]
    for legend in [*figure.legends, *(ax.get_legend() for ax in figure.axes if ax.get_legend())]:
        texts += legend.get_texts()
    texts += [label for ax in figure.axes for label in (ax.xaxis.label, ax.yaxis.label)]
    return [text for text in texts if text.get_text()]


def touching(axis):
    """Neighbouring labels of an axis whose boxes overlap."""
    shown = [(label.get_window_extent(), label.get_text()) for label in axis.get_ticklabels() if label.get_visible()]
    low, high = ("x0", "x1") if axis.axis_name == "x" else ("y0", "y1")
    places = sorted((getattr(box, low), getattr(box, high), text) for box, text in shown if text and box.width > 0)
    return [(one[2], other[2]) for one, other in pairwise(places) if one[1] > other[0] + 1]


# Overlaps against k and of masks have the panels of those over chance, and no longer names.
@pytest.mark.parametrize("name", [name for name in FIGURES if name not in ("overlap_against_k", "masks")])
def test_a_figure_has_labelled_panels_whose_texts_fit_and_leaves_its_tables_alone(name, full, drawn):
    before = {key: table.copy() for key, table in full.items()}
    figure = drawn(name)
    figure.draw_without_rendering()
    assert len(figure.axes) == PANELS[name]
    labels = {ax.get_xlabel() for ax in figure.axes} | {ax.get_ylabel() for ax in figure.axes}
    assert len(labels - {""}) >= (1 if name == "layers" else 2)  # its bars have names instead of an axis
    for text in texts_of(figure):
        extent = text.get_window_extent()
        assert figure.bbox.x0 - 1 <= extent.x0 and extent.x1 <= figure.bbox.x1 + 1, text.get_text()
        assert figure.bbox.y0 - 1 <= extent.y0 and extent.y1 <= figure.bbox.y1 + 1, text.get_text()
    assert not [pair for ax in figure.axes for axis in (ax.xaxis, ax.yaxis) for pair in touching(axis)]
    for key, table in full.items():
        pd.testing.assert_frame_equal(table, before[key])


@pytest.mark.parametrize("name", FIGURES)
def test_an_empty_table_is_refused(name, full):
    with pytest.raises(InputError, match=r"no rows"):
        FIGURES[name]({key: table.iloc[:0] for key, table in full.items()})


@pytest.mark.parametrize("name", [name for name in FIGURES if name not in ("width", "runtimes", "metric_study")])
def test_rows_of_two_networks_are_refused(name, full):
    mixed = {key: pd.concat([table, table.assign(network="vgg11-group-w1")]) for key, table in full.items()}
    with pytest.raises(InputError, match=r"several values of network \(mlp_tanh-none-w1, vgg11-group-w1\)"):
        FIGURES[name](mixed)


@pytest.mark.parametrize(("column", "other"), [("trainer", "sgd-full"), ("label_noise", 0.5)])
def test_rows_of_two_trainings_are_refused(full, column, other):
    rows = full["overlaps"]
    with pytest.raises(InputError, match=f"several values of {column} .*{other}.*; allowed: one; select it"):
        FIGURES["masks"]({"overlaps": pd.concat([rows, rows.assign(**{column: other})])})


@pytest.mark.parametrize("name", ["width", "runtimes"])
def test_rows_of_two_data_sets_are_refused(name, full):
    mixed = {key: pd.concat([table, table.assign(dataset="mnist")]) for key, table in full.items()}
    with pytest.raises(InputError, match="digits-8x8, mnist; allowed: rows of one data set"):
        FIGURES[name](mixed)


def test_the_overlap_over_steps_is_the_mean_over_seeds_at_the_largest_k_beside_each_chance_level(drawn):
    figure = drawn("overlap_over_steps")
    assert "$k$ = 40" in figure.get_suptitle() and "p$ = 0.2" in figure.get_suptitle()
    chance, by_layer, live, exact, sketched = figure.axes[0].lines
    assert exact.get_xdata().tolist() == list(STEPS)
    assert exact.get_ydata() == pytest.approx(0.2 * 1.1 * np.array([1.6, 2.5, 0.8]))
    assert sketched.get_ydata() == pytest.approx(0.9 * exact.get_ydata())
    assert [line.get_ydata()[0] for line in (chance, by_layer, live)] == pytest.approx([0.2, 0.3, 0.22])
    band = figure.axes[0].collections[0].get_paths()[0].vertices  # of random masks: one standard deviation
    assert (band[:, 1].min(), band[:, 1].max()) == pytest.approx((0.18, 0.22))
    words = [text.get_text() for text in figure.legends[0].texts]
    assert words[:2] == ["mask, exact", "mask, sketched"] and len(words) == 5


def test_where_every_parameter_is_live_their_chance_level_is_not_drawn_twice(full):
    alive = full["overlaps"].assign(live=200)
    figure = FIGURES["overlap_over_steps"]({"overlaps": alive})
    words = [text.get_text() for text in figure.legends[0].texts]
    assert LEVEL_LOOKS["chance_live"]["label"] not in words and len(figure.axes[0].lines) == 4


def test_each_of_a_few_k_has_its_own_chance_level(full):
    figure = eigenspaces_overlaps.overlap_at_k(full["overlaps"], ks=(3, 11, 5000))
    dotted = [line for line in figure.axes[0].lines if line.get_linestyle() == ":"]
    assert [line.get_ydata()[0] for line in dotted] == pytest.approx([3 / 200, 10 / 200, 40 / 200])
    solid = [line for line in figure.axes[0].lines if line.get_linestyle() == "-"]
    assert solid[1].get_ydata()[0] == pytest.approx(0.05 * 1.6 * 1.1)


def test_overlaps_against_k_are_at_three_checkpoints_and_over_chance_in_the_other_figure(drawn):
    absolute, relative = drawn("overlap_against_k"), drawn("times_chance")
    for figure in (absolute, relative):
        assert [ax.get_title() for ax in figure.axes[:3]] == ["step 0", "step 10", "step 100"]
        assert {ax.get_xscale() for ax in figure.axes} == {ax.get_yscale() for ax in figure.axes} == {"log"}
    exact = absolute.axes[1].lines[3]
    assert exact.get_xdata().tolist() == [1, 3, 10, 20, 40]
    assert exact.get_ydata() == pytest.approx(2.75 * exact.get_xdata() / 200)
    chance, by_layer, live, exact, _ = relative.axes[1].lines
    heights = [line.get_ydata()[0] for line in (chance, by_layer, live, exact)]
    assert heights == pytest.approx([1.0, 1.5, 1.1, 2.75])


def test_what_is_far_below_chance_does_not_stretch_the_axis(full):
    rows = full["overlaps"]
    tiny = rows.assign(overlap=rows["overlap"].where(rows["k"] > 1, 1e-12))
    figure = FIGURES["overlap_against_k"]({"overlaps": tiny})
    assert figure.axes[0].get_ylim()[0] == pytest.approx(0.01 / 200)


def test_masks_are_between_the_best_and_random_ones(drawn):
    ax = drawn("masks").axes[0]
    chance, *masks = ax.lines
    assert [line.get_color() for line in masks] == [look["color"] for look in MASK_LOOKS.values()]
    assert [line.get_ydata()[-1] for line in masks] == pytest.approx(0.2 * 1.6 * 1.1 * np.array([1.0, 0.8, 1.6]))
    assert chance.get_ydata()[-1] == pytest.approx(0.2)


def test_heat_maps_are_symmetric_with_masks_beside_eigenspaces(drawn):
    figure = drawn("stability")
    assert [ax.get_title() for ax in figure.axes[:3]] == ["masks", "eigenspaces, train", "eigenspaces, test"]
    shown = figure.axes[0].images[0].get_array()
    assert np.asarray(shown) == pytest.approx(np.array([[1, 0.5, 0.25], [0.5, 1, 0.5], [0.25, 0.5, 1]]))
    assert figure.axes[0].get_ylabel().startswith("$k$ = 10 (0.05") and figure.axes[1].images[0].get_clim() == (0, 1)
    assert [tick.get_text() for tick in figure.axes[0].get_yticklabels()] == ["0", "10", "100"]
    assert [ax.texts[0].get_text() for ax in figure.axes[:2]] == ["by chance 0.026", "by chance 0.05"]


def test_a_ratio_whose_masks_alone_were_compared_has_panels_that_say_so(full):
    rows = full["stability"]
    figure = FIGURES["stability"]({"stability": rows[(rows["of"] == "mask") | (rows["ratio"] == 0.05)]})
    assert [ax.texts[0].get_text() for ax in figure.axes[3:6]] == ["by chance 0.11", "not compared", "not compared"]


def test_pairs_of_checkpoints_that_were_not_compared_stay_blank(full):
    rows = full["stability"]
    missing = rows[~((rows["first"] == 0) & (rows["second"] == 100))]
    shown = FIGURES["stability"]({"stability": missing}).axes[0].images[0].get_array()
    assert np.ma.getmaskarray(shown).tolist() == [[False, False, True], [False, False, False], [True, False, False]]


def test_metrics_have_the_baselines_of_random_masks(drawn, full):
    figure = drawn("metrics_over_steps")
    assert figure.axes[0].get_ylabel().startswith("$k$ = 40")  # the largest on top
    dotted = [line for line in figure.axes[0].lines if line.get_linewidth() == 0.8]
    assert dotted[-1].get_ydata()[0] == pytest.approx(0.2) and len(dotted) == 7
    assert len([line for line in figure.axes[2].lines if line.get_linewidth() == 0.8]) == 1  # below the studied ratios
    alone = FIGURES["metrics_over_steps"]({**full, "metric_study": full["metric_study"].iloc[:0]})
    assert len(alone.axes[0].lines) == 7 + 1


def test_the_metric_study_has_medians_in_two_bands_and_the_expected_overlap(drawn):
    figure = drawn("metric_study")
    overlap = figure.axes[-1]
    *medians, expected = overlap.lines
    assert len(medians) == 2 and len(overlap.collections) == 4 and len(figure.axes[0].lines) == 2
    for line in (*medians, expected):  # k is a whole number: a tenth of the dimension is not k / dimension
        assert line.get_ydata() == pytest.approx(line.get_xdata(), abs=0.05)
    assert medians[0].get_xdata()[1:] == pytest.approx([0.5, 1.0])
    outer = overlap.collections[0].get_paths()[0].vertices
    assert outer[outer[:, 0] == 0.5][:, 1].max() == pytest.approx(0.5 + 0.9 * 0.5 / 16)


def test_bars_of_layers_are_shares_of_parameters_mask_and_eigenspace(drawn):
    ax = drawn("layers").axes[0]
    names = [label.get_text() for label in ax.get_xticklabels()]
    assert names[:3] == ["parameters", "mask, step 0", "eigenspace, step 0"] and len(names) == 1 + 2 * 3
    heights = np.array([bar.get_height() for bar in ax.patches]).reshape(4, len(names))
    assert heights[:, 0] == pytest.approx([50, 10, 30, 10]) and heights[:, 1] == pytest.approx([0, 0, 100, 0])
    assert heights[:, 2] == pytest.approx([50, 10, 30, 10])


def test_many_layers_have_a_colour_bar_in_place_of_names(full):
    rows = full["layers"]
    many = pd.concat([rows.assign(layer=rows["layer"] + f".{i}", energy=rows["energy"] / 5) for i in range(5)])
    figure = FIGURES["layers"]({"layers": many})
    figure.draw_without_rendering()
    assert figure.axes[-1].get_ylabel() == "layer (of 20)" and not figure.axes[0].get_legend()


def test_the_sketch_is_drawn_beside_the_exact_decomposition_with_the_bounds_of_its_residual(drawn, full):
    values, errors, overlaps, residuals = drawn("sketch_quality").axes[:4]
    exact, sketched = values.lines
    assert exact.get_ydata()[:3] == pytest.approx([10, 5, 10 / 3])  # magnitudes: the third is negative
    assert sketched.get_ydata() == pytest.approx(0.99 * exact.get_ydata())
    assert errors.lines[0].get_ydata() == pytest.approx(0.01)
    assert [line.get_ydata()[0] for line in overlaps.lines] == pytest.approx([0.99, 0.85])
    assert sorted(line.get_ydata()[0] for line in residuals.lines) == pytest.approx([4, 5, 10, 20])
    alone = {name: full[name][full[name]["method"] == "sketched"] for name in ("quality", "eigenvalues")}
    alone["quality"] = alone["quality"].assign(subspace_overlap=np.nan, eigenvalue_error=np.nan)
    assert len(FIGURES["sketch_quality"](alone).axes) == 2 * 2


def test_sizes_are_compared_at_the_same_share_and_at_the_same_k(drawn, full):
    figure = drawn("width")
    assert [ax.get_title() for ax in figure.axes[:2]] == [r"$k \approx$ 0.2 $p$", r"$k \approx$ 30"]
    points = [line for line in figure.axes[0].lines if line.get_marker() == "o"]
    assert points[0].get_xdata().tolist() == [200, 400] and points[0].get_ydata() == pytest.approx(0.88)
    assert figure.axes[0].get_yscale() == "log" and len(points) == 3 * 2
    rows = full["all_overlaps"]
    with pytest.raises(InputError, match="networks of 1 size; give tables of two or more"):
        eigenspaces_scale.width(rows[rows["p"] == 200])


def test_costs_are_means_by_size_and_method(drawn):
    products, seconds = drawn("runtimes").axes
    assert [line.get_ydata().tolist() for line in products.lines] == [[200, 400], [50, 50]]
    assert [line.get_ydata().tolist() for line in seconds.lines] == [[10, 10], [2, 2]]
    assert same_color(products.lines[0].get_color(), METHOD_COLOURS["exact"])


def test_federated_trainers_are_above_their_differences_to_uncompressed_training(drawn, full):
    figure = drawn("federated")
    chance, *lines = figure.axes[0].lines  # of each trainer two levels and its overlap
    assert chance.get_ydata() == pytest.approx([0.2, 0.2]) and len(lines) == 2 * 3
    assert lines[2].get_ydata() == pytest.approx(0.2 * 0.9 * 1.1 * np.array([1.6, 1.2]))
    zero, difference = figure.axes[2].lines
    assert zero.get_ydata()[0] == 0.0
    assert difference.get_ydata() == pytest.approx([0.0, -0.1 * 0.2 * 0.9 * 1.1 * 1.2])
    words = [text.get_text() for text in figure.legends[0].texts]
    assert words[0] == "uncompressed" and words[1].startswith("Count-Sketch, 10")
    moved = full["federated"].assign(chance_by_layer=full["federated"]["trainer"].eq("uncompressed") * 0.1 + 0.1)
    _, *lines = FIGURES["federated"]({"federated": moved}).axes[0].lines
    assert [lines[at].get_ydata()[0] for at in (0, 3)] == pytest.approx([0.2, 0.1]), "levels are those of the trainer"
    assert [lines[at].get_color() for at in (0, 3)] == [lines[at].get_color() for at in (2, 5)]
    alone = full["federated"][full["federated"]["trainer"] != "uncompressed"]
    assert len(FIGURES["federated"]({"federated": alone}).axes) == 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """All tables of a small study, as the script writes them."""
    tables = study()
    at_ratios = study_of.at_ratios(tables["overlaps"], tables["metrics"])
    tables |= {
        "metric_study": metric_study_table(),
        "overlap_summary": study_of.overlap_summary(at_ratios),
        "shares_above": study_of.shares_above(tables["overlaps"]),
        "stabilisation": study_of.stabilisation(tables["stability"]),
        "sketch_quality": sketch_quality(tables["quality"]),
        "width_summary": width_summary(tables["overlaps"]),
        "federated_summary": federated_summary(at_ratios),
        "runs": runs_table([record(), record("diverged", width=9.0), record(trainer="uncompressed")]),
    }
    path = tmp_path_factory.mktemp("results") / "eigenspaces"
    for name, table in tables.items():
        write_table(table, path / f"{name}.parquet")
    return path


@pytest.fixture(scope="module")
def script():
    """The plotting script as a module, so that each figure does not import everything anew."""
    path = ROOT / "workflow/scripts/plot_eigenspaces.py"
    spec = importlib.util.spec_from_file_location("plot_eigenspaces", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_script_knows_every_figure(script):
    assert set(script.FIGURES) == set(FIGURES)


def test_the_script_chooses_rows_by_data_set_network_and_kind_of_trainer(script, folder):
    overlaps, arguments = (
        pd.read_parquet(folder / "overlaps.parquet"),
        SimpleNamespace(dataset=CELL[0], network=CELL[1]),
    )
    chosen = {name: script.rows_of(overlaps, arguments, script.FIGURES[name][2]) for name in FIGURES}
    assert set(chosen["masks"]["kind"]) == {"step"} and set(chosen["masks"]["p"]) == {200}
    assert set(chosen["federated"]["kind"]) == {"round"} and len(chosen["width"]) == len(overlaps)
    random = metric_study_table()
    assert script.rows_of(random, arguments, script.FIGURES["metrics_over_steps"][2]) is random


@pytest.mark.parametrize(
    ("figure", "more", "says"),
    [
        ("runtimes", [], "drew runtimes"),
        ("masks", ["--network", "mlp_tanh-none-w9"], "nothing to draw: the run diverged"),
    ],
)
def test_the_script_draws_a_figure_or_says_why_not(script, folder, tmp_path, figure, more, says):
    said = []
    files = ["--pdf", tmp_path / "f.pdf", "--png", tmp_path / "f.png"]
    arguments = [figure, "--tables", folder, *files, "--dataset", CELL[0], *more]
    script.plot(script.parse([str(one) for one in arguments]), SimpleNamespace(say=said.append))
    assert said == [says]
    assert (tmp_path / "f.pdf").stat().st_size > 0 and (tmp_path / "f.png").stat().st_size > 0


def test_the_script_refuses_names_of_no_run_and_asks_for_the_network(script, folder, tmp_path, capsys):
    files = ["--pdf", tmp_path / "f.pdf", "--png", tmp_path / "f.png"]
    arguments = [str(one) for one in ("masks", "--tables", folder, *files, "--dataset", CELL[0])]
    with pytest.raises(InputError, match=r"no rows with network = 'mlp'; the table has .*'mlp_tanh-none-w1'"):
        script.plot(script.parse([*arguments, "--network", "mlp"]), SimpleNamespace(say=print))
    assert not list(tmp_path.iterdir())
    with pytest.raises(SystemExit):
        script.parse(arguments)
    assert "masks needs --network" in capsys.readouterr().err


def notebook_cells():
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells)
    return ["".join(cell["source"]).replace("%matplotlib inline", "") for cell in cells if cell["cell_type"] == "code"]


def only_asked(monkeypatch):
    """Names of the figures that are asked for from now on with tables that they take; drawing is tested above."""
    asked = set()

    def stand_in(name, draw):
        def check(*tables):
            signature(draw).bind(*tables)
            assert all(len(table) for table in tables)
            several = name in ("width", "metric_study")
            assert several or tables[0]["network"].unique().tolist() == [CELL[1]]
            asked.add(name)

        return check

    for module in (eigenspaces_overlaps, eigenspaces_metrics, eigenspaces_parts, eigenspaces_scale):
        for name in set(FIGURES) & set(vars(module)):
            monkeypatch.setattr(module, name, stand_in(name, getattr(module, name)))
    return asked


@pytest.mark.parametrize("whole", [True, False])
def test_the_notebook_runs_with_federated_runs_and_several_widths_and_without(folder, tmp_path, monkeypatch, whole):
    for path in folder.iterdir():
        table = pd.read_parquet(path)
        if not whole and "trainer" in table:
            table = table[(table["trainer"] == "sgd-b50") & (table["width"] == 1.0)]
        empty = not whole and path.stem in ("stability", "stabilisation")
        write_table(table.iloc[:0] if empty else table, tmp_path / "eigenspaces" / path.name)
    monkeypatch.setenv("HESSKETCH_RESULTS", str(tmp_path))
    monkeypatch.setattr("IPython.display.display", lambda _: None)
    asked = only_asked(monkeypatch)
    values = {}
    for source in notebook_cells():
        exec(compile(source, NOTEBOOK.name, "exec"), values)
    left_out = {"overlap_at_k", "runtimes"} | (set() if whole else {"stability", "width", "federated"})
    assert asked == set(FIGURES) - left_out
    assert values["summary"]["times_chance"].between(0.8, 3.0).all() and (values["below"]["overlap"] > 0).all()
    assert sorted(values["below"]["k"].unique()) == [1, 3, 10, 20, 40]  # at the last step 0.8 and 0.96 times chance
