"""The real Snakefile on a tiny profile of real images: everything is made, nothing is made twice."""

import re
import shutil
from pathlib import Path

import numpy as np
from matplotlib.image import imread

from hessketch.ledger import file_digest
from hessketch.records import read_record, read_table, read_tensors, table_provenance
from hessketch.verification import verify

CELL = "digits/noise0/n6/vgg11-batch-w0.015625/cross_entropy/sgd/seed0"
RUN = CELL.replace("seed0", "lr0.05/seed0")


def test_every_figure_and_table_of_the_study_is_there(finished):
    project, _ = finished
    figures = {path.name for path in (project.folder / "figures/tiny/full_spectrum/cross_entropy").iterdir()}
    label = "vgg11-batch-w0.015625"
    names = [f"figure{i}-{label}" for i in (1, 2)] + [f"figure{i}-digits-{label}" for i in (3, 4, 5)]
    names += ["accuracy", "outlier_count", "outlier_positions", "bulk_energy", "negative_mass"]
    assert figures == {f"{name}.{kind}" for name in names for kind in ("pdf", "png")}
    tables = {path.name for path in (project.folder / "results/tiny/full_spectrum").iterdir()}
    assert {"density.parquet", "outliers.parquet", "tails.parquet", "table1.csv", "notebook.html"} <= tables


def test_the_hierarchy_of_the_outliers_is_that_of_the_sizes_asked_for(finished):
    project, _ = finished
    folder = project.folder / "figures/tiny/outlier_hierarchy/digits-vgg11-batch-w0.015625-n6"
    names = {"hierarchy", "attribution", "embedding"}
    assert {path.name for path in folder.iterdir()} == {f"{name}.{kind}" for name in names for kind in ("pdf", "png")}
    study = project.folder / "results/tiny/outlier_hierarchy"
    assert (study / "notebook.html").stat().st_size > 100_000
    parts = read_table(study / "parts.parquet")
    assert set(parts["part"]) == {"G", "G0", "G1", "G2", "G1+2", "G3"} and set(parts["examples_per_class"]) == {6}
    spectrum = read_table(project.folder / f"results/tiny/spectra/{CELL}/train/eigenvalues.parquet")
    of_ggn = spectrum[spectrum["operator"] == "ggn"].sort_values("rank")["eigenvalue"].to_numpy()
    largest = parts[parts["part"] == "G"].sort_values("rank")["eigenvalue"].to_numpy()
    assert np.allclose(of_ggn, largest[: len(of_ggn)], rtol=2e-3)


def test_the_banner_names_profile_jobs_by_stage_and_device(finished):
    _, said = finished
    assert re.search(r"profile tiny: 1 data set, 4 trainings, 2 selections, 4 spectra, 1 decomposition by class,", said)
    assert "device: CPU" in said


def test_the_largest_eigenvalues_of_hessian_and_ggn_differ_by_at_most_the_residuals_norm(finished):
    """Weyl's inequality on what the jobs stored, for Hessian = GGN + residual (Ritz values are slightly inside)."""
    project, _ = finished
    ritz = read_table(project.folder / f"results/tiny/spectra/{CELL}/train/ritz.parquet")
    raw = ritz[~ritz["deflated"]]
    assert set(raw["operator"]) == {"hessian", "ggn", "residual"}
    assert np.allclose(raw.groupby(["operator", "start_vector"])["weight"].sum(), 1)
    largest = raw.groupby("operator")["ritz_value"].max()
    norm_of_residual = raw.loc[raw["operator"] == "residual", "ritz_value"].abs().max()
    assert abs(largest["hessian"] - largest["ggn"]) <= 1.05 * norm_of_residual


def test_runs_and_spectra_carry_their_record(finished):
    project, _ = finished
    spectrum = read_record(project.folder / f"results/tiny/spectra/{CELL}/test/record.json")
    run = read_record(project.folder / f"results/tiny/runs/{RUN}/record.json")
    assert run["status"] == "finished" and run["n"] == 60 and run["p"] == spectrum["p"]
    assert spectrum["n"] == 20 and spectrum["split"] == "test"
    for record in (run, spectrum):
        assert record["environment"]["packages"]["torch"]
        assert sum(int(np.prod(shape)) for shape in record["parameter_order"].values()) == record["p"]
        assert record["wall_seconds"] > 0 and record["peak_memory_mib"] > 0


def test_every_result_is_as_its_record_says_and_a_table_names_the_records_it_came_from(finished):
    project, _ = finished
    results = project.folder / "results/tiny"
    found = verify([results])
    assert not found.problems and not found.unfinished
    assert {"runs", "selected", "spectra", "full_spectrum", "outlier_hierarchy"} <= set(found.counts())
    records = table_provenance(results / "full_spectrum/density.parquet")["records"]
    assert f"results/tiny/runs/{RUN}/record.json" in records
    assert all(file_digest(project.folder / path).startswith(digest) for path, digest in records.items())


def test_the_checkpoint_of_the_chosen_epoch_is_kept(finished):
    project, _ = finished
    _, metadata = read_tensors(project.folder / f"results/tiny/runs/{RUN}/epoch1.safetensors")
    assert metadata["epoch"] == 1


def test_the_selected_rate_has_the_best_test_accuracy(finished):
    project, _ = finished
    selection = read_record(project.folder / f"results/tiny/selected/{CELL}/selection.json")
    best = max(c["test_accuracy"] for c in selection["candidates"])
    chosen = next(c for c in selection["candidates"] if c["learning_rate"] == selection["learning_rate"])
    assert chosen["test_accuracy"] == best


def test_jobs_write_calm_logs(finished):
    project, _ = finished
    log = (project.folder / f"logs/tiny/train/{RUN}.log").read_text()
    assert re.search(r"^\d\d:\d\d:\d\d epoch 3/3, took", log, re.MULTILINE)
    assert "\r" not in log and "\x1b" not in log


def test_a_second_call_has_nothing_to_do_even_after_touching_the_code(finished):
    """Code is compared by content, so that a git checkout retrains nothing."""
    project, _ = finished
    (project.folder / "src/hessketch/training/sgd.py").touch()
    (project.folder / "workflow/scripts/train.py").touch()
    again = project.snakemake()
    assert again.returncode == 0
    assert "Nothing to be done" in again.stdout


def test_an_edit_of_the_figures_redraws_and_retrains_nothing(finished):
    project, _ = finished
    path = project.folder / "src/hessketch/figures/style.py"
    original = path.read_text()
    path.write_text(original + "\n# another look\n")
    planned = project.snakemake("-n")
    path.write_text(original)
    stages = dict(re.findall(r"^(\w+) +(\d+)$", planned.stdout, re.MULTILINE))
    assert "full_spectrum_figure" in stages
    assert not {"train", "spectrum", "full_spectrum_tables"} & set(stages)


def test_the_run_ends_in_a_report_that_has_every_figure_and_table_with_the_command_that_makes_it(finished):
    project, said = finished
    assert "\nReport: results/tiny/report.html\n" in said
    page = (project.folder / "results/tiny/report.html").read_text()
    figures = [path for path in project.made() if path.startswith("figures/tiny/") and path.endswith(".png")]
    tables = [path for path in project.made() if re.fullmatch("results/tiny/[^/]+/[^/]+.parquet", path)]
    assert len(figures) >= 10 and len(tables) >= 10
    commands = [f"snakemake --cores all {path} --configfile config/tiny.yaml" for path in (*figures, *tables)]
    assert not [command for command in commands if command not in page]
    assert page.count("data:image/webp;base64,") >= len(figures)
    claims = read_table(project.folder / "results/tiny/claims.parquet")
    assert all(f'id="claim-{name}"' in page for name in claims["claim"])
    assert re.search(r"\d+ records of tiny", page)


def test_snakemakes_own_report_is_one_self_contained_page_with_every_figure(finished):
    project, _ = finished
    done = project.snakemake("--report", "results/tiny/workflow.html")
    assert done.returncode == 0, done.stdout[-3000:]
    assert "ERROR" not in done.stdout  # a caption that is no sound reStructuredText
    page = (project.folder / "results/tiny/workflow.html").read_text()
    assert page.count("data:image/png;charset=utf8;filename=") >= 10
    assert not re.search(r'<(?:script|link|img)[^>]+(?:src|href)="https?:', page)


def test_no_page_loads_anything_from_the_network(finished):
    """Scripts, styles and images of a page, and modules that its scripts import."""
    project, _ = finished
    for page in (project.folder / "results/tiny/full_spectrum").glob("*.html"):
        text = page.read_text()
        assert not re.search(r"<(?:script|link|img|iframe)[^>]+(?:src|href)=[\"']?(?:https?:)?//", text), page
        assert not re.search(r"import\([\"']https?:|from [\"']https?:", text), page
        assert not re.search(r"cdnjs|unpkg|jsdelivr", text), page


def test_a_recorded_study_draws_its_figures_without_runs_or_data(finished, project):
    made, _ = finished
    done = made.snakemake("record_full_spectrum")
    assert done.returncode == 0, done.stdout[-3000:]
    shutil.copytree(made.folder / "results/reference", project.folder / "results/reference")
    figure = "full_spectrum/cross_entropy/figure4-digits-vgg11-batch-w0.015625.png"
    drawn = project.snakemake(f"figures/reference/tiny/{figure}")
    assert drawn.returncode == 0, drawn.stdout[-3000:]
    folders = {path.parts[0] for path in map(Path, project.made())}
    assert folders == {"results", "figures", "logs"}
    assert {path.name for path in project.folder.glob("results/*")} == {"reference"}
    drawings = project.folder / "figures/reference/tiny", made.folder / "figures/tiny"
    ours, theirs = (imread(folder / figure) for folder in drawings)
    assert ours.shape == theirs.shape and np.abs(ours - theirs).mean() < 1e-3
    remaining = project.snakemake("reference_figures", "-n").stdout
    count = len(list((made.folder / "figures/tiny/full_spectrum").rglob("*.png")))
    assert re.search(rf"^reference_figure +{count - 1}$", remaining, re.M), remaining
    assert re.search(rf"^total +{count}$", remaining, re.M), remaining


def test_a_damaged_result_is_named_with_what_to_delete(finished):
    project, _ = finished
    path = project.folder / f"results/tiny/spectra/{CELL}/test/density.parquet"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    failed = project.snakemake("--forcerun", "full_spectrum_tables", "--until", "full_spectrum_tables")
    path.write_bytes(whole)
    assert failed.returncode != 0
    assert f"spectra/{CELL}/test/density.parquet: cannot be read, it is damaged" in failed.stdout
    assert re.search(
        r"to make anew what is damaged: rm \S+/density.parquet && snakemake \S+/density.parquet", failed.stdout
    )
    assert project.snakemake().returncode == 0
