"""Every figure of the study on synthetic spectra of one and of four data sets; warnings are errors."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import same_color
from synthetic_tables import DIMENSION, spectra, training_runs

from hessketch.errors import InputError
from hessketch.figures import full_spectrum_components, full_spectrum_density, full_spectrum_sizes, style
from hessketch.figures.curves import density_limits, letters, one_eigenvalue
from hessketch.figures.overview import spectrum_overview
from hessketch.runs import IDENTITY
from hessketch.studies import full_spectrum
from hessketch.studies.spectra import select, with_network_labels

pytestmark = pytest.mark.filterwarnings("error")
NETWORK = "vgg11-batch-w0.0625"
SIZES = (10, 136)
DATASETS = {"mnist": 10, "fashion_mnist": 10, "cifar10": 10, "cifar100": 20}


def study(datasets, seeds=(0,), error=np.nan):
    runs = [
        {"dataset": dataset, "classes": DATASETS[dataset], "examples_per_class": size, "seed": seed, "width": 0.0625}
        for dataset in datasets
        for size in SIZES
        for seed in seeds
    ]
    tables = spectra(np.random.default_rng(1), runs, points=256, error=error)
    tables["outliers"] = full_spectrum.outliers(tables["ritz"], tables["eigenvalues"])
    tables["positions"] = full_spectrum.outlier_positions(tables["eigenvalues"])
    tables["components"] = full_spectrum.components(tables["ritz"])
    tables["tails"] = full_spectrum.tails(select(tables["density"], dataset="mnist", examples_per_class=136))
    tables["runs"] = training_runs(runs)
    return {name: with_network_labels(table) for name, table in tables.items()}


@pytest.fixture(scope="module")
def one():
    return study(["mnist"], seeds=(0, 1), error=0.2)


@pytest.fixture(scope="module")
def four():
    return study(DATASETS)


FIGURES = {
    "figure1": lambda t: full_spectrum_density.figure1(t["density"], t["eigenvalues"], NETWORK),
    "figure2": lambda t: full_spectrum_density.figure2(t["density"], t["eigenvalues"], NETWORK),
    "figure3": lambda t: full_spectrum_density.figure3(t["density"], t["eigenvalues"], "mnist", NETWORK, 136),
    "figure4": lambda t: full_spectrum_components.figure4(
        t["density"], t["eigenvalues"], t["tails"], "mnist", NETWORK, 136
    ),
    "figure5": lambda t: full_spectrum_density.figure5(t["density"], t["eigenvalues"], "mnist", NETWORK, SIZES),
    "accuracy": lambda t: full_spectrum_sizes.accuracy(t["runs"]),
    "outlier_count": lambda t: full_spectrum_sizes.outlier_count(t["outliers"]),
    "outlier_positions": lambda t: full_spectrum_sizes.outlier_positions(t["positions"]),
    "bulk_energy": lambda t: full_spectrum_sizes.bulk_energy(t["components"]),
    "negative_mass": lambda t: full_spectrum_sizes.negative_mass(t["components"]),
}
PANELS = {  # on one data set, on four
    "figure1": (1, 4),
    "figure2": (1, 4),
    "figure3": (2, 2),
    "figure4": (8, 8),
    "figure5": (4, 4),
    "accuracy": (1, 4),
    "outlier_count": (1, 5),  # the last compares numbers of classes
    "outlier_positions": (2, 5),  # one is the colour bar
    "bulk_energy": (2, 8),
    "negative_mass": (2, 8),
}


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_has_labelled_panels_for_each_data_set_whose_titles_fit_and_leaves_its_tables_alone(name, one, four):
    for tables, panels in zip((one, four), PANELS[name], strict=True):
        before = {key: table.copy() for key, table in tables.items()}
        figure = FIGURES[name](tables)
        figure.draw_without_rendering()
        assert len(figure.axes) == panels
        labels = {ax.get_xlabel() for ax in figure.axes} | {ax.get_ylabel() for ax in figure.axes}
        assert len(labels - {""}) >= 2
        for text in [ax.title for ax in figure.axes] + figure.texts:
            extent = text.get_window_extent()
            assert figure.bbox.x0 <= extent.x0 and extent.x1 <= figure.bbox.x1, text.get_text()
        for key, table in tables.items():
            pd.testing.assert_frame_equal(table, before[key])


def triangles(ax):
    return [line for line in ax.lines if line.get_marker() == "^" and line.get_linestyle() == "None"]


def test_figure1_draws_the_raw_train_hessian_with_its_deflated_eigenvalues_marked(four):
    figure = FIGURES["figure1"](four)
    titles = [ax.get_title() for ax in figure.axes]
    assert [title.split(",")[0] for title in titles] == [
        "(a) MNIST",
        "(b) Fashion-MNIST",
        "(c) CIFAR10",
        "(d) CIFAR100",
    ]
    cell = {"dataset": "cifar100", "examples_per_class": 136, "operator": "hessian", "split": "train"}
    curve = select(four["density"], **cell, deflated=False)
    ax = figure.axes[3]
    assert "$n$ = 2,720, $p$ = 240" in titles[3]
    assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_yscale()) == ("eigenvalue", "spectral density", "log")
    assert np.array_equal(ax.lines[0].get_xdata(), curve["eigenvalue"])
    positive = curve["density"] > 1e-6
    assert np.allclose(ax.lines[0].get_ydata()[positive], curve["density"][positive])
    [marks] = triangles(ax)
    assert marks.get_xdata().tolist() == select(four["eigenvalues"], **cell)["eigenvalue"].tolist()


def test_of_several_seeds_the_first_is_drawn_with_a_band_of_its_standard_error(one, four):
    ax = FIGURES["figure2"](one).axes[0]
    cell = {"examples_per_class": 136, "operator": "hessian", "split": "test", "seed": 0, "deflated": False}
    assert ax.lines[0].get_ydata().max() == select(one["density"], **cell)["density"].max()
    assert len(ax.collections) == 1
    assert len(FIGURES["figure2"](four).axes[0].collections) == 0


def test_without_deflation_the_raw_curves_are_drawn_and_nothing_is_marked(four):
    density = select(four["density"], deflated=False)
    empty = four["eigenvalues"].iloc[:0]
    raw = {**four, "density": density, "eigenvalues": empty}
    for name in ("figure1", "figure2", "figure4", "figure5"):
        figure = FIGURES[name](raw)
        assert all(not triangles(ax) for ax in figure.axes)


def test_figure3_has_the_deflated_density_above_and_the_raw_one_below(one):
    top, bottom = FIGURES["figure3"](one).axes
    cell = {"examples_per_class": 136, "operator": "hessian", "split": "train", "seed": 0}
    for ax, deflated in ((top, True), (bottom, False)):
        curve = select(one["density"], **cell, deflated=deflated)
        assert ax.lines[0].get_ydata().max() == curve["density"].max()
        assert len(triangles(ax)[0].get_xdata()) == 10
    assert top.texts[0].get_text() == "with deflation"
    assert bottom.texts[0].get_text() == "without deflation"


def test_figure4_draws_the_fits_with_their_r_squared(one):
    figure = FIGURES["figure4"](one)
    linear, logarithmic, zoom, tail = (figure.axes[i] for i in (0, 1, 6, 7))
    assert (linear.get_xscale(), logarithmic.get_xscale()) == ("linear", "log")
    assert (tail.get_xscale(), tail.get_yscale()) == ("log", "log")
    residual = {"examples_per_class": 136, "operator": "residual", "split": "test", "seed": 0, "deflated": False}
    x = select(one["density"], **residual)["eigenvalue"]
    assert zoom.get_xlim() == (x.min(), x.max())
    fits = select(one["tails"], **residual)
    labels = [text.get_text() for text in tail.get_legend().get_texts()]
    assert labels[0] == "positive"
    for fit in fits[fits["reason"] == ""].itertuples():
        assert any(f"$R^2$ = {fit.r_squared:.2f}" in label and f"-{fit.exponent:.1f}" in label for label in labels)
        assert f"Marchenko-Pastur, $R^2$ = {fit.mp_r_squared:.2f}" in labels
    assert len(labels) == 2 + 2 * (fits["reason"] == "").sum() > 2


def test_figure5_stands_many_sizes_below_each_other(one):
    frames = [one[name][one[name]["examples_per_class"] == 10] for name in ("density", "eigenvalues")]
    sizes = [10, 20, 40, 80, 160]
    density, eigenvalues = (pd.concat([frame.assign(examples_per_class=size) for size in sizes]) for frame in frames)
    figure = full_spectrum_density.figure5(density, eigenvalues, "mnist", NETWORK, sizes)
    titles = [ax.get_title().split("\n")[0] for ax in figure.axes]
    assert titles[:3] == ["train, 10 per class", "test, 10 per class", "train, 20 per class"]


def test_an_absent_network_is_an_error_that_lists_the_present_ones(one):
    with pytest.raises(InputError, match=NETWORK):
        full_spectrum_density.figure1(one["density"], one["eigenvalues"], "vgg11")


def test_bars_reach_over_the_seeds(one):
    figure = FIGURES["negative_mass"](one)
    ax = figure.axes[0]
    container = next(c for c in ax.containers if c.get_label() == "residual, train")
    rows = select(one["components"], operator="residual", split="train").groupby("examples_per_class")
    weights = rows["negative_mass"]
    assert container.lines[0].get_ydata() == pytest.approx(weights.mean().to_numpy())
    segments = container.lines[2][0].get_segments()
    assert [low for (_, low), _ in segments] == pytest.approx(weights.min().tolist())
    assert [high for _, (_, high) in segments] == pytest.approx(weights.max().tolist())


def test_the_outlier_count_has_lines_at_the_classes_and_one_less(one):
    for ax in FIGURES["outlier_count"](one).axes:
        levels = [line.get_ydata()[0] for line in ax.lines if len(line.get_ydata()) == 2 and line.get_color() == "0.75"]
        assert levels == [10, 9]


def test_positions_with_a_negative_member_are_not_drawn(one):
    positions = one["positions"]
    drawn = sum(len(c.get_offsets()) for c in full_spectrum_sizes.outlier_positions(positions).axes[0].collections)
    changed = positions.assign(hessian=positions["hessian"].where(positions["rank"] > 1, -1.0))
    fewer = sum(len(c.get_offsets()) for c in full_spectrum_sizes.outlier_positions(changed).axes[0].collections)
    assert drawn == len(positions)
    assert fewer == drawn - (positions["rank"] == 1).sum()


def test_accuracy_shows_other_rates_in_grey_and_no_diverged_run(one):
    ax = FIGURES["accuracy"](one).axes[0]
    [grey] = [line for line in ax.lines if line.get_label() == "other rates"]
    runs = one["runs"]
    others = runs[~runs["selected"] & (runs["status"] == "finished")]
    assert grey.get_ydata().tolist() == others["test_accuracy"].tolist()


def test_two_widths_of_one_network_get_panels_of_their_own(one):
    both = pd.concat([one["components"], one["components"].assign(network="vgg11-batch-w1", width=1.0)])
    figure = full_spectrum_sizes.bulk_energy(both)
    assert [ax.get_title().replace("\n", " ") for ax in figure.axes] == [
        "MNIST, VGG11, width 1/16, train",
        "MNIST, VGG11, width 1/16, test",
        "MNIST, VGG11, train",
        "MNIST, VGG11, test",
    ]


@pytest.fixture(scope="module")
def model(one):
    """Tables of one model without identity columns, with a curve of the Kernel Polynomial Method."""
    tables = {}
    for name in ("density", "eigenvalues"):
        rows = select(one[name], examples_per_class=136, split="test", seed=0)
        tables[name] = rows.drop(columns=[column for column in IDENTITY if column != "dataset"])
    kpm = select(tables["density"], deflated=False).assign(estimator="kpm", density=lambda f: 2 * f["density"])
    return pd.concat([tables["density"], kpm]), tables["eigenvalues"]


def test_the_overview_has_a_panel_an_operator_with_kpm_dashed_over_lanczos(model):
    density, eigenvalues = model
    figure = spectrum_overview(density, eigenvalues)
    assert [ax.get_title() for ax in figure.axes] == ["Hessian", "GGN", "residual"]
    assert [text.get_text() for text in figure.legends[0].texts] == ["Lanczos", "Kernel Polynomial Method"]
    assert f"$n$ = 1,360, $p$ = {DIMENSION}" in figure.get_suptitle()
    for ax, marks in zip(figure.axes, (1, 1, 0), strict=True):
        lanczos, kpm = ax.lines[:2]
        assert (lanczos.get_linestyle(), kpm.get_linestyle()) == ("-", "--")
        assert kpm.get_ydata().max() == pytest.approx(2 * lanczos.get_ydata().max())
        assert len(triangles(ax)) == marks
    assert same_color(figure.axes[1].lines[0].get_color(), style.COLOURS["ggn"])


def test_the_overview_of_one_operator_without_kpm_or_deflation_is_one_plain_panel(model):
    density, eigenvalues = model
    plain = select(density, operator="ggn", estimator="lanczos", deflated=False)
    [ax] = spectrum_overview(plain, eigenvalues.iloc[:0]).axes
    assert len(ax.lines) == 1
    assert not ax.figure.legends


def test_one_eigenvalue_is_as_high_as_the_kernel_over_p(one):
    curve = select(one["density"], examples_per_class=10, operator="ggn", split="train", seed=0, deflated=True)
    width = curve["broadening"].iloc[0]
    assert one_eigenvalue(curve) == pytest.approx(1 / (DIMENSION * width * np.sqrt(2 * np.pi)))
    bottom, top = density_limits(curve)
    assert bottom == pytest.approx(one_eigenvalue(curve) / 30) and top > curve["density"].max()


def test_panels_have_letters_only_where_there_are_several():
    assert letters(1) == [""]
    assert letters(3) == ["(a)", "(b)", "(c)"]
    assert letters(27) == [""] * 27


@pytest.mark.parametrize("name", ["outlier_count", "outlier_positions", "bulk_energy", "negative_mass"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_a_summary_of_one_split_draws_that_split_alone(one, name, split):
    tables = {key: t[t["split"] == split] if "split" in t else t for key, t in one.items()}
    figure = FIGURES[name](tables)
    figure.draw_without_rendering()
    drawn = [ax for ax in figure.axes if ax.lines or ax.collections]
    assert len(drawn) == len(figure.axes) > 0
