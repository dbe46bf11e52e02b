"""Figures of basins draw the numbers of their tables; warnings are errors."""

import importlib.util
import json
from functools import cache
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from synthetic_basins import BARRIERS, CELL, CLASSES, path_rows, record, study

from hessketch.errors import InputError
from hessketch.figures import basins
from hessketch.records import write_table
from hessketch.studies.basins import barrier_summary, best_places, of_network
from hessketch.studies.raw_tables import runs_table

pytestmark = pytest.mark.filterwarnings("error")
ROOT = Path(__file__).parents[3]
NOTEBOOK = ROOT / "notebooks/basins.ipynb"
TABLE = {"line": "paths", "path": "paths", "barriers": "barriers"}
PANELS = {"line": 6, "path": 6, "barriers": 3}


@pytest.fixture(scope="module")
def full():
    return {name: of_network(table, *CELL) for name, table in study().items()}


@pytest.fixture(scope="module")
def drawn(full):
    """Each figure of the full study, drawn once for the tests that only read it; by name."""
    return cache(lambda name: getattr(basins, name)(full[TABLE[name]]))


def touching(axis):
    """Neighbouring labels of an axis whose boxes overlap."""
    shown = [(label.get_window_extent(), label.get_text()) for label in axis.get_ticklabels() if label.get_visible()]
    low, high = ("x0", "x1") if axis.axis_name == "x" else ("y0", "y1")
    places = sorted((getattr(box, low), getattr(box, high), text) for box, text in shown if text and box.width > 0)
    return [(one[2], other[2]) for one, other in pairwise(places) if one[1] > other[0] + 1]


@pytest.mark.parametrize("name", TABLE)
def test_a_figure_has_labelled_panels_whose_texts_fit_and_leaves_its_table_alone(name, full, drawn):
    before = full[TABLE[name]].copy()
    figure = drawn(name)
    figure.draw_without_rendering()
    assert len(figure.axes) == PANELS[name]
    texts = [figure._suptitle, *figure.legends[0].texts]
    texts += [text for ax in figure.axes for text in (ax.title, ax.xaxis.label, ax.yaxis.label)]
    for text in texts:
        extent = text.get_window_extent()
        assert figure.bbox.x0 - 1 <= extent.x0 and extent.x1 <= figure.bbox.x1 + 1, text.get_text()
        assert figure.bbox.y0 - 1 <= extent.y0 and extent.y1 <= figure.bbox.y1 + 1, text.get_text()
    assert not [pair for ax in figure.axes for axis in (ax.xaxis, ax.yaxis) for pair in touching(axis)]
    pd.testing.assert_frame_equal(full[TABLE[name]], before)


@pytest.mark.parametrize("name", TABLE)
def test_an_empty_table_and_rows_of_two_networks_are_refused(name, full):
    with pytest.raises(InputError, match="the table has no rows of it"):
        getattr(basins, name)(full[TABLE[name]].iloc[:0])
    mixed = pd.concat([full[TABLE[name]], full[TABLE[name]].assign(network="mlp-none-w1")])
    with pytest.raises(InputError, match=r"several values of network \(mlp-none-w0\.5, mlp-none-w1\)"):
        getattr(basins, name)(mixed)


def test_the_line_has_means_over_seeds_of_train_and_test(drawn):
    figure = drawn("line")
    assert figure.axes[0].get_title() == "continued\nbatches of 250 to 250, then 10"
    assert figure.axes[2].get_title() == "other initialisation\nbatches of 250 to 10"
    losses = figure.axes[1]  # the same initialisation
    rows = [path_rows("same_start", seed, "line") for seed in range(3)]
    for line, split in zip(losses.lines, ("train", "test"), strict=False):
        assert line.get_xdata() == pytest.approx(rows[0]["t"].to_numpy())
        assert line.get_ydata() == pytest.approx(np.mean([one[f"{split}_loss"] for one in rows], axis=0))
    accuracies = figure.axes[4].lines[1].get_ydata()
    assert accuracies == pytest.approx(np.mean([one["test_accuracy"] for one in rows], axis=0))
    assert len(losses.collections) == 2 and losses.get_yscale() == "log"  # bands of both


def test_the_path_is_drawn_beside_the_line_between_the_ends_alone(drawn):
    losses = drawn("path").axes[2]
    assert [text.get_text() for text in drawn("path").legends[0].texts] == [
        "straight line",
        "found path",
        "train",
        "test",
    ]
    on_line, _, found, _ = losses.lines
    assert (on_line.get_xdata().min(), on_line.get_xdata().max()) == pytest.approx((0.0, 1.0))
    assert max(on_line.get_ydata()) == pytest.approx(2.2 + 0.075) and max(found.get_ydata()) == pytest.approx(0.295)
    assert losses.get_ylim()[0] == 0
    assert all(len(ax.collections) == 4 for ax in drawn("path").axes)  # bands of train and test on either way


def test_a_pair_of_seeds_is_a_dot_beside_the_threshold(drawn):
    figure = drawn("barriers")
    train, test, move = figure.axes
    dots = [line for line in train.lines if len(line.get_ydata()) == 3]
    expected = [
        BARRIERS[pair] * share * np.array([1, 1.1, 1.2]) for pair in BARRIERS for share in (1.0, 0.1)
    ]  # line, then found
    assert np.concatenate([line.get_ydata() for line in dots]) == pytest.approx(np.concatenate(expected))
    assert train.lines[-1].get_ydata()[0] == pytest.approx(0.05 * np.log(CLASSES))
    assert max(max(line.get_ydata()) for line in test.lines) == pytest.approx(2.4 * 1.2)
    assert move.lines[0].get_ydata() == pytest.approx([0.05, 0.06, 0.07])
    assert move.lines[2].get_ydata() == pytest.approx([CLASSES / 2000])


def test_a_single_pair_of_one_kind_is_drawn_without_bands(full):
    rows = {name: table.query("pair == 'continued' and seed == 0") for name, table in full.items()}
    for name, count in (("line", 2), ("path", 2), ("barriers", 3)):
        figure = getattr(basins, name)(rows[TABLE[name]].assign(move_in_top=np.nan))
        assert len(figure.axes) == count and figure.get_suptitle().endswith("1 pair of each kind")
        assert not any(len(ax.collections) for ax in figure.axes)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """All tables of a study as the script writes them; a run of another width diverged."""
    path = tmp_path_factory.mktemp("results") / "basins"
    raw = study((0, 1))
    raw |= {
        "runs": runs_table([record(), record("diverged", width=9)]),
        "barrier_summary": barrier_summary(raw["barriers"]),
        "best_places": best_places(raw["paths"]),
    }
    for name, table in raw.items():
        write_table(table, path / f"{name}.parquet")
    return path


@pytest.mark.parametrize(
    ("network", "says"), [(CELL[1], "drew barriers"), ("mlp-none-w9", "nothing to draw: the run diverged")]
)
def test_the_script_draws_a_figure_or_says_why_not(folder, tmp_path, monkeypatch, network, says):
    monkeypatch.setattr("hessketch.figures.style.render", lambda drawn, format, source: format.encode())
    spec = importlib.util.spec_from_file_location("plot", ROOT / "workflow/scripts/plot_basins.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    assert set(script.FIGURES) == set(TABLE) and all(script.FIGURES[name] == [TABLE[name]] for name in TABLE)
    said, files = [], ["--pdf", tmp_path / "f.pdf", "--png", tmp_path / "f.png"]
    words = ["barriers", "--tables", folder, *files, "--dataset", CELL[0], "--network", network]
    script.plot(script.parser.parse_args([str(word) for word in words]), SimpleNamespace(say=said.append))
    assert said == [says] and (tmp_path / "f.pdf").read_text() == "pdf" and (tmp_path / "f.png").read_text() == "png"


@pytest.mark.parametrize("trained", [True, False])
def test_the_notebook_runs_with_pairs_and_without(folder, tmp_path, monkeypatch, trained):
    for path in folder.iterdir():
        table = pd.read_parquet(path)
        write_table(table if trained or path.stem == "runs" else table.iloc[:0], tmp_path / "basins" / path.name)
    monkeypatch.setenv("HESSKETCH_RESULTS", str(tmp_path))
    shown = []
    monkeypatch.setattr("IPython.display.display", shown.append)
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells)
    values = {}
    for cell in cells:
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]).replace("%matplotlib inline", ""), NOTEBOOK.name, "exec"), values)
    assert len(shown) == (3 + 3 if trained else 0)
