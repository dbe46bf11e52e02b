"""Figures of the outliers' hierarchy draw the numbers of their tables; warnings are errors."""

import importlib.util
import json
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import same_color
from synthetic_outlier_hierarchy import CELL, CLASSES, eigenvalues_of, study

from hessketch.errors import InputError
from hessketch.figures import outlier_hierarchy
from hessketch.figures.outlier_hierarchy import COLOURS, NAMES
from hessketch.records import write_table
from hessketch.studies.outlier_hierarchy import PARTS, attribution, densities_of, matches, of_network, trained_runs

pytestmark = pytest.mark.filterwarnings("error")
ROOT = Path(__file__).parents[3]
NOTEBOOK = ROOT / "notebooks/outlier_hierarchy.ipynb"
TABLES = {"hierarchy": ("density", "parts"), "attribution": ("attribution", "matches"), "embedding": ("means",)}


def derived(sizes):
    """All tables as the script derives them."""
    raw = study(sizes=sizes)
    raw["attribution"] = attribution(raw["parts"])
    raw["matches"] = matches(raw["attribution"], raw["alignment"])
    raw["density"] = densities_of(raw["density"], raw["parts"])
    return {**raw, "runs": trained_runs(raw["runs"])}


@pytest.fixture(scope="module")
def full():
    tables = derived((20,))
    return {name: of_network(table, *CELL) for name, table in tables.items()}


def draw(name, tables):
    return getattr(outlier_hierarchy, name)(*(tables[table] for table in TABLES[name]))


@pytest.fixture(scope="module")
def drawn(full):
    """Each figure, drawn once for the tests that only read it; by name."""
    return cache(lambda name: draw(name, full))


@pytest.mark.parametrize("name", TABLES)
def test_a_figure_has_labelled_panels_whose_texts_fit_and_leaves_its_tables_alone(name, full, drawn):
    before = {table: full[table].copy() for table in TABLES[name]}
    figure = drawn(name)
    figure.draw_without_rendering()
    assert len(figure.axes) == 2 and figure.axes[-1].get_xlabel() and figure.axes[0].get_ylabel()
    texts = [figure._suptitle, *(text for legend in figure.legends for text in legend.texts)]
    texts += [text for ax in figure.axes for text in (ax.title, ax.xaxis.label, ax.yaxis.label)]
    texts += figure.axes[1].get_yticklabels() if name == "hierarchy" else []
    for text in filter(lambda text: text.get_text(), texts):
        extent = text.get_window_extent()
        assert figure.bbox.x0 - 1 <= extent.x0 and extent.x1 <= figure.bbox.x1 + 1, text.get_text()
        assert figure.bbox.y0 - 1 <= extent.y0 and extent.y1 <= figure.bbox.y1 + 1, text.get_text()
    for table, copy in before.items():
        pd.testing.assert_frame_equal(full[table], copy)


@pytest.mark.parametrize("name", TABLES)
def test_an_empty_table_and_rows_of_two_sizes_are_refused(name, full):
    first = TABLES[name][0]
    with pytest.raises(InputError, match="the table has no rows of it"):
        draw(name, {**full, first: full[first].iloc[:0]})
    mixed = pd.concat([full[first], full[first].assign(examples_per_class=10)])
    with pytest.raises(InputError, match=r"several values of examples_per_class \(20, 10\)"):
        draw(name, {**full, first: mixed})


def test_the_eigenvalues_of_each_part_stand_below_the_density_of_the_same_seed(drawn):
    above, below = drawn("hierarchy").axes
    assert [label.get_text() for label in below.get_yticklabels()] == [NAMES[part] for part in PARTS]
    low, high = above.get_xlim()
    assert above.get_xscale() == "log" and below.get_xlim() == (low, high)
    for part, lines in zip(PARTS, below.collections, strict=True):
        places = [segment[0][0] for segment in lines.get_segments()]
        values = eigenvalues_of(0)[part]
        assert places == pytest.approx(values[values >= low]) and same_color(lines.get_color(), COLOURS[part])
    curve = above.lines[0]
    assert curve.get_xdata().min() >= low and curve.get_xdata().max() >= eigenvalues_of(0)["G"][0]


def test_outliers_of_g_stand_against_those_of_its_parts(drawn):
    figure = drawn("attribution")
    values, ranks = figure.axes
    large, small = values.lines[:2]
    outliers = np.concatenate([eigenvalues_of(seed)["G1"][: CLASSES - 1] for seed in (0, 1)])
    assert large.get_xdata() == pytest.approx(outliers) and large.get_ydata() == pytest.approx(1.02 * outliers)
    assert len(small.get_xdata()) == 2  # of rank C, one a seed
    mean = np.mean([eigenvalues_of(seed)["G"][: 2 * CLASSES] for seed in (0, 1)], axis=0)
    assert ranks.lines[0].get_ydata() == pytest.approx(mean)
    assert "overlap 0.97 \N{PLUS-MINUS SIGN} 0.01, chance 0.02" in " ".join(figure.get_suptitle().split())


def test_without_an_overlap_the_heading_has_none(full):
    figure = draw("attribution", {**full, "matches": full["matches"].assign(overlap=np.nan)})
    assert "overlap" not in figure.get_suptitle()


def test_means_are_coloured_by_true_class_without_the_terms_of_the_true_labels(drawn):
    for ax in drawn("embedding").axes:
        cross, means = ax.lines[::2], ax.lines[1::2]
        assert len(means) == CLASSES and {len(line.get_xdata()) for line in means} == {1}
        assert {len(line.get_xdata()) for line in cross} == {CLASSES - 1}
        assert all(same_color(a.get_color(), b.get_color()) for a, b in zip(cross, means, strict=True))
        assert [text.get_text() for text in ax.texts] == [str(c) for c in range(CLASSES)]
    angles = 2 * np.pi * np.arange(CLASSES) / CLASSES
    pca = drawn("embedding").axes[0]
    assert [line.get_xdata()[0] for line in pca.lines[1::2]] == pytest.approx(np.cos(angles))


def test_classes_without_a_mean_are_left_out_and_none_at_all_are_refused(full):
    means = full["means"]
    known = means.assign(pca_1=means["pca_1"].where(means["true_class"] < 2))
    assert len(outlier_hierarchy.embedding(known).axes[0].texts) == 2
    with pytest.raises(InputError, match="no class has a mean"):
        outlier_hierarchy.embedding(means.assign(pca_1=np.nan))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("results") / "outlier_hierarchy"
    for name, table in derived((10, 20)).items():
        write_table(table, path / f"{name}.parquet")
    return path


def test_the_script_draws_the_size_that_is_named_and_refuses_another(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("hessketch.figures.style.render", lambda drawn, format, source: format.encode())
    spec = importlib.util.spec_from_file_location("plot", ROOT / "workflow/scripts/plot_outlier_hierarchy.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    assert {name: tuple(tables) for name, tables in script.FIGURES.items()} == TABLES
    said, files = [], ["--pdf", tmp_path / "f.pdf", "--png", tmp_path / "f.png"]
    words = ["embedding", "--tables", folder, *files, "--dataset", CELL[0], "--network", CELL[1]]
    given = [str(word) for word in [*words, "--examples-per-class", 10]]
    script.plot(script.parser.parse_args(given), SimpleNamespace(say=said.append))
    assert said == ["drew embedding"] and (tmp_path / "f.pdf").read_text() == "pdf"
    with pytest.raises(InputError, match=r"examples_per_class = 30; the table has \[10, 20\]"):
        script.plot(script.parser.parse_args([*given[:-1], "30"]), SimpleNamespace(say=said.append))


def test_the_notebook_runs_on_the_tables(folder, monkeypatch):
    monkeypatch.setenv("HESSKETCH_RESULTS", str(folder.parent))
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells)
    values = {}
    for cell in cells:
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]).replace("%matplotlib inline", ""), NOTEBOOK.name, "exec"), values)
    assert set(values["tables"]["parts"]["examples_per_class"]) == {20}
    assert values["shares"].groupby("part").mean().loc["G", "max"] == pytest.approx(1.0)
