"""The studies of eigenspaces, over-parametrized networks and basins in the real Snakefile, on tiny profiles."""

from copy import deepcopy

import numpy as np
import pytest
from conftest import FEDERATION, Project

from hessketch.records import read_record, read_table

TANH = {"name": "mlp_tanh", "norm": "none", "width": 0.15}
MLP = {"name": "mlp", "norm": "none", "width": 0.02}
SECTIONS = {
    "eigenspaces": {
        "datasets": {
            "digits-8x8-raw": {
                "examples_per_class": 6,
                "test_examples_per_class": 3,
                "hessian_examples_per_class": 3,
                "learning_rate": 0.3,
                "networks": [TANH],
            }
        },
        "seeds": [0],
        "batch_size": 20,
        "steps": 60,
        "checkpoint_steps": [0, 60],
        "stability_steps": [0, 20, 60],
        "splits": ["train"],
        "pairs": 0.08,
        "probes": 4,
        "trainers": ["count_sketch-x2.5"],
        "metric_study": {"dimensions": [16, 32], "ratios": [0.5, 0.25], "samples": 4},
    },
    "over_parametrized": {
        "datasets": {
            "digits-8x8": {
                "examples_per_class": 4,
                "test_examples_per_class": 3,
                "learning_rate": 0.1,
                "networks": [MLP],
            },
        },
        "seeds": [0],
        "batch_size": 10,
        "steps": 100,
        "checkpoint_steps": [0, 100],
    },
    "basins": {
        "datasets": {
            "digits-8x8": {
                "examples_per_class": 10,
                "test_examples_per_class": 3,
                "learning_rate": 0.1,
                "networks": [MLP],
            }
        },
        "seeds": [0, 1],
        "large_batch": "all",
        "small_batch": 10,
        "steps": 60,
        "switch_step": 30,
        "path_steps": 60,
        "points": 4,
    },
    "federation": {
        **FEDERATION,
        "datasets": {"digits-8x8": {"examples_per_class": 10, "test_examples_per_class": 3}},
        "networks": [MLP],
        "seeds": [0],
        "methods": ["count_sketch"],
        "learning_rates": [0.0001],
        "rounds": 2,
        "checkpoint_rounds": [1, 2],
        "checkpoint_losses": [],
        "spectra_of": [],
    },
}
STUDIES = ("eigenspaces", "over_parametrized", "basins")
TABLES = {
    "eigenspaces": {
        "overlaps", "layers", "eigenvalues", "quality", "metrics", "stability", "metric_study", "runs",
        "overlap_summary", "shares_above", "stabilisation", "sketch_quality", "width_summary", "federated_summary",
    },
    "over_parametrized": {
        "spectra", "alignments", "runs", "counts", "outlier_match", "width_sweep", "data_sweep", "slopes",
    },
    "basins": {"paths", "barriers", "runs", "barrier_summary", "best_places"},
}  # fmt: skip
# The studies' own tests draw every figure from tables, and run the notebooks.
FIGURES = ("eigenspaces/digits-8x8-raw-mlp_tanh-none-w0.15/overlap_over_steps",)


@pytest.fixture(scope="module")
def studied(tmp_path_factory) -> Project:
    """A project in which the tables of the three studies and a figure have been made."""
    project = Project(tmp_path_factory.mktemp("landscape"))
    project.configure(**deepcopy(SECTIONS))
    project.wanted = [f"figures/tiny/{figure}.png" for figure in FIGURES]
    project.wanted += ["results/tiny/over_parametrized/counts.parquet", "results/tiny/basins/barriers.parquet"]
    done = project.snakemake(*project.wanted)
    assert done.returncode == 0, done.stdout[-6000:]
    project.said = done.stdout
    return project


def table(project, study, name):
    return read_table(project.folder / f"results/tiny/{study}/{name}.parquet")


@pytest.mark.parametrize("study", STUDIES)
def test_every_table_has_rows_but_those_of_sweeps_without_a_second_value(studied, study):
    found = {path.stem for path in (studied.folder / f"results/tiny/{study}").glob("*.parquet")}
    assert found == TABLES[study]
    empty = {name for name in found if table(studied, study, name).empty}
    assert empty <= {"width_summary", "federated_summary", "data_sweep", "width_sweep", "slopes"}


def test_the_figures_show_something(studied):
    for figure in FIGURES:
        assert {(studied.folder / f"figures/tiny/{figure}.{kind}").is_file() for kind in ("pdf", "png")} == {True}
        study, folder, name = figure.split("/")
        log = studied.folder / f"logs/tiny/{study}_figure/{folder}/{name}.log"
        assert "nothing to draw" not in log.read_text()


def test_the_banner_counts_the_stages_and_a_second_call_finds_nothing_to_do(studied):
    stages = (
        "profile tiny: 2 data sets, 1 group of federated trainings, 3 followed trainings, 1 comparison of metrics, "
        "2 measurements of eigenspaces, 1 exact spectrum along trainings, 1 comparison of solutions, 3 tables, "
        "1 figure"
    )
    assert stages in studied.said, next(line for line in studied.said.splitlines() if "profile tiny" in line)
    assert "Nothing to be done" in studied.snakemake(*studied.wanted).stdout


def test_overlaps_are_measured_exactly_and_sketched_and_along_federated_rounds(studied):
    overlaps = table(studied, "eigenspaces", "overlaps")
    followed, federated = (overlaps[overlaps["kind"] == kind] for kind in ("step", "round"))
    assert set(followed["time"]) == {0, 60} and set(followed["method"]) == {"exact", "sketched"}
    assert set(federated["time"]) == {1, 2} and set(federated["trainer"]) == {"count_sketch-x2.5"}
    assert set(overlaps["mask"]) == {"magnitude", "magnitude_by_layer", "best"}
    assert overlaps["overlap"].between(0, 1).all() and np.allclose(overlaps["chance"], overlaps["k"] / overlaps["p"])
    dead = followed["p"] - followed["live"]
    assert (dead > 0).all()  # the corners of digits are always black, and these data are not normalised
    quality = table(studied, "eigenspaces", "quality")
    assert quality.loc[quality["method"] == "exact", "residual_squared"].gt(0).all()


def test_every_eigenvalue_of_every_network_and_step_is_counted(studied):
    counts = table(studied, "over_parametrized", "counts")
    assert set(counts["operator"]) == {"hessian", "ggn", "output_gradients"} and set(counts["time"]) == {0, 100}
    assert counts["near_zero"].between(0, counts["p"]).all()
    spectra = table(studied, "over_parametrized", "spectra")
    sizes = spectra.groupby(["dataset", "width", "operator", "time"]).agg(n=("rank", "size"), p=("p", "first"))
    assert (sizes["n"] == sizes["p"]).all() and len(sizes) == 3 * 2


def test_pairs_of_solutions_are_joined_by_lines_and_paths(studied):
    barriers = table(studied, "basins", "barriers")
    assert len(barriers) == 3 * 2 * 2 and set(barriers["pair"]) == {"continued", "same_start", "other_start"}
    assert set(barriers["second_trainer"]) == {"sgd-b10", "sgd-full-b10"}
    ends = barriers[[column for column in barriers if column.startswith(("first_train", "second_train"))]]
    assert ends.notna().all(axis=None)
    record = read_record(studied.folder / "results/tiny/basins/measured/digits-8x8/mlp-none-w0.02/record.json")
    assert [part["left_out"] for part in record["measured"]] == [None] * 6


def test_more_eigenpairs_than_parameters_stop_before_the_first_job(project):
    sections = deepcopy(SECTIONS)
    sections["eigenspaces"]["pairs"] = 5000
    sections["over_parametrized"]["max_parameters"] = 100
    project.configure(**sections)
    done = project.snakemake(*STUDIES)
    assert done.returncode != 0
    assert "eigenspaces.pairs: 5000 eigenpairs asked for, mlp_tanh of width 0.15 on digits-8x8-raw has" in done.stdout
    assert "over_parametrized.datasets.digits-8x8.networks: mlp of width 0.02 on digits-8x8 has 415 par" in done.stdout
    assert not project.made()
