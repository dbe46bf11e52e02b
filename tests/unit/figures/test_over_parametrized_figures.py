"""Figures of over-parametrized networks draw the numbers of their tables; warnings are errors."""

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
from synthetic_over_parametrized import DATASET, LABELS, point, record, spectra_table, spectrum, study

from hessketch.errors import InputError
from hessketch.figures import over_parametrized_counts, over_parametrized_outliers, over_parametrized_spectra
from hessketch.figures.over_parametrized_counts import held_words
from hessketch.figures.over_parametrized_marks import STAGES, thinned
from hessketch.records import write_table
from hessketch.studies.over_parametrized import counts, ends, of_data, outlier_match
from hessketch.studies.over_parametrized_sweeps import data_sweep, slopes, through, width_sweep
from hessketch.studies.raw_tables import runs_table

pytestmark = pytest.mark.filterwarnings("error")
ROOT = Path(__file__).parents[3]
NOTEBOOK = ROOT / "notebooks/over_parametrized.ipynb"
CELL = (DATASET, LABELS[1])


def derived(chosen=None, seeds=(0, 1), steps=(0, 10, 100)):
    """All tables of the study, as the script derives them."""
    raw = study(chosen, seeds, steps)
    counted = counts(raw["spectra"])
    return {
        "spectra": ends(raw["spectra"]),
        "alignments": raw["alignments"],
        "counts": counted,
        "outlier_match": outlier_match(**raw),
        "width_sweep": width_sweep(counted),
        "data_sweep": data_sweep(counted),
        "slopes": slopes(counted),
    }


@pytest.fixture(scope="module")
def full():
    return derived()


@pytest.fixture(scope="module")
def small():
    """One seed, one checkpoint, one network on two data sets."""
    return derived([{}, {"classes": 2}], (0,), (100,))


FIGURES = {
    "spectrum_before_after": lambda t: over_parametrized_spectra.spectrum_before_after(of(t, "spectra", *CELL)),
    "width": lambda t: over_parametrized_spectra.width(of(t, "spectra", DATASET)),
    "width_counts": lambda t: over_parametrized_counts.width_counts(of(t, "counts", DATASET)),
    "data": lambda t: over_parametrized_counts.data(through(t["data_sweep"], *CELL)),
    "training": lambda t: over_parametrized_counts.training(of(t, "counts", *CELL)),
    "output_gradients": lambda t: over_parametrized_outliers.output_gradients(of(t, "outlier_match", *CELL)),
}
DRAWING = {name: getattr(module, name) for module in (
    over_parametrized_spectra, over_parametrized_counts, over_parametrized_outliers
) for name in FIGURES if hasattr(module, name)}  # fmt: skip
TABLE = {
    "spectrum_before_after": "spectra", "width": "spectra", "width_counts": "counts", "data": "data_sweep",
    "training": "counts", "output_gradients": "outlier_match",
}  # fmt: skip
PANELS = {  # of the full study, of the small one
    "spectrum_before_after": (2, 2), "width": (2, 2), "width_counts": (4, 4), "data": (4, 2), "training": (2, 2),
    "output_gradients": (4, 2),
}  # fmt: skip


def of(tables, name, *cell):
    return of_data(tables[name], *cell)


@pytest.fixture(scope="module")
def drawn(full):
    """Each figure of the full study, drawn once for the tests that only read it; by name."""
    return cache(lambda name: FIGURES[name](full))


def touching(axis):
    """Neighbouring labels of an axis whose boxes overlap."""
    shown = [(label.get_window_extent(), label.get_text()) for label in axis.get_ticklabels() if label.get_visible()]
    low, high = ("x0", "x1") if axis.axis_name == "x" else ("y0", "y1")
    places = sorted((getattr(box, low), getattr(box, high), text) for box, text in shown if text and box.width > 0)
    return [(one[2], other[2]) for one, other in pairwise(places) if one[1] > other[0] + 1]


def texts_of(figure):
    texts = [figure._suptitle] + [ax.title for ax in figure.axes]
    for legend in figure.legends:
        texts += legend.get_texts()
    return texts + [ax.xaxis.label for ax in figure.axes] + [ax.yaxis.label for ax in figure.axes]


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_has_labelled_panels_whose_texts_fit_and_leaves_its_tables_alone(name, full, small, drawn):
    whole, least = PANELS[name]
    for tables, panels in [(full, whole)] + [(small, least)] * (whole != least):
        before = tables[TABLE[name]].copy()
        figure = drawn(name) if tables is full else FIGURES[name](tables)
        figure.draw_without_rendering()
        assert len(figure.axes) == panels
        labels = {ax.get_xlabel() for ax in figure.axes} | {ax.get_ylabel() for ax in figure.axes}
        assert len(labels - {""}) >= 2 and len(figure.legends[0].texts) >= 2
        for text in texts_of(figure):
            extent = text.get_window_extent()
            assert figure.bbox.x0 - 1 <= extent.x0 and extent.x1 <= figure.bbox.x1 + 1, text.get_text()
            assert figure.bbox.y0 - 1 <= extent.y0 and extent.y1 <= figure.bbox.y1 + 1, text.get_text()
        assert not [pair for ax in figure.axes for axis in (ax.xaxis, ax.yaxis) for pair in touching(axis)]
        pd.testing.assert_frame_equal(tables[TABLE[name]], before)


@pytest.mark.parametrize("name", FIGURES)
def test_an_empty_table_is_refused(name, full):
    with pytest.raises(InputError, match="the table has no rows of it"):
        DRAWING[name](full[TABLE[name]].iloc[:0])


@pytest.mark.parametrize("name", [name for name in FIGURES if name != "data"])
def test_rows_of_two_settings_are_refused(name, full):
    rows = of(full, TABLE[name], *CELL)
    with pytest.raises(InputError, match=r"several values of trainer \(sgd-b5, sgd-full\)"):
        DRAWING[name](pd.concat([rows, rows.assign(trainer="sgd-full")]))


def test_two_sweeps_along_one_axis_are_refused(full):
    rows = through(full["data_sweep"], *CELL)
    with pytest.raises(InputError, match="2 values of fixed along separation; allowed: one"):
        DRAWING["data"](pd.concat([rows, rows.assign(fixed="clusters-k9-d10")]).query("axis == 'separation'"))


def test_all_eigenvalues_are_drawn_in_their_order_as_means_over_seeds(drawn):
    whole, leading = drawn("spectrum_before_after").axes
    trained = next(line for line in whole.lines if same_color(line.get_color(), STAGES["trained"]["color"]))
    expected = np.mean([spectrum(point(seed=seed)) for seed in (0, 1)], axis=0)
    assert trained.get_ydata() == pytest.approx(expected)
    assert trained.get_xdata() == pytest.approx(np.arange(1, 201) / 200)
    assert leading.lines[0].get_ydata()[:4] == pytest.approx(1.05 * np.linspace(4.0, 2.0, 4))
    assert [len(line.get_xdata()) for line in leading.lines[:2]] == [16, 16]
    assert whole.get_yscale() == "symlog" and whole.get_ylim()[0] < 0


def test_each_width_is_a_line_by_rank_and_one_by_share(drawn):
    figure = drawn("width")
    by_rank, by_share = figure.axes
    for p, rank_line, share_line in zip((100, 200, 400), by_rank.lines, by_share.lines, strict=False):
        assert rank_line.get_xdata().max() == p and share_line.get_xdata().max() == 1.0
        assert rank_line.get_ydata() == pytest.approx(share_line.get_ydata())
    assert [text.get_text() for text in figure.legends[0].texts][:3] == ["$p$ = 100", "$p$ = 200", "$p$ = 400"]


def test_counts_over_width_have_a_line_a_checkpoint(drawn, full):
    figure = drawn("width_counts")
    counted = full["counts"].query("operator == 'hessian' and time == 100 and dataset == @DATASET")
    for ax, name in zip(figure.axes, ("near_zero", "negative", "outliers", "bulk_90"), strict=True):
        line = ax.lines[2]
        assert line.get_xdata().tolist() == [100, 200, 400]
        assert line.get_ydata() == pytest.approx(counted.groupby("p")[name].mean().to_numpy())
    assert figure.axes[0].lines[3].get_ydata().tolist() == [100, 200, 400]
    assert figure.axes[2].lines[3].get_ydata()[0] == 4


def test_of_many_checkpoints_five_are_drawn(full):
    rows = of(full, "counts", *CELL).query("time == 0")
    many = pd.concat([rows.assign(time=time) for time in range(12)])
    assert len(DRAWING["width_counts"](many).legends[0].texts) == 5 + 1


def test_counts_of_zero_have_a_place(full):
    rows = of(full, "counts", DATASET).assign(negative=0)
    assert DRAWING["width_counts"](rows).axes[1].get_yscale() == "symlog"


def test_outliers_follow_the_classes_of_the_sweep(drawn):
    figure = drawn("data")
    assert figure.axes[0].get_title() == "(a) outliers, 10 dimensions, separation 3"
    assert figure.axes[2].get_title() == "(c) outliers, 4 clusters in 10 dimensions"
    trained = figure.axes[0].containers[1].lines[0]
    assert trained.get_xdata().tolist() == [2, 4, 8] and trained.get_ydata().tolist() == [2, 4, 8]
    assert figure.axes[2].containers[1].lines[0].get_ydata().tolist() == [4, 4, 4]
    largest = figure.axes[1].containers[0].lines[0]
    assert largest.get_ydata() == pytest.approx([21.0] * 3)


def test_what_an_axis_holds_is_said_in_words():
    assert held_words("mnist-14x14") == "MNIST, 14x14" and held_words("digits") == "digits"


def test_the_ratio_of_the_ends_is_drawn_along_training(drawn):
    numbers, ratio = drawn("training").axes
    ends_of = [[spectrum(point(step, seed)) for seed in (0, 1)] for step in (0, 10, 100)]
    expected = [np.mean([-values[-1] / values[0] for values in seeds]) for seeds in ends_of]
    assert ratio.lines[0].get_ydata() == pytest.approx(expected)
    assert numbers.lines[3].get_ydata().tolist() == [4, 4, 4] and "step" in numbers.get_xlabel()


def test_eigenvalues_of_the_hessian_stand_against_those_of_the_others(drawn):
    values, overlaps = drawn("output_gradients").axes[2:]
    ggn, beyond, gradients = values.lines[:3]
    assert ggn.get_xdata() == pytest.approx(0.98 * np.r_[tuple(spectrum(point(seed=s))[:4] for s in (0, 1))])
    assert gradients.get_xdata() == pytest.approx(4 * ggn.get_ydata()) and len(beyond.get_xdata()) == 8
    assert overlaps.lines[0].get_ydata() == pytest.approx([0.99, 0.98, 0.97, 0.96, 0.95])
    assert overlaps.lines[2].get_ydata() == pytest.approx(np.arange(1, 6) / 200)


def test_without_other_operators_nothing_stands_against_the_hessian(full):
    rows = outlier_match(spectra_table([point()], ("hessian",)), study([{}])["alignments"].iloc[:0])
    figure = DRAWING["output_gradients"](of_data(rows, *CELL))
    figure.draw_without_rendering()
    assert not any(len(line.get_xdata()) for line in figure.axes[0].lines)


def test_a_long_line_is_thinned_to_its_ends_and_some_between():
    ranks = thinned(range(1, 20_001))
    assert len(ranks) <= 400 and ranks[:100] == list(range(1, 101)) and ranks[-100:] == list(range(19_901, 20_001))
    assert np.diff(ranks).max() <= 203 and thinned([3, 1, 2]) == [1, 2, 3]


@pytest.fixture(scope="module")
def folder(full, tmp_path_factory):
    """All tables of the study, as the script writes them; a run of another width diverged."""
    path = tmp_path_factory.mktemp("results") / "over_parametrized"
    runs = runs_table([record(width=width) for width in (0.25, 0.5, 1.0)] + [record("diverged", width=9)])
    for name, table in {**full, "runs": runs}.items():
        write_table(table, path / f"{name}.parquet")
    return path


@pytest.fixture(scope="module")
def script():
    """The plotting script as a module, so that each figure does not import everything anew."""
    spec = importlib.util.spec_from_file_location("plot", ROOT / "workflow/scripts/plot_over_parametrized.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("figure", "more", "says"),
    [
        ("training", ["--network", LABELS[1]], "drew training"),
        ("training", ["--network", "mlp-none-w9"], "nothing to draw: the run diverged"),
    ],
)
def test_the_script_draws_a_figure_or_says_why_not(script, folder, tmp_path, monkeypatch, figure, more, says):
    monkeypatch.setattr("hessketch.figures.style.render", lambda drawn, format, source: format.encode())
    said = []
    files = ["--pdf", tmp_path / "f.pdf", "--png", tmp_path / "f.png"]
    arguments = [figure, "--tables", folder, *files, "--dataset", DATASET, *more]
    script.plot(script.parse([str(one) for one in arguments]), SimpleNamespace(say=said.append))
    assert said == [says] and (tmp_path / "f.pdf").read_text() == "pdf" and (tmp_path / "f.png").read_text() == "png"


@pytest.mark.parametrize("figure", FIGURES)
def test_the_script_gives_each_figure_the_rows_that_it_draws(script, full, figure):
    words = ["--tables", "t", "--pdf", "f.pdf", "--png", "f.png", "--dataset", DATASET, "--network", LABELS[1]]
    arguments = script.parse([figure, *words])
    module, (table,), of_network = script.FIGURES[figure]
    assert table == TABLE[figure] and DRAWING[figure].__module__.endswith(module)
    rows = script.rows_of(full[table], arguments)
    assert set(rows["network"]) == ({LABELS[1]} if of_network else set(LABELS))
    assert script.rows_of(full[table].iloc[:0], arguments).empty


def test_the_script_refuses_names_of_no_run_and_asks_for_the_network(script, folder, tmp_path, capsys):
    given = ["training", "--tables", str(folder), "--pdf", "f.pdf", "--png", "f.png", "--dataset", DATASET]
    with pytest.raises(SystemExit):
        script.parse(given)
    assert "training needs --network" in capsys.readouterr().err
    with pytest.raises(InputError, match=r"no rows with network = 'mlp'; the table has .*'mlp-none-w0\.25'"):
        script.plot(script.parse([*given, "--network", "mlp"]), SimpleNamespace(say=print))


def notebook_cells():
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells)
    return ["".join(cell["source"]).replace("%matplotlib inline", "") for cell in cells if cell["cell_type"] == "code"]


def test_the_notebook_runs_on_the_tables(folder, monkeypatch):
    monkeypatch.setenv("HESSKETCH_RESULTS", str(folder.parent))
    shown = []
    monkeypatch.setattr("IPython.display.display", shown.append)
    values = {}
    for source in notebook_cells():
        exec(compile(source, NOTEBOOK.name, "exec"), values)
    assert len(shown) == 2 + 3  # width figures of one data set; sweeps through the middle and through each axis
    assert values["summary"]["overlap_ggn"].between(0.9, 1).all() and len(values["drawn"]) == 3
