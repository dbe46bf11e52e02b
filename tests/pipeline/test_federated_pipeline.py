"""Federated training in the real Snakefile: every run, table and spectrum is made once; bad input makes nothing."""

import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from conftest import FEDERATION, ROOT, Project

from hessketch.records import read_record, read_table, read_tensors
from hessketch.runs import IDENTITY

GROUP = "digits/noise0/n10/mlp-none-w0.05/cross_entropy"
CELL = f"{GROUP}/count_sketch-x2.5/seed1"
TRAINERS = {"count_sketch-x2.5", "top_r_ef-x2.5"}
NAMES = {*IDENTITY, "method", "error_feedback", "reduction"}
OF_SPECTRUM = NAMES | {"kind", "round", "train_loss", "target_loss", "split", "operator", "n", "p", "classes"}
TABLES = {
    "runs": NAMES | {"selected", "status", "diverged_at", "rounds", "n", "p", "classes", "clients", "upload_numbers",
                     "upload_bytes", "download_bytes", "reduction_numbers", "reduction_bytes", "train_loss",
                     "train_accuracy", "test_loss", "test_accuracy", "wall_seconds", "peak_memory_mib"},
    "rounds": NAMES | {"round", "server_rate", "train_loss", "train_accuracy", "test_loss", "test_accuracy",
                       "update_norm", "lift_error", "lift_error_theory", "error_norm", "upload_bytes",
                       "download_bytes", "participants", "seconds"},
    "learning_rates": (NAMES - {"learning_rate", "seed"}) | {"learning_rates", "learning_rate", "position", "seeds",
                       "runs", "diverged", "test_accuracy", "test_accuracy_standard_error"},
    "curvature": OF_SPECTRUM | {"largest_eigenvalue", "largest_magnitude", "trace", "trace_standard_error",
                                "frobenius_squared", "frobenius_squared_standard_error", "absolute_sum",
                                "absolute_sum_standard_error", "kappa", "kappa_standard_error",
                                "gradient_norm_squared"},
    "density": OF_SPECTRUM | {"estimator", "deflated", "eigenvalue", "density", "density_standard_error",
                              "broadening"},
    "eigenvalues": OF_SPECTRUM | {"rank", "eigenvalue", "residual_norm", "column_norm"},
    "table1": {"row", "column", "text"},
}  # fmt: skip


def section(**changes):
    return {**FEDERATION, **changes}


FIGURES = {
    "learning_rates", "accuracy_against_rounds", "loss_against_rounds", "accuracy_against_reduction",
    "accuracy_against_bytes", "lift_error", "error_memory", "spectra", "curvature_over_rounds",
}  # fmt: skip


@pytest.fixture(scope="module")
def federated(tmp_path_factory) -> Project:
    """A project whose federated study, and the spectra of one federated network, have been made."""
    project = Project(tmp_path_factory.mktemp("federated"))
    project.configure(federation=FEDERATION)
    done = project.snakemake("sharper_sketching", f"results/tiny/spectra/{CELL}/train/record.json")
    assert done.returncode == 0, done.stdout[-6000:]
    project.said = done.stdout
    return project


def table(project, name):
    return read_table(project.folder / f"results/tiny/sharper_sketching/{name}.parquet")


def test_every_table_of_the_study_is_there_with_its_columns(federated):
    for name, columns in TABLES.items():
        found = table(federated, name)
        assert set(found) >= columns, (name, columns - set(found))
        assert len(found), name
    text = (federated.folder / "results/tiny/sharper_sketching/table1.html").read_text()
    assert "PL condition" in text and "<table" in text


def test_every_figure_and_the_notebook_are_there(federated):
    folder = federated.folder / "figures/tiny/sharper_sketching/digits-mlp-none-w0.05"
    assert {path.name for path in folder.iterdir()} == {f"{name}.{kind}" for name in FIGURES for kind in ("pdf", "png")}
    logs = (federated.folder / "logs/tiny/sharper_sketching_figure").rglob("*.log")
    assert not [log for log in logs if "nothing to draw" in log.read_text()]
    assert (federated.folder / "results/tiny/sharper_sketching/notebook.html").stat().st_size > 100_000


def test_the_report_has_every_figure_with_its_caption(federated):
    done = federated.snakemake("sharper_sketching", "--report", "results/tiny/workflow.html")
    assert done.returncode == 0 and "ERROR" not in done.stdout, done.stdout[-3000:]
    page = (federated.folder / "results/tiny/workflow.html").read_text()
    assert page.count("data:image/png;charset=utf8;filename=") >= len(FIGURES)


def test_every_rate_and_seed_of_every_trainer_is_a_run(federated):
    runs = table(federated, "runs")
    assert len(runs) == 2 * 2 * 2 and set(runs["trainer"]) == TRAINERS
    assert runs.groupby("trainer")["selected"].sum().to_dict() == dict.fromkeys(TRAINERS, 2)
    for _, group in runs[runs["selected"]].groupby("trainer"):
        assert group["learning_rate"].nunique() == 1 and sorted(group["seed"]) == [0, 1]
    assert runs.set_index("trainer")["reduction"].to_dict()["count_sketch-x2.5"] == 2.5
    sent = runs.drop_duplicates("trainer").set_index("trainer")
    for label in TRAINERS:
        assert sent.loc[label, "upload_bytes"] == pytest.approx(sent.loc[label, "p"] * 4 / 2.5, rel=0.02)


def test_rounds_are_those_of_the_selected_runs(federated):
    rounds, runs = table(federated, "rounds"), table(federated, "runs")
    assert len(rounds) == 2 * 2 * 3
    chosen = runs[runs["selected"]].set_index(["trainer", "seed"])["learning_rate"]
    assert rounds.groupby(["trainer", "seed"])["learning_rate"].unique().map(list).to_dict() == {
        key: [rate] for key, rate in chosen.items()
    }


def test_checkpoints_have_hessians_on_both_splits_and_the_loss_is_the_same(federated):
    curvature = table(federated, "curvature")
    assert set(curvature["trainer"]) == {"count_sketch-x2.5"}
    assert len(curvature) == 2 * 2 * 2  # seeds, checkpoints, splits
    assert np.allclose(curvature["kappa"], curvature["absolute_sum"] / curvature["largest_magnitude"])
    assert curvature.loc[curvature["split"] == "train", "gradient_norm_squared"].gt(0).all()
    assert set(curvature.loc[curvature["split"] == "train", "n"]) == {100}
    assert set(curvature.loc[curvature["split"] == "test", "n"]) == {30}
    density = table(federated, "density")
    assert set(density["target_loss"]) == {5.0} and set(density["kind"]) == {"loss"}


def test_a_federated_network_has_spectra_like_one_trained_by_sgd(federated):
    folder = federated.folder / f"results/tiny/spectra/{CELL}/train"
    record, ritz = read_record(folder / "record.json"), read_table(folder / "ritz.parquet")
    selection = read_record(federated.folder / f"results/tiny/selected/{CELL}/selection.json")
    runs = table(federated, "runs")
    rate = runs.loc[runs["selected"] & (runs["trainer"] == "count_sketch-x2.5"), "learning_rate"].iloc[0]
    assert selection["learning_rate"] == record["learning_rate"] == rate
    assert set(ritz["operator"]) == {"hessian", "ggn", "residual"} and record["n"] == 100
    run = federated.folder / "results/tiny/runs" / selection["run"]
    copied, trained = (
        read_tensors(path / "model.safetensors")[0]
        for path in (federated.folder / f"results/tiny/selected/{CELL}", run)
    )
    assert all((copied[name] == trained[name]).all() for name in trained)


def test_rates_and_seeds_of_a_trainer_share_a_job_and_nothing_was_trained_by_sgd(federated):
    assert re.search(r"profile tiny: 1 data set, 2 groups of federated trainings, 1 selection,", federated.said)
    logs = federated.folder / "logs/tiny"
    assert {path.stem for path in (logs / f"federate/{GROUP}").glob("*.log")} == TRAINERS
    assert not (logs / "train").exists()


def test_nothing_is_made_twice(federated):
    (federated.folder / "src/hessketch/federated/simulation.py").touch()
    (federated.folder / "workflow/scripts/federate.py").touch()
    again = federated.snakemake("sharper_sketching", f"results/tiny/spectra/{CELL}/train/record.json")
    assert again.returncode == 0 and "Nothing to be done" in again.stdout


def stages_planned(project, path, target="sharper_sketching"):
    """Stages that an edit of a file makes anew."""
    original = path.read_text()
    path.write_text(original + "\n# edited\n")
    planned = project.snakemake(target, "-n")
    path.write_text(original)
    assert planned.returncode == 0, planned.stdout
    return {stage for stage, _ in re.findall(r"^(\w+) +(\d+)$", planned.stdout, re.MULTILINE)}


def test_an_edit_reruns_only_what_depends_on_it(federated):
    source = federated.folder / "src/hessketch"
    assert not {"federate", "checkpoint_spectra"} & stages_planned(federated, source / "studies/sharper_sketching.py")
    spectra = stages_planned(federated, source / "curvature/checkpoint_spectra.py")
    assert "checkpoint_spectra" in spectra and "federate" not in spectra
    assert "federate" in stages_planned(federated, source / "federated/methods/count_sketch.py")
    read = stages_planned(federated, source / "config_schema.py")
    assert "sharper_sketching_tables" in read and not {"federate", "checkpoint_spectra"} & read
    split = stages_planned(federated, source / "federated/partition.py")
    assert {"federate", "checkpoint_spectra", "sharper_sketching_tables"} <= split


def test_training_by_sgd_and_by_clients_are_planned_side_by_side(federated):
    planned = federated.snakemake("-n")
    stages = dict(re.findall(r"^(\w+) +(\d+)$", planned.stdout, re.MULTILINE))
    assert stages["train"] == "4" and "federate" not in stages


def test_without_the_section_a_profile_has_no_federated_stage(project):
    planned = project.snakemake("-n")
    assert planned.returncode == 0
    assert not re.search(r"^(federate|checkpoint_spectra|sharper_sketching\w*) ", planned.stdout, re.MULTILINE)
    unknown = project.snakemake("sharper_sketching", "-n")
    assert unknown.returncode != 0 and "sharper_sketching" in unknown.stdout


def test_runs_may_have_a_job_each(project):
    project.configure(federation=section(runs_per_job="one", spectra_of=[]))
    planned = project.snakemake("sharper_sketching", "-n")
    assert planned.returncode == 0, planned.stdout
    stages = dict(re.findall(r"^(\w+) +(\d+)$", planned.stdout, re.MULTILINE))
    assert stages["federate"] == "8" and "checkpoint_spectra" not in stages
    run = f"{GROUP}/top_r_ef-x2.5/lr0.03/seed1"
    made = project.snakemake(f"results/tiny/runs/{run}/record.json")
    assert made.returncode == 0, made.stdout
    assert [path.parent.name for path in project.folder.rglob("rounds.parquet")] == ["seed1"]
    assert read_record(project.folder / f"results/tiny/runs/{run}/record.json")["status"] == "finished"


def test_runs_that_all_diverged_are_a_result(project):
    """The tables say so, spectra of checkpoints are empty, and a spectrum that is demanded is refused in words."""
    project.configure(federation=section(methods=["count_sketch"], seeds=[1], learning_rates=[1e18, 1e19]))
    figures = "figures/tiny/sharper_sketching/digits-mlp-none-w0.05"
    done = project.snakemake(
        *(f"{figures}/{name}.png" for name in ("accuracy_against_reduction", "lift_error", "spectra"))
    )
    assert done.returncode == 0, done.stdout[-5000:]
    runs = table(project, "runs")
    assert set(runs["status"]) == {"diverged"} and not runs["selected"].any() and runs["test_accuracy"].isna().all()
    assert set(table(project, "learning_rates")["position"]) == {"none"}
    assert len(table(project, "rounds")) == len(table(project, "curvature")) == 0
    assert set(table(project, "density")) >= OF_SPECTRUM and TABLES["rounds"] <= set(table(project, "rounds"))
    log = project.folder / "logs/tiny/sharper_sketching_figure/digits-mlp-none-w0.05/spectra.log"
    assert "nothing to draw: all 2 runs diverged" in log.read_text()
    log = project.folder / f"logs/tiny/checkpoint_spectra/{CELL}.log"
    assert "no spectra: every run diverged" in log.read_text()
    refused = project.snakemake(f"results/tiny/spectra/{CELL}/train/record.json")
    assert refused.returncode != 0
    assert "every learning rate diverged: 1e+18" in refused.stdout


BAD = {
    "found in the config, all at once": (
        {
            "clients": 101,
            "fetch_rows": 4,
            "reductions": [0.5, 2.5],
            "methods": ["uncompressed", "count_sketch", "count_sketsch"],
            "spectra_of": ["topr-x10", "count_sketch-x3"],
            "checkpoint_rounds": [4],
        },
        [
            "federation.clients: 101 given, datasets.digits has 100 training examples; allowed: at most 100",
            "federation.fetch_rows: 4 given, but a median needs an odd number of rows",
            r"federation.reductions\[0\]: 0.5 given; allowed: a number at least 1",
            r"federation.methods\[2\]: 'count_sketsch' is unknown; allowed: .*; nearest valid name: count_sketch",
            "federation.spectra_of: .*'topr-x10' .*allowed: .*; nearest valid name: top_r",
            "federation.spectra_of: count_sketch-x3 is not among the trainers .*; nearest valid name: count_sketch",
            "federation.checkpoint_rounds: 4 is beyond the 3 rounds; allowed: 1 to 3",
        ],
    ),
    "a Dirichlet division that leaves a client empty": (
        {"partition": "dirichlet", "alpha": 0.001, "clients": 50},
        ["federation.partition: datasets.digits, seed 0: .*alpha 0.001.*allowed: at least 1; choose a larger alpha"],
    ),
    "a Dirichlet division of labels that are not known yet": (
        {
            "partition": "dirichlet",
            "datasets": {"digits": {**FEDERATION["datasets"]["digits"], "label_noise": 0.2}},
        },
        ["federation.datasets.digits.label_noise: 0.2 given; allowed with partition dirichlet: 0, .*partition: iid"],
    ),
    "rows that leave nothing to send": (
        {"rows": 100000},
        ["federation.rows: mlp of width 0.05 on digits: count_sketch: rows: 100000 given .*allowed: from 1 to 13647;"],
    ),
    "reductions that leave nothing to send": (
        {"methods": ["count_sketch", "top_r"], "reductions": [10000, 20000], "spectra_of": []},
        [
            "federation.reductions: mlp of width 0.05 on digits: count_sketch-x20000: .*allowed: .*13647;",
            "federation.reductions: mlp of width 0.05 on digits: top_r-x10000: .*allowed: .*6823.5",
            "federation.reductions: mlp of width 0.05 on digits: top_r-x20000: .*allowed: .*6823.5",
        ],
    ),
}


@pytest.mark.parametrize(("changes", "lines"), BAD.values(), ids=BAD.keys())
def test_bad_input_stops_before_the_first_job_and_writes_nothing(project, changes, lines):
    project.configure(federation=section(**changes))
    stopped = project.snakemake("sharper_sketching")
    assert stopped.returncode != 0
    for line in lines:
        assert re.search(line, stopped.stdout), (line, stopped.stdout)
    assert f"{len(lines)} to mend" in stopped.stdout
    assert "Traceback" not in stopped.stdout
    assert project.made() == []


def test_a_killed_job_keeps_finished_runs_and_resumes_the_one_under_way(project, tmp_path):
    """SIGKILL of Snakemake and its job in the second run of a group, then the same command again."""
    settings = {"methods": ["count_sketch_ef"], "reductions": [2.5], "rounds": 150, "seeds": [0], "spectra_of": []}
    project.configure(federation=section(**settings, checkpoint_rounds=[1, 150]))
    folder = project.folder / f"results/tiny/runs/{GROUP}/count_sketch_ef-x2.5"
    first, second = (folder / f"lr{rate}/seed0" for rate in ("0.1", "0.03"))
    process = project.start("federated", HESSKETCH_SAVE_EVERY="0")
    deadline = time.monotonic() + 120
    while not (second / "partial/resume.safetensors").exists():
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    finished = read_record(first / "partial/record.json")
    assert not (first / "record.json").exists()
    assert project.snakemake("--unlock").returncode == 0
    resumed = project.snakemake("federated")
    assert resumed.returncode == 0, resumed.stdout[-4000:]
    assert read_record(first / "record.json") == finished  # its cost too: it was not trained again
    record = read_record(second / "record.json")
    assert 0 < record["resumed_from_round"] < 150 and record["rounds"] == 150
    assert not (first / "partial").exists() and not (second / "partial").exists()

    undisturbed = tmp_path / "undisturbed"
    command = [record["run"], "--data", project.folder / "resources/digits.safetensors", "--output", undisturbed]
    command += ["--clients", "4", "--rounds", "150", "--local-steps", "2", "--device", "cpu", "--threads", "1"]
    command += ["--checkpoint-rounds", "1", "150", "--checkpoint-losses", "5"]
    subprocess.run([sys.executable, ROOT / "workflow/scripts/federate.py", *map(str, command)], check=True)
    for name in ("model", "checkpoints"):
        one, two = (read_tensors(f / f"{name}.safetensors")[0] for f in (second, undisturbed / record["run"]))
        assert one.keys() == two.keys()
        assert all((one[key] == two[key]).all() for key in two)
