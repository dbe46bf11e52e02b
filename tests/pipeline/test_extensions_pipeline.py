"""What the pages of docs/adding/ add from outside the package goes through the whole pipeline by name."""

import json
import re
from copy import deepcopy

import pytest
import yaml
from adding_pages import PAGES, blocks, write_files
from conftest import FEDERATION, Project

from hessketch.records import read_table

CELL = "two_moons/noise0/n20/tiny-none-w0.5/cross_entropy/sgd"
FIGURES = (
    "figures/tiny/sharpness/all/sharpness.png",
    "figures/tiny/full_spectrum/cross_entropy/operators-two_moons-tiny-none-w0.5.png",
    "figures/tiny/sharper_sketching/two_moons-tiny-none-w0.5/accuracy_against_reduction.png",
)


def profile() -> dict:
    """The tiny profile with what the profiles of all pages have, in few jobs."""
    pages = [yaml.safe_load(block) for page in PAGES for block in blocks(page, "yaml")]
    assert len(pages) == len(PAGES)
    merged = {key: value for page in pages for key, value in page.items()}
    changes = {
        **merged,
        "extensions": [file for page in pages for file in page["extensions"]],
        "federation": {
            **deepcopy(FEDERATION),
            **merged["federation"],
            "datasets": {"two_moons": {"examples_per_class": 10, "test_examples_per_class": 3}},
            "networks": merged["networks"],
            "seeds": [0],
            "learning_rates": [0.1],
            "checkpoint_rounds": [],
            "checkpoint_losses": [],
            "spectra_of": [],
        },
    }
    changes["federation"]["methods"].remove("uncompressed")
    changes["datasets"]["two_moons"]["examples_per_class"].remove(10)
    spectrum = {"lanczos_steps": 12, "grid_points": 64, "deflation_rank": 2, "splits": ["train"]}
    return {**changes, "training": {"batch_size": 16}, "spectrum": {**spectrum, **merged["spectrum"]}}


@pytest.fixture(scope="module")
def extended(tmp_path_factory) -> Project:
    """A project whose profile names the files of all pages, run as far as figures and claims."""
    project = Project(tmp_path_factory.mktemp("extended"))
    for page in PAGES:
        write_files(page, project.folder)
    project.configure(**profile())
    done = project.snakemake(*FIGURES, "results/tiny/claims.txt", "resources/digits.safetensors")
    assert done.returncode == 0, done.stdout[-6000:]
    return project


def test_everything_added_is_in_the_results(extended):
    results = extended.folder / "results/tiny"
    operators = read_table(results / "full_spectrum/eigenvalues.parquet")["operator"]
    assert set(operators) == {"hessian", "ggn", "scaled_hessian"}
    methods = read_table(results / "sharper_sketching/accuracy.parquet")["method"]
    assert set(methods) == {"random_k"}
    assert all((extended.folder / figure).stat().st_size > 5000 for figure in FIGURES)
    [sharpness] = read_table(results / "sharpness/sharpness.parquet")["sharpness"]
    eigenvalues = read_table(results / "full_spectrum/eigenvalues.parquet")
    of_hessian = eigenvalues.loc[eigenvalues["operator"] == "hessian", "eigenvalue"]
    assert sharpness == pytest.approx(of_hessian[of_hessian.abs().idxmax()], rel=1e-3)
    claims = read_table(results / "claims.parquet").set_index("claim")
    assert claims.loc["sharpness_is_positive", "verdict"] == "supported"


def test_a_record_names_the_extensions_with_their_digests(extended):
    record = json.loads((extended.folder / f"results/tiny/runs/{CELL}/lr0.1/seed0/record.json").read_text())
    files = record["provenance"]["extensions"]
    assert set(files) == {"my_dataset.py", "my_network.py", "my_compressor.py", "my_operator.py", "my_claims.py"}
    assert all(len(digest) == 64 for digest in files.values())


def test_an_edit_of_claims_alone_has_them_decided_again_and_trains_nothing(extended):
    claims = extended.folder / "my_claims.py"
    claims.write_text(claims.read_text() + "\n# edited\n")
    again = extended.snakemake("-n", *FIGURES, "results/tiny/claims.txt")
    jobs = dict(re.findall(r"^(\w+) +([0-9]+)$", again.stdout, re.MULTILINE))
    assert jobs == {"claims_tables": "1", "total": "1"}, again.stdout


def test_jobs_that_read_an_extension_run_again_when_it_changes_but_for_data_of_the_package(extended):
    network = extended.folder / "my_network.py"
    network.write_text(network.read_text().replace("nn.Tanh", "nn.GELU"))
    again = extended.snakemake("-n", *FIGURES, "results/tiny/claims.txt", "resources/digits.safetensors")
    jobs = dict(re.findall(r"^(\w+) +([0-9]+)$", again.stdout, re.MULTILINE))
    assert {jobs.get(rule) for rule in ("train", "federate", "spectrum", "sharpness_tables", "claims_tables")} == {"1"}
    assert "prepare_data" not in jobs, again.stdout
    dataset = extended.folder / "my_dataset.py"
    dataset.write_text(dataset.read_text() + "\n# edited\n")
    again = extended.snakemake("-n", "resources/two_moons.safetensors", "resources/digits.safetensors")
    jobs = dict(re.findall(r"^(\w+) +([0-9]+)$", again.stdout, re.MULTILINE))
    assert jobs == {"prepare_data": "1", "total": "1"}, again.stdout  # two_moons
