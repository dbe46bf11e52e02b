"""The two studies of what happens during training in the real Snakefile: everything is made once; bad input nothing."""

import os
import re
import signal
import time
from copy import deepcopy

import numpy as np
import pytest
import torch
from conftest import FEDERATION, Project

from hessketch.data.of_run import examples_of_run
from hessketch.data.prepared import read_prepared
from hessketch.records import read_record, read_table, read_tensors
from hessketch.runs import IDENTITY, Run
from hessketch.training.trajectories import follow_runs
from hessketch.training.trajectory import TrajectorySettings
from hessketch.trajectories import read_trajectory

PREDICTORS = {
    "datasets": {
        "digits-classes3+8": {
            "examples_per_class": 2,
            "learning_rates": {"binary_cross_entropy": 0.05, "sigmoid_squared_error": 0.05},
        }
    },
    "networks": [{"name": "resnet18_smooth", "norm": "batch", "width": 0.015625}],
    "seeds": [0],
    "epochs": 1,
    "checkpoint_epochs": [0, 1],
    "examples": [0, 3],
    "lanczos_steps": 5,
    "start_vectors": 2,
    "fast_steps": 6,
    "fast_start_vectors": 1,
    "top": 1,
    "grid_points": 64,
    "trainers": ["count_sketch-x2.5"],
}
CLIENTS = {
    **FEDERATION,
    "networks": [{"name": "mlp", "norm": "none", "width": 0.02}],
    "seeds": [0],
    "methods": ["count_sketch"],
    "learning_rates": [0.0001],
    "rounds": 2,
    "checkpoint_rounds": [1, 2],
    "checkpoint_losses": [],
    "spectra_of": [],
}
DYNAMIC = {
    "datasets": {
        "digits-8x8": {
            "examples_per_class": [4, 2],
            "test_examples_per_class": 3,
            "label_noise": [0, 0.25],
            "learning_rate": 0.02,
            "networks": [{"name": "mlp", "norm": "none", "width": 0.02}],
        }
    },
    "seeds": [0],
    "batch_sizes": [10, "all"],
    "steps": 3000,
    "checkpoint_steps": [0, 4, 3000],
    "top": 3,
    "samples": 30,
    "posterior_samples": 10,
    "sigmas": [0.1, 1],
}
DYNAMICS_DATA = "digits-8x8"

NAMES = [*IDENTITY, "method", "error_feedback", "reduction"]
KEYS = [*NAMES, "kind", "time", "train_loss", "example", "label", "p", "outputs", "estimator"]
POINT = [
    *IDENTITY, "batch_size", "step", "epoch", "train_loss", "train_accuracy", "test_loss", "test_accuracy", "n", "p",
    "classes",
]  # fmt: skip
RAW = {
    "predictor_hessian": {
        "kappa": [*KEYS, "example_loss", "slope", "largest_eigenvalue", "smallest_eigenvalue", "largest_magnitude",
                  "absolute_sum", "absolute_sum_standard_error", "kappa", "kappa_standard_error", "kappa_smoothed",
                  "kappa_floor", "products", "seconds"],
        "density": [*KEYS, "eigenvalue", "density", "density_standard_error", "broadening"],
    },
    "sgd_dynamics": {
        "eigenvalues": [*POINT, "operator", "rank", "eigenvalue"],
        "curvature": [*POINT, "operator", "exact", "trace", "trace_standard_error", "largest_eigenvalue",
                      "smallest_eigenvalue", "negative_share", "near_zero_share"],
        "overlaps": [*POINT, "first", "second", "k", "overlap", "chance"],
        "angles": [*POINT, "first", "second", "index", "angle"],
        "loss_changes": [*POINT, "scheme", "step_size", "samples", "mean", "standard_error", "standard_deviation",
                         "q01", "q05", "q10", "q25", "q50", "q75", "q90", "q95", "q99", "share_decreasing",
                         "predicted_first", "predicted_drift", "predicted_noise", "predicted_mean",
                         "predicted_standard_deviation", "bound_lower", "bound_upper", "bound_probability", "regime",
                         "exact"],
        "bounds": [*POINT, "sigma", "chosen", "effective_curvature", "active", "distance", "log_term",
                   "right_hand_side", "posterior_train_error", "posterior_train_error_standard_error",
                   "posterior_test_error", "posterior_test_error_standard_error", "bound", "train_error", "test_error",
                   "diagonal", "confidence"],
    },
}  # fmt: skip
DERIVED = {
    "predictor_hessian": {"kappa_over_time", "runs"},
    "sgd_dynamics": {"runs", "bound_correlations", "coverage"},
}
FIGURES = {
    "predictor_hessian": {
        "digits-classes3+8-resnet18_smooth-batch-w0.015625": {"density_over_epochs", "kappa_over_epochs"},
        "digits-mlp-none-w0.02": {"density_over_rounds", "kappa_over_rounds"},
    },
    "sgd_dynamics": {
        "digits-8x8-mlp-none-w0.02": {
            "eigenvalues", "overlap", "overlap_against_k", "angles", "loss_change-noise0", "loss_change-noise0.25",
            "decrease-noise0", "decrease-noise0.25",
        },
        "digits-8x8": {"bound", "bound_against_error"},
    },
}  # fmt: skip
STUDIES = tuple(RAW)


def sections(**changes):
    """Both sections and the federation; keys of a section changed as `sgd_dynamics={"top": 5}`."""
    whole = deepcopy({"predictor_hessian": PREDICTORS, "sgd_dynamics": DYNAMIC, "federation": CLIENTS})
    return {name: {**section, **changes.get(name, {})} for name, section in whole.items()}


@pytest.fixture(scope="module")
def studied(tmp_path_factory) -> Project:
    """A project in which both studies have been made, after a kill in the second of five followed trainings."""
    project = Project(tmp_path_factory.mktemp("studied"))
    project.configure(**sections())
    kill_in_the_second_run(project)
    done = project.snakemake(*STUDIES)
    assert done.returncode == 0, done.stdout[-6000:]
    project.said = done.stdout
    return project


def followed(project, trainer):
    run = f"{DYNAMICS_DATA}/noise0/n4/mlp-none-w0.02/cross_entropy/{trainer}/lr0.02/seed0"
    return project.folder / "results/tiny/sgd_dynamics/runs" / run


def kill_in_the_second_run(project):
    """SIGKILL of Snakemake and its job; `project.finished` is the record of the first run."""
    first, second = (followed(project, trainer) for trainer in ("sgd-b10", "sgd-full"))
    process = project.start(str((second / "record.json").relative_to(project.folder)), HESSKETCH_SAVE_EVERY="0")
    deadline = time.monotonic() + 120
    while not (second / "partial/resume.safetensors").exists():
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (first / "record.json").exists() and not (second / "partial/record.json").exists()
    project.finished = read_record(first / "partial/record.json")
    assert project.snakemake("--unlock").returncode == 0


def table(project, study, name):
    return read_table(project.folder / f"results/tiny/{study}/{name}.parquet")


@pytest.mark.parametrize("study", STUDIES)
def test_every_table_of_the_study_is_there_with_its_columns(studied, study):
    folder = studied.folder / f"results/tiny/{study}"
    assert {path.stem for path in folder.glob("*.parquet")} == set(RAW[study]) | DERIVED[study]
    for name, columns in RAW[study].items():
        found = table(studied, study, name)
        assert [column for column in found if column in columns] == columns, name
        assert len(found), name
    assert all(len(table(studied, study, name)) for name in DERIVED[study])


@pytest.mark.parametrize("study", STUDIES)
def test_every_figure_and_the_notebook_are_there(studied, study):
    for folder, names in FIGURES[study].items():
        found = {path.name for path in (studied.folder / f"figures/tiny/{study}/{folder}").iterdir()}
        assert found == {f"{name}.{kind}" for name in names for kind in ("pdf", "png")}
    assert {path.name for path in (studied.folder / f"figures/tiny/{study}").iterdir()} == set(FIGURES[study])
    logs = list((studied.folder / f"logs/tiny/{study}_figure").rglob("*.log"))
    assert len(logs) == sum(map(len, FIGURES[study].values()))
    assert not [log for log in logs if "nothing to draw" in log.read_text()]
    assert (studied.folder / f"results/tiny/{study}/notebook.html").stat().st_size > 100_000


def test_the_banner_counts_the_stages_of_both_studies(studied):
    """All but the data set that the killed call had prepared."""
    assert re.search(
        r"profile tiny: 2 data sets, 1 group of federated trainings, 2 followed trainings, 2 spectra of predictors, "
        r"1 measurement along trainings, 2 tables, 14 figures, 2 notebooks",
        studied.said,
    )
    assert not (studied.folder / "logs/tiny/train").exists()


def test_the_end_names_the_folders_that_there_are_and_the_report_of_what_was_asked_for(studied):
    made = "results/tiny/predictor_hessian/, results/tiny/sgd_dynamics/"
    assert f"\nFigures: figures/tiny/\nTables and notebooks: {made}\n" in studied.said
    report = "predictor_hessian sgd_dynamics --configfile config/tiny.yaml --report results/tiny/workflow.html"
    assert f"Snakemake's own report: snakemake {report}\n" in studied.said and "\nReport: " not in studied.said
    done = studied.snakemake(*STUDIES, "--report", "results/tiny/workflow.html")
    assert done.returncode == 0 and "substitution" not in done.stdout, done.stdout[-3000:]
    assert (studied.folder / "results/tiny/workflow.html").stat().st_size > 100_000


def test_predictor_hessians_are_those_of_every_loss_epoch_and_example_and_of_every_round(studied):
    kappa = table(studied, "predictor_hessian", "kappa")
    epochs, rounds = (kappa[kappa["kind"] == kind] for kind in ("epoch", "round"))
    assert len(epochs) == 2 * 2 * 2 * 2  # losses, epochs, examples, estimators
    assert set(epochs["time"]) == {0, 1} and set(epochs["example"]) == {0, 3} and set(epochs["outputs"]) == {1}
    assert set(epochs["loss"]) == {"binary_cross_entropy", "sigmoid_squared_error"} and set(epochs["label"]) <= {0, 1}
    assert set(epochs["method"]) == {"sgd"} and epochs["reduction"].isna().all() and not epochs["error_feedback"].any()
    assert len(rounds) == 2 * 2 * 2 and set(rounds["time"]) == {1, 2} and set(rounds["outputs"]) == {10}
    assert set(rounds["trainer"]) == {"count_sketch-x2.5"} and set(rounds["reduction"]) == {2.5}
    assert np.allclose(kappa["kappa"], kappa["absolute_sum"] / kappa["largest_magnitude"])
    paper, fast = (kappa[kappa["estimator"] == name] for name in ("paper", "fast"))
    assert paper["kappa_smoothed"].notna().all() and fast["kappa_smoothed"].isna().all()


def test_losses_of_a_table_are_those_of_the_training(studied):
    kappa = table(studied, "predictor_hessian", "kappa")
    kappa = kappa[kappa["kind"] == "epoch"]
    for (loss, rate), rows in kappa.groupby(["loss", "learning_rate"]):
        run = f"digits-classes3+8/noise0/n2/resnet18_smooth-batch-w0.015625/{loss}/sgd-full/lr{rate}/seed0"
        architecture, kept = read_trajectory(
            studied.folder / f"results/tiny/predictor_hessian/runs/{run}/trajectory.safetensors"
        )
        assert architecture.classes == 1
        losses = {facts["epoch"]: facts["train_loss"] for facts, _ in kept}
        assert rows.groupby("time")["train_loss"].unique().map(list).to_dict() == {e: [v] for e, v in losses.items()}


def test_dynamics_cross_noise_and_batches_and_bound_the_smaller_training_set_too(studied):
    eigenvalues, bounds = (table(studied, "sgd_dynamics", name) for name in ("eigenvalues", "bounds"))
    cells = {(0.0, "sgd-b10", 4), (0.25, "sgd-b10", 4), (0.0, "sgd-full", 4), (0.25, "sgd-full", 4)}

    def found(rows):
        return set(rows[["label_noise", "trainer", "examples_per_class"]].itertuples(index=False, name=None))

    assert found(eigenvalues) == cells and found(bounds) == cells | {(0.0, "sgd-b10", 2)}
    assert len(eigenvalues) == 4 * 3 * 3 * 3 and len(bounds) == 5 * 2  # runs, steps, operators, ranks; runs, sigmas
    assert set(eigenvalues["step"]) == {0, 4, 3000} and set(bounds["step"]) == {3000}
    full = eigenvalues[eigenvalues["trainer"] == "sgd-full"]
    assert set(full["batch_size"]) == {40} and full.groupby("step")["epoch"].first().tolist() == [0, 4, 3000]
    start = eigenvalues[(eigenvalues["step"] == 0) & (eigenvalues["label_noise"] == 0)]
    assert start.groupby(["operator", "rank"])["eigenvalue"].nunique().eq(1).all()  # both runs start from one point


def test_the_runs_of_both_studies_are_recorded_as_finished(studied):
    for study, count in (("predictor_hessian", 2), ("sgd_dynamics", 5)):
        runs = table(studied, study, "runs")
        assert set(runs["status"]) == {"finished"}
        if study == "predictor_hessian":
            assert runs["selected"].all() and set(runs["method"]) == {"sgd", "count_sketch"}
            runs = runs[runs["method"] == "sgd"]
        assert len(runs) == count
        records = list((studied.folder / f"results/tiny/{study}/runs").rglob("record.json"))
        assert len(records) == count
        assert {read_record(path)["train_loss"] for path in records} == set(runs["train_loss"])
        assert not list((studied.folder / f"results/tiny/{study}").rglob("partial"))


def test_nothing_is_made_twice(studied):
    for name in ("src/hessketch/dynamics/job.py", "src/hessketch/training/trajectory.py"):
        (studied.folder / name).touch()
    (studied.folder / "workflow/scripts/train_trajectories.py").touch()
    again = studied.snakemake(*STUDIES)
    assert again.returncode == 0 and "Nothing to be done" in again.stdout


TRAINED = {
    "trajectories_predictor_hessian_digits_classes3_8_resnet18_smooth_batch_w0_015625",
    "trajectories_sgd_dynamics_digits_8x8_mlp_none_w0_02",
}
EDITS = {
    "dynamics/loss_change.py": ({"sgd_dynamics_measures", "sgd_dynamics_tables"}, {"predictor_spectra", *TRAINED}),
    "training/trajectory.py": (
        {*TRAINED, "predictor_spectra", "sgd_dynamics_measures"},
        {"federate", "federated_predictor_spectra"},
    ),
}


@pytest.mark.parametrize(("file", "stages"), EDITS.items(), ids=EDITS)
def test_an_edit_reruns_only_what_depends_on_it(studied, file, stages):
    path = studied.folder / "src/hessketch" / file
    original = path.read_text()
    path.write_text(original + "\n# edited\n")
    planned = studied.snakemake(*STUDIES, "-n")
    path.write_text(original)
    assert planned.returncode == 0, planned.stdout
    found = {stage for stage, _ in re.findall(r"^(\w+) +(\d+)$", planned.stdout, re.MULTILINE)}
    again, untouched = stages
    assert again <= found and not untouched & found


def test_runs_may_have_a_job_each(project):
    one = {"runs_per_job": "one"}
    project.configure(**sections(predictor_hessian=one, sgd_dynamics=one))
    planned = project.snakemake(*STUDIES, "-n")
    assert planned.returncode == 0, planned.stdout
    stages = dict(re.findall(r"^(\w+) +(\d+)$", planned.stdout, re.MULTILINE))
    assert stages["predictor_spectra"] == "2" and stages["sgd_dynamics_measures"] == "5"
    assert [count for stage, count in stages.items() if stage.startswith("trajectories_")] == ["1"] * (2 + 5)


BAD = {
    "checkpoints, examples and trainers": (
        {
            "predictor_hessian": {
                "checkpoint_epochs": [0, 2],
                "examples": [4],
                "trainers": ["count_sketch-x3"],
            }
        },
        [
            "predictor_hessian.checkpoint_epochs: 2 is beyond the 1 epochs; allowed: 0 to 1",
            r"predictor_hessian.examples: 4 given, datasets.digits-classes3\+8 has 4 training examples; .* 0 to 3;",
            "predictor_hessian.trainers: count_sketch-x3 is not among .*; nearest valid name: count_sketch-x2.5",
        ],
    ),
    "ranks, noise, steps and batches": (
        {
            "sgd_dynamics": {
                "checkpoint_steps": [0, 3001],
                "top": 40,
                "batch_sizes": [10, 41],
                "sampels": 10,
                "datasets": {"digits-8x8": {**DYNAMIC["datasets"]["digits-8x8"], "label_noise": [0, 1.5]}},
            }
        },
        [
            r"sgd_dynamics.datasets.digits-8x8.label_noise\[1\]: 1.5 given; allowed: a number at least 0 below 1",
            "sgd_dynamics.sampels: unknown key; allowed: .*; nearest valid name: samples",
            "sgd_dynamics.checkpoint_steps: 3001 is beyond the 3000 steps; allowed: 0 to 3000",
            "sgd_dynamics.batch_sizes: 41 given, datasets.digits-8x8 has 40 training examples; allowed: at most 40",
            "sgd_dynamics.top: 40 eigenvalues asked for, .* has rank 39 at most; allowed: 1 to 39",
        ],
    ),
    "more eigenvalues than parameters": (
        {
            "sgd_dynamics": {
                "top": 30,
                "datasets": {
                    "clusters-k2-d5-s2": {
                        "examples_per_class": [20],
                        "learning_rate": 0.1,
                        "networks": [{"name": "mlp", "norm": "none", "width": 0.001}],
                    }
                },
            }
        },
        ["sgd_dynamics.top: 30 eigenvalues asked for, mlp of width 0.001 on clusters-k2-d5-s2 has 12 parameters"],
    ),
}


@pytest.mark.parametrize(("changes", "lines"), BAD.values(), ids=BAD.keys())
def test_bad_input_stops_before_the_first_job_and_writes_nothing(project, changes, lines):
    project.configure(**sections(**changes))
    stopped = project.snakemake(*STUDIES)
    assert stopped.returncode != 0
    for line in lines:
        assert re.search(line, stopped.stdout), (line, stopped.stdout)
    assert f"{len(lines)} to mend" in stopped.stdout
    assert "Traceback" not in stopped.stdout
    assert project.made() == []


def test_a_killed_job_keeps_finished_runs_and_resumes_the_one_under_way(studied, tmp_path):
    assert read_record(followed(studied, "sgd-b10") / "record.json") == studied.finished  # its cost too
    folder = followed(studied, "sgd-full")
    record = read_record(folder / "record.json")
    assert 0 < record["resumed_from_step"] < 3000 and record["steps"] == 3000

    run, prepared = (
        Run.from_path(record["run"]),
        read_prepared(studied.folder / f"resources/{DYNAMICS_DATA}.safetensors"),
    )
    (undisturbed,) = follow_runs(
        [run],
        lambda run: (examples_of_run(run, prepared, "train", 4), examples_of_run(run, prepared, "test", 3)),
        lambda run, train: (TrajectorySettings(steps=3000), [0, 4, 3000]),
        lambda run: tmp_path,
        device=torch.device("cpu"),
    )
    assert undisturbed["resumed_from_step"] == 0
    one, two = (read_tensors(place / "trajectory.safetensors") for place in (folder, tmp_path))
    assert one[1] == two[1] and one[0].keys() == two[0].keys()
    assert all(torch.equal(one[0][name], tensor) for name, tensor in two[0].items())
